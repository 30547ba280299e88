"""Project 3's runner, by main.py with LeNet at quick scale: what it writes, keeps, resumes and refuses."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from common import cli, data, evaluation, tables
from common.learners import Learner
from common.support import checkpoints
from common.support.errors import UserError
from project3_wrn import main, result_files
from project3_wrn.method.weights import load_network
from tests.conftest import ROOT, assert_single_error_line, run_python

MAIN = ROOT / "project3_wrn" / "main.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
# in bf16, the default where the CPU has it, the saved logits would be the weights' to three digits only
LENET = ("--model", "lenet", "--scale", "quick", "--device", "cpu", "--precision", "fp32")
WRITES = {
    *("metrics.json", "performance.md", "classification_report.csv", "top_confusion_pairs.csv"),
    *("confusion_matrix.csv", "calibration.csv", "training_history.json", "loss_history.npz", "logits.npz"),
    *("run.json", "runs", "training_curves.png", "confusion_matrix.png", "per_class_accuracy.png"),
    *("top_confusion_pairs.png", "confidence.png", "misclassified_samples.png", "gradcam_visualization.png"),
    "weights-0.pt",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Return the folder of a quick run of LeNet by the report's recipe, started by torchrun in two processes."""
    out = tmp_path_factory.mktemp("project3")
    flags = (*LENET, "--lr", "0.02", "--epochs", "3", "--out", out)
    process = run_python(*TORCHRUN, MAIN, *flags, OMP_NUM_THREADS="1")
    assert process.returncode == 0, process.stderr
    return out / "lenet"


@pytest.fixture
def steps(monkeypatch):
    """Return a list that gets one item per training step."""
    steps, step = [], Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, x, y: steps.append(1) or step(self, x, y))
    return steps


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_writes_everything_consistently(quick, sample):
    assert not WRITES - names(quick)
    (metrics,), saved = json.loads((quick / "metrics.json").read_text()), tables.load_arrays(quick / "logits.npz")
    assert np.array_equal(saved["test_labels"], sample[1].labels)
    accuracy = 100 * accuracy_score(saved["test_labels"], saved["0/test"].argmax(1))
    assert metrics["test_accuracy"] == pytest.approx(accuracy)
    history = tables.load_histories(quick / "loss_history.npz")["lenet", 0]
    assert metrics["val_accuracy"] == pytest.approx(history["val_accuracy"].max())
    assert not set(saved["train_indices"]) & set(saved["val_indices"])
    assert np.array_equal(saved["val_labels"], sample[0].labels[saved["val_indices"]])
    assert metrics["parameters"] == 62_006 and metrics["epochs"] == 3
    rows = {row["class"]: row for row in tables.read_csv(quick / "classification_report.csv")}
    assert sum(int(rows[name]["support"]) for name in data.CLASSES) == int(rows["accuracy"]["support"]) == 500
    assert float(rows["accuracy"]["f1"]) * 100 == pytest.approx(metrics["test_accuracy"], abs=0.01)
    matrix = {
        row.pop("true"): {name: int(count) for name, count in row.items()}
        for row in tables.read_csv(quick / "confusion_matrix.csv")
    }
    assert all(sum(row.values()) == 50 for row in matrix.values())  # a row is a true class
    assert matrix["cat"]["cat"] / 50 == pytest.approx(float(rows["cat"]["recall"]))
    assert "**QUICK**" in (quick / "performance.md").read_text(encoding="utf-8")
    run_json = cli.read_json(quick / "run.json")
    assert run_json["recipe"]["lr"] == 0.02 and run_json["model"] == "lenet" and run_json["processes"] == 2
    assert metrics["early_stopping_epoch"] is None  # three epochs are fewer than the patience
    assert f"| 0 | 3 | {metrics['best_epoch']} | – |" in (quick / "performance.md").read_text(encoding="utf-8")
    rates = json.loads((quick / "training_history.json").read_text())["lr"]
    assert rates == pytest.approx([0.02, 0.015, 0.005])  # 0.02 (1 + cos(pi e / 3)) / 2 in epoch e + 1


def test_the_saved_weights_give_the_saved_logits(quick, sample):
    network = load_network("lenet", quick / "weights-0.pt")
    logits = evaluation.predict(torch.no_grad()(network), sample[1], data.CIFAR10_STATS)
    assert np.allclose(logits, tables.load_arrays(quick / "logits.npz")["0/test"], atol=1e-5)


def test_redraw_makes_all_of_it_again(quick, tmp_path):
    """As in a clone, which has neither runs/ nor checkpoints/; the weights are kept, for Grad-CAM."""
    out = tmp_path / "lenet"
    shutil.copytree(quick, out, ignore=shutil.ignore_patterns("runs", "checkpoints"))
    (out / "log.csv").unlink()  # of the training
    drawn = [path for path in out.iterdir() if path.suffix in (".md", ".csv", ".png")]
    drawn.append(out / "training_history.json")
    before = {path.name: path.read_bytes() for path in drawn}
    for path in drawn:
        path.unlink()
    flags = (*LENET, "--redraw", "--out", tmp_path)
    process = run_python("-W", "error::UserWarning:matplotlib", MAIN, *flags)
    assert process.returncode == 0, process.stderr
    assert "lyph" not in process.stderr
    for name, content in before.items():
        assert (out / name).exists()
        # a heat map's last bit depends on the number of threads
        if not name.startswith("gradcam_visualization"):
            assert (out / name).read_bytes() == content, name


def test_a_clone_without_weights_keeps_its_grad_cam(quick, tmp_path, run_in_process):
    shutil.copytree(quick, tmp_path / "lenet", ignore=shutil.ignore_patterns("weights-0.pt"))
    before = (tmp_path / "lenet" / "gradcam_visualization.png").read_bytes()
    process = run_in_process(main.main, *LENET, "--redraw", "--out", tmp_path)
    assert process.returncode == 0, process.stderr
    assert "weights-0.pt not found (weights are not committed); keeping" in process.stdout
    assert (tmp_path / "lenet" / "gradcam_visualization.png").read_bytes() == before


def test_other_settings_are_refused(quick, run_in_process):
    flags = (*LENET, "--epochs", "3", "--out", quick.parent, "--lr", "0.3")
    assert_single_error_line(
        run_in_process(main.main, *flags), "lenet-0.npz", "lr was 0.02, is 0.3", "--fresh", status=1
    )


def test_a_missing_layer_is_named(quick, run_in_process):
    flags = (*LENET, "--redraw", "--out", quick.parent, "--gradcam-layer", "conv9")
    assert_single_error_line(run_in_process(main.main, *flags), "conv9", status=1)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_a_stop_while_figures_are_drawn_loses_no_training(tmp_path, monkeypatch, capsys, run_in_process, steps, stop):
    """The same command then neither trains nor evaluates again, and writes everything."""
    flags, write_results = (*LENET, "--out", tmp_path), main.write_results

    def stopped(folder, **settings):
        (folder / "performance.md").write_text("half", encoding="utf-8")
        raise stop

    monkeypatch.setattr(main, "write_results", stopped)
    monkeypatch.setattr(sys, "argv", ["main.py", *map(str, flags)])
    with pytest.raises(stop):
        main.main()
    assert steps and (tmp_path / "lenet" / "runs" / "lenet-0.npz").exists()
    assert "evaluating" in capsys.readouterr().err
    steps.clear()
    monkeypatch.setattr(main, "write_results", write_results)
    process = run_in_process(main.main, *flags)
    assert process.returncode == 0 and not steps, process.stderr
    assert "evaluating" not in process.stderr
    assert not WRITES - names(tmp_path / "lenet")
    assert names(tmp_path / "lenet" / "checkpoints") <= {"lock"}


def logged(out):
    """Return (seed, epoch) of the rows of the log, in their order, and its rows without times."""
    rows = tables.read_csv(out / "lenet" / "log.csv")
    times = ("time", "seconds")
    measured = [{name: value for name, value in row.items() if name not in times} for row in rows]
    return [(row["seed"], row["epoch"]) for row in rows], measured


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch, run_in_process):
    """Stopped in epoch 2 of seed 1: seed 0 is read back, seed 1 resumes, and both are as if nothing had happened.

    So is the log, which had all epochs until then.
    """
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)
    flags = (*LENET, "--seeds", "2", "--epochs", "3")
    assert run_in_process(main.main, *flags, "--out", tmp_path / "straight").returncode == 0
    per_seed, steps, step = 3 * 20, [], Learner.step  # 1,260 images in batches of 64

    def stopping(self, x, y):
        if len(steps) == per_seed + 20 + 7:
            raise KeyboardInterrupt
        steps.append(1)
        return step(self, x, y)

    monkeypatch.setattr(Learner, "step", stopping)
    process = run_in_process(main.main, *flags, "--out", tmp_path / "stopped")
    assert process.returncode == 130 and "rerun" in process.stderr.lower()
    folder = tmp_path / "stopped" / "lenet"
    assert names(folder / "runs") == {"lenet-0.npz"} and (folder / "checkpoints" / "lenet-1.pt").exists()
    assert logged(tmp_path / "stopped")[0] == [("0", "1"), ("0", "2"), ("0", "3"), ("1", "1")]
    monkeypatch.setattr(Learner, "step", lambda self, x, y: steps.append(1) or step(self, x, y))
    steps.clear()
    process = run_in_process(main.main, *flags, "--out", tmp_path / "stopped")
    assert process.returncode == 0, process.stderr
    assert len(steps) == 20 - 7 + 20 and "seed 0: evaluating" not in process.stderr
    epochs, rows = logged(tmp_path / "stopped")
    assert epochs == [("0", "1"), ("0", "2"), ("0", "3"), ("1", "1"), ("1", "2"), ("1", "3")]
    assert rows == logged(tmp_path / "straight")[1]
    history = tables.load_arrays(folder / "runs" / "lenet-1.npz")
    for row, loss, accuracy in zip(rows[3:], history["epoch_losses"], history["val_accuracy"]):
        assert (row["train_loss"], row["val_accuracy"]) == (f"{loss:.4f}", f"{accuracy:.2f}")
    for seed in range(2):
        straight, resumed = (
            tables.load_arrays(tmp_path / name / "lenet" / "runs" / f"lenet-{seed}.npz")
            for name in ("straight", "stopped")
        )
        assert straight.keys() == resumed.keys()
        for name in straight.keys() - {"seconds", "started"}:
            assert np.array_equal(straight[name], resumed[name]), name
        weights = (
            load_network("lenet", tmp_path / name / "lenet" / f"weights-{seed}.pt").state_dict()
            for name in ("straight", "stopped")
        )
        first, second = weights
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_finished_run_is_trained_again_only_with_fresh(tmp_path, run_in_process, steps):
    flags = (*LENET, "--out", tmp_path)
    for extra, trained in (((), 20), ((), 0), (("--fresh",), 20)):
        steps.clear()
        process = run_in_process(main.main, *flags, *extra)
        assert process.returncode == 0 and len(steps) == trained, process.stderr


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped"])
def test_a_damaged_run_is_one_line_and_removed(quick, tmp_path, capsys, damage):
    whole = (quick / "runs" / "lenet-0.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path = tmp_path / "lenet-0.npz"
    path.write_bytes({"empty": b"", "text": b"text", "cut": whole[:-30], "flipped": bytes(flipped)}[damage])
    assert result_files.read_finished(path, {}) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "lenet-0.npz" in line and line.startswith("trained again: ") and not path.exists()


def test_arrays_of_another_kind_are_not_taken_for_a_run(tmp_path):
    """They may be somebody's, so they are neither used nor removed."""
    for settings in ({}, {"settings": np.array("{'model': 'lenet'}")}):
        tables.save_arrays(tmp_path / "lenet-0.npz", {"test_logits": np.zeros(3), **settings})
        with pytest.raises(UserError, match="another version"):
            result_files.read_finished(tmp_path / "lenet-0.npz", {"model": "lenet"})
        assert (tmp_path / "lenet-0.npz").exists()


def test_one_diverged_seed_does_not_stop_the_others(tmp_path, monkeypatch, run_in_process):
    """It is named at the end, its checkpoint stays, and the tables have the other seed."""
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)
    steps, real = [], Learner.backward_and_step

    def diverging(self, loss):
        steps.append(1)
        real(self, loss * (float("inf") if len(steps) == 20 + 7 else 1))

    monkeypatch.setattr(Learner, "backward_and_step", diverging)
    flags = (*LENET, "--epochs", "2", "--seeds", "2", "--out", tmp_path)
    process = run_in_process(main.main, *flags)
    assert_single_error_line(
        process, "1 failed: lenet with seed 0 (", "a lower learning rate", "The tables have", status=1
    )
    assert [entry["seed"] for entry in cli.read_json(tmp_path / "lenet" / "metrics.json", list)] == [1]
    assert (tmp_path / "lenet" / "checkpoints" / "lenet-0.pt").exists()
    traceback = tmp_path / "lenet" / "failed" / "lenet-0.log"
    assert str(traceback) in process.stderr and "Traceback" in traceback.read_text(encoding="utf-8")
    monkeypatch.setattr(Learner, "backward_and_step", real)
    process = run_in_process(main.main, *flags)
    assert process.returncode == 0, process.stderr
    assert [entry["seed"] for entry in cli.read_json(tmp_path / "lenet" / "metrics.json", list)] == [0, 1]
    assert not traceback.parent.exists()
