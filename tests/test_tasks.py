"""Every main.py at quick scale, as a user types it; its outputs; bad input; the committed results."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from common import cli, tables
from common.data import CLASSES
from common.learners import Learner, StackedLearner
from tests.conftest import ROOT, TASKS, one_clear_line, run_python

OUTPUTS = {
    "task1_loss_curves": {"loss_history.npz", "loss_history_seeds.npz", "loss_curves.png", "loss_table.md"},
    "task2_regularization": {"loss_history.npz", "comparison.md", "curves.png", "strength.png"},
    "task3_hparams": {
        "loss_history.npz",
        "split_history.npz",
        "split.npz",
        "comparison.png",
        "hyperparameters.md",
        "split_results.csv",
    },
    "task4_architectures": {
        "loss_history.npz",
        "batch_history.npz",
        "comparison.png",
        "batch_size.png",
        "architectures.md",
    },
}
SHORTER = {"task4_architectures": ("--epochs", "1")}
ALWAYS = {"results.csv", "summary.csv", "run.json"}


def load_main(task):
    spec = importlib.util.spec_from_file_location(f"{task}_main", ROOT / task / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """{task: folder of results}: each task at quick scale, started in another working directory.

    Task 1 trains in a process a core; the others have one core, so one process, as starting more takes longer than they train.
    """
    made, elsewhere = {}, tmp_path_factory.mktemp("elsewhere")

    def of(task):
        if task not in made:
            out = tmp_path_factory.mktemp(task) / "results"
            words = [
                ROOT / task / "main.py",
                "--scale",
                "quick",
                "--device",
                "cpu",
                "--out",
                out,
                *SHORTER.get(task, ()),
            ]
            process = run_python(*words, cwd=elsewhere, cores=None if task == TASKS[0] else 1)
            assert process.returncode == 0, process.stderr
            made[task] = out
        return made[task]

    return of


@pytest.mark.parametrize("task", TASKS)
def test_quick_writes_everything_finite_and_stamped(quick, task):
    out = quick(task)
    assert OUTPUTS[task] | ALWAYS <= {path.name for path in out.iterdir()}
    rows = tables.read_csv(out / "results.csv")
    assert {"config", "seed", "test_accuracy", "train_loss", "epochs", "seconds"} <= rows[0].keys()
    assert [(row["config"], row["seed"]) for row in rows] == [
        (run, seed) for run in load_main(task).CONFIGS for seed in "01"
    ]
    for row in rows:
        assert row["scale"] == "quick"
        assert (
            0 <= float(row["test_accuracy"]) <= 100
            and np.isfinite(float(row["train_loss"]))
            and float(row["seconds"]) > 0
        )
    for page in out.glob("*.md"):
        assert page.read_text(encoding="utf-8").splitlines()[2].startswith("**QUICK**")
    run_json = cli.read_json(out / "run.json")
    assert run_json["scale"] == "quick" and run_json["seeds"] == [0, 1] and run_json["versions"]["torch"]
    assert not list(out.rglob("*.pt"))  # finished: nothing to resume


def test_the_reports_three_keys(quick):
    history = tables.load_arrays(quick("task1_loss_curves") / "loss_history.npz")
    assert set(history) == {"batch_losses", "epoch_losses", "batch_indices"}
    steps = len(history["batch_losses"])
    assert steps == 1400 / 4 * len(history["epoch_losses"])
    assert history["batch_indices"].tolist() == list(range(1, steps + 1))
    assert np.allclose(
        history["epoch_losses"], history["batch_losses"].reshape(len(history["epoch_losses"]), -1).mean(1), rtol=1e-5
    )


def test_runs_that_differ_only_in_length_are_one_training(quick):
    """Without dropout, same seed and batches: the longer run's first epochs are the shorter run's."""
    histories = tables.load_histories(quick("task3_hparams") / "loss_history.npz")
    longer, shorter = histories["no_regularization_more_epochs", 0], histories["no_regularization", 0]
    assert np.allclose(longer["epoch_losses"][: len(shorter["epoch_losses"])], shorter["epoch_losses"], atol=1e-4)


def test_the_split_is_saved_and_is_the_one_trained_on(quick, sample):
    saved = tables.load_arrays(quick("task3_hparams") / "split.npz")
    assert sorted([*saved["train"], *saved["validation"]]) == list(range(1400))
    histories = tables.load_histories(quick("task3_hparams") / "split_history.npz")
    assert all("val_accuracy" in history for history in histories.values())
    right = histories["baseline", 0]["val_accuracy"] * 140 / 100  # of the 140 held-out images
    assert np.allclose(right, right.round(), atol=1e-3)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("task", TASKS)
def test_tables_and_figures_are_drawn_from_the_saved_history(quick, task, lang, tmp_path, recwarn):
    from common import plots

    if lang == "zh" and not plots.chinese_font():
        pytest.skip("no font with Chinese glyphs is installed")
    load_main(task).write_results(quick(task), tmp_path, lang)
    assert not [warning for warning in recwarn if "lyph" in str(warning.message)]
    drawn = {path.name for path in quick(task).iterdir() if path.suffix in (".csv", ".md", ".png")}
    assert {path.name for path in tmp_path.iterdir()} == drawn
    for path in [*tmp_path.glob("*.csv"), *tmp_path.glob("*.md")]:
        assert path.read_bytes() == (quick(task) / path.name).read_bytes(), path.name


def test_redraw_from_the_command_line_trains_nothing(quick, here):
    out = quick("task1_loss_curves")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix != ".png"}
    (out / "loss_curves.png").unlink()
    process = here(load_main(TASKS[0]).main, "--scale", "quick", "--redraw", "--out", out)
    assert process.returncode == 0, process.stderr
    assert (out / "loss_curves.png").exists()
    assert before == {name: (out / name).read_bytes() for name in before}


def test_a_diverged_run_is_drawn_too(quick, tmp_path):
    """One seed that diverged in its first epoch and stopped there, beside one that did not."""
    source = tmp_path / "source"
    shutil.copytree(quick("task3_hparams"), source)
    histories = tables.load_histories(source / "loss_history.npz")
    cut = histories["more_epochs", 0]
    for field, values in cut.items():
        if field == "batch_losses":
            cut[field] = np.concatenate([values[:100], np.full(250, np.nan, np.float32)])
        elif field == "batch_indices":
            cut[field] = values[:350]
        elif values.ndim:
            cut[field] = values[:1]
    cut["epoch_losses"], cut["diverged_step"] = np.array([np.nan], np.float32), np.array(101)
    tables.save_histories(source / "loss_history.npz", histories)
    load_main("task3_hparams").write_results(source, tmp_path)
    rows = {(row["config"], row["seed"]): row for row in tables.read_csv(tmp_path / "results.csv")}
    assert rows["more_epochs", "0"]["diverged_step"] == "101" and rows["more_epochs", "0"]["train_loss"] == "nan"


def test_without_a_chinese_font_figures_are_english_and_say_so(monkeypatch, capsys):
    from common import plots

    monkeypatch.setattr(plots, "chinese_font", lambda: None)
    style = plots.Style("zh")
    assert style.text("Epoch") == "Epoch"
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_every_label_of_every_run_is_translated():
    from common.support.translations import CHINESE
    from project3_wrn import improvements

    for task in TASKS:
        for run in load_main(task).CONFIGS:
            assert run in CHINESE or run.startswith(("l2_", "dropout_")), run
    assert not improvements.make_configs("cpu").keys() - CHINESE.keys()
    drawn = (ROOT / "project3_wrn" / "outputs.py").read_text(encoding="utf-8")
    labels = re.findall(r'style\.text\("([^"]+)"\)', drawn)
    assert len(labels) > 20 and not {*labels, *CLASSES, "is", "taken for"} - CHINESE.keys()


# --- stopped and resumed ---


@pytest.mark.skipif(os.name == "nt", reason="signals are not the same there")
def test_a_stopped_task_goes_on_where_it_stopped(tmp_path):
    """Ctrl-C after the first epoch: one line, status 130, nothing written; the next start trains the other two and ends."""
    words = [ROOT / TASKS[0] / "main.py", "--scale", "quick", "--device", "cpu", "--seeds", "1", "--epochs", "3"]
    words += ["--out", tmp_path]
    child = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )
    checkpoint = tmp_path / "checkpoints" / "runs" / "baseline-0.pt"
    while child.poll() is None and not checkpoint.exists():
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    errors = child.communicate()[1]
    assert child.returncode == 130, errors
    assert "error: interrupted" in errors and "Traceback" not in errors
    assert not (tmp_path / "results.csv").exists()
    before = torch.load(checkpoint, weights_only=True)
    assert 1 <= before["epoch"] < 3
    resumed = run_python(*words)
    assert resumed.returncode == 0 and "Traceback" not in resumed.stderr, resumed.stderr
    losses = tables.load_arrays(tmp_path / "loss_history.npz")["batch_losses"]
    kept = torch.cat(before["history"]["batch_losses"]).flatten().numpy()
    assert len(losses) == 3 * 350 and np.array_equal(losses[: len(kept)], kept)


@pytest.mark.parametrize("task", TASKS)
def test_a_stop_while_the_report_is_drawn_loses_no_training(task, tmp_path, monkeypatch, here):
    """The checkpoints go only after it; the same command trains nothing, writes everything and then lets them go."""
    words = ("--scale", "quick", "--device", "cpu", "--epochs", "1", "--seeds", "1", "--out", tmp_path)
    module, trained = load_main(task), []
    for kind in (StackedLearner, Learner):
        step = lambda self, x, y, real=kind.step: trained.append(1) or real(self, x, y)
        monkeypatch.setattr(kind, "step", step)
    monkeypatch.setattr(machine, "cores", lambda: 1)  # all in this process
    if task == "task2_regularization":
        monkeypatch.setattr(module, "step_costs", lambda runs, options: dict.fromkeys(module.COMPARED, 1.0))
    drawn = module.write_results

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_results", stopped)
    process = here(module.main, *words)
    assert process.returncode == 130 and "the same command" in process.stderr
    assert trained and list(tmp_path.rglob("*.pt"))
    trained.clear()
    monkeypatch.setattr(module, "write_results", drawn)
    process = here(module.main, *words)
    assert process.returncode == 0 and not trained, process.stderr
    assert OUTPUTS[task] | ALWAYS <= {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.rglob("*.pt"))


def test_run_all_goes_on_after_a_failure_and_names_it():
    """Two tasks that are locked by another run: both are tried, both are named, the status says so."""
    first, second = TASKS[:2]
    with cli.output_lock(ROOT / first / "outputs_quick"), cli.output_lock(ROOT / second / "outputs_quick"):
        words = ["bash", "run_all.sh", "--scale", "quick", "--device", "cpu", first, second]
        process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert process.returncode == 1
    assert process.stderr.count("another run of this task") == 2
    assert f"failed: {first} {second}" in process.stderr


@pytest.mark.parametrize(
    ("scale", "device", "models"),
    [
        ("quick", "cpu", [[]]),
        ("full", "cpu", ["fast94", "fast96"]),
        ("full", "cuda", ["resnet18", "wrn28_10", "fast94", "fast95", "fast96"]),
    ],
)
def test_run_all_starts_each_network_of_project_3(scale, device, models):
    script = (ROOT / "run_all.sh").read_text(encoding="utf-8")
    starts = re.search(r"^starts\(\) .*?^}", script, re.DOTALL | re.MULTILINE)[0]
    command = f"scale={scale}; device={device}; {starts}; starts project3_wrn; echo; starts task3_hparams"
    out = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    ours, task3 = (part.splitlines() for part in out.split("\n\n"))
    assert task3 == [f"--scale {scale} --device {device} --keep-checkpoints"]
    assert [line.split()[6:7] or [] for line in ours] == [[name] if name else [] for name in models]


# --- bad input ---


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "-1"],
        ["--batch-size", "0"],
        ["--seeds", "0"],
        ["--seeds", "two"],
        ["--nonsense"],
        ["--device", "tpu"],
    ],
)
def test_wrong_flags_are_usage_errors(task, words, here):
    one_clear_line(here(load_main(task).main, *words), words[0], status=2)


def test_a_device_that_is_not_there(here):
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    missing = next(name for name, there in devices.items() if not there)
    one_clear_line(here(load_main(TASKS[0]).main, "--device", missing), missing, "not available", status=2)


def test_a_damaged_data_folder(tmp_path, here):
    (tmp_path / "test_batch.bin").write_bytes(b"x" * 100)
    words = ("--scale", "full", "--data", tmp_path, "--out", tmp_path / "out")
    one_clear_line(here(load_main(TASKS[0]).main, *words), "data_batch_1.bin", status=1)


def test_an_outputs_folder_that_cannot_be_written(tmp_path, here):
    main, file = load_main(TASKS[0]).main, tmp_path / "file"
    file.write_text("in the way")
    one_clear_line(here(main, "--scale", "quick", "--out", file / "out"), "file", status=1)
    if os.name == "posix" and os.geteuid() != 0:
        locked = tmp_path / "read_only"
        locked.mkdir(mode=0o500)
        one_clear_line(here(main, "--scale", "quick", "--out", locked / "out"), "read_only", status=1)


@pytest.mark.skipif(os.name == "nt", reason="no such limit there")
def test_a_file_that_cannot_grow_is_one_line(tmp_path):
    """As on a full disk: the checkpoint's write fails in the middle. torch tells it as a RuntimeError."""
    import resource

    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    words = [
        sys.executable,
        ROOT / TASKS[0] / "main.py",
        "--scale",
        "quick",
        "--device",
        "cpu",
        "--seeds",
        "1",
        "--out",
        tmp_path,
    ]
    process = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, preexec_fn=limit)
    one_clear_line(process, "cannot write", status=1)
    assert not list(tmp_path.rglob("*.pt"))


def test_two_runs_of_one_task_at_once(tmp_path, here):
    with cli.output_lock(tmp_path):
        one_clear_line(here(load_main(TASKS[0]).main, "--scale", "quick", "--out", tmp_path), "another run", status=1)


@pytest.mark.parametrize("damage", ["cut", "absent", "of another task"])
def test_redraw_from_a_damaged_history(quick, tmp_path, here, damage):
    out = tmp_path / "results"
    shutil.copytree(quick("task1_loss_curves"), out)
    path = out / "loss_history_seeds.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "absent":
        path.unlink()
    else:
        shutil.copy(out / "loss_history.npz", path)
    process = run_python(ROOT / TASKS[0] / "main.py", "--scale", "quick", "--redraw", "--out", out)
    one_clear_line(process, "loss_history_seeds.npz", "without --redraw", status=1)


@pytest.mark.parametrize("words", [["--nonsense"], ["--scale", "huge"], ["--device", "tpu"], ["task9"], ["--lang"]])
def test_run_all_refuses_what_it_does_not_know(words):
    process = subprocess.run(
        ["bash", "run_all.sh", *words], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    one_clear_line(process, words[-1], status=2)
    assert "usage:" in process.stderr


def test_help_answers_without_torch():
    code = "import sys; sys.argv = ['main.py', '--help']; import runpy\ntry: runpy.run_path('task1_loss_curves/main.py', run_name='__main__')\n"
    process = run_python("-c", code + "except SystemExit: print('torch' in sys.modules)")
    assert process.stdout.splitlines()[-1] == "False"


# --- the committed results ---


@pytest.mark.parametrize("task", TASKS)
def test_committed_tables_are_those_of_the_committed_histories(task, tmp_path):
    committed = ROOT / task / "outputs"
    if not (committed / "run.json").exists():
        pytest.skip("no full run of this task is committed")
    load_main(task).write_results(committed, tmp_path)
    for path in [*committed.glob("*.csv"), *committed.glob("*.md")]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert cli.read_json(committed / "run.json")["scale"] == "full"
    assert "QUICK" not in "".join(path.read_text(encoding="utf-8") for path in committed.glob("*.md"))


@pytest.mark.parametrize(("name", "lang"), [("README.md", "en"), ("README.zh-CN.md", "zh")])
def test_readme_table_is_that_of_the_committed_outputs(name, lang):
    from grading.readme import filled

    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text, lang) == text, "run: python grading/build.py"
