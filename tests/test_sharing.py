"""Nothing is trained twice: runs that differ at test time only, and runs of other scripts with the same settings."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest
import torch

from common import cli, tables
from common.learners import Learner
from common.support.errors import UserError
from project3_wrn import batch_epoch_grid, compare_models, ensemble, improvements, main, result_files, runner
from project3_wrn.method.recipes import Recipe

LENET = Recipe(lr=0.02, cutout=0)
QUICK = ("--scale", "quick", "--device", "cpu", "--precision", "fp32")
SETTINGS = {"model": "lenet", "lr": 0.1, "seed": 0, "ema": 0.0, "tta_views": 1, "tta_fraction": 1.0}


@pytest.fixture
def steps(monkeypatch):
    """Return a list that gets one item per training step."""
    steps, step = [], Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, x, y: steps.append(1) or step(self, x, y))
    return steps


@pytest.fixture
def start(monkeypatch, tmp_path):
    def start(script, *flags, out=tmp_path):
        monkeypatch.setattr(sys, "argv", ["script.py", *QUICK, "--out", str(out), *flags])
        script.main()

    return start


def study_of(monkeypatch, **configs):
    monkeypatch.setattr(compare_models, "CONFIGS", {name: ("lenet", recipe) for name, recipe in configs.items()})


def arrays(path):
    return {name: values for name, values in tables.load_arrays(path).items() if name not in ("seconds", "started")}


def test_what_differs_at_test_time_is_trained_once_to_the_same_bits(monkeypatch, start, steps, tmp_path):
    mirrored = dataclasses.replace(LENET, tta_views=2)
    for name, recipe in (("plain", LENET), ("mirror", mirrored)):
        study_of(monkeypatch, **{name: recipe})
        start(compare_models, out=tmp_path / "alone" / name)
    once = len(steps) / 2
    steps.clear()
    study_of(monkeypatch, plain=LENET, mirror=mirrored)
    start(compare_models, out=tmp_path / "together")
    assert len(steps) == once
    for name in ("plain", "mirror"):
        alone, together = (
            arrays(tmp_path / folder / "compare_models" / "runs" / f"{name}-0.npz")
            for folder in (f"alone/{name}", "together")
        )
        assert alone.keys() == together.keys()
        assert all(np.array_equal(values, together[key]) for key, values in alone.items())
    plain, mirror = (arrays(tmp_path / "together/compare_models/runs" / f"{n}-0.npz") for n in ("plain", "mirror"))
    assert not np.array_equal(plain["test_logits"], mirror["test_logits"])
    assert np.array_equal(plain["batch_losses"], mirror["batch_losses"])


def test_one_of_two_that_share_a_training_is_evaluated_from_its_checkpoint(monkeypatch, start, steps, tmp_path):
    """As after a kill between the two results: nothing is trained again."""
    study_of(monkeypatch, plain=LENET, mirror=dataclasses.replace(LENET, tta_views=2))
    start(compare_models, "--keep-checkpoints")
    path = tmp_path / "compare_models" / "runs" / "mirror-0.npz"
    before = arrays(path)
    path.unlink()
    steps.clear()
    start(compare_models)
    assert not steps and all(np.array_equal(values, before[name]) for name, values in arrays(path).items())


def test_a_network_that_main_has_trained_is_taken_over(monkeypatch, start, steps, tmp_path, capsys):
    """The model table and the other studies take it over, and evaluate its weights where they test otherwise."""
    start(main, "--model", "lenet", "--lr", "0.02", "--cutout", "0")
    assert steps
    steps.clear()
    study_of(monkeypatch, lenet=LENET, mirror=dataclasses.replace(LENET, tta_views=2))
    start(compare_models)
    assert not steps
    assert "lenet, seed 0: taken over from lenet, which has trained it" in capsys.readouterr().err
    first, second = (arrays(tmp_path / name / "runs/lenet-0.npz") for name in ("lenet", "compare_models"))
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    study_of(monkeypatch, mirror=dataclasses.replace(LENET, tta_views=2))
    start(compare_models, out=tmp_path / "alone")
    trained = arrays(tmp_path / "alone/compare_models/runs/mirror-0.npz")
    evaluated = arrays(tmp_path / "compare_models/runs/mirror-0.npz")
    assert trained.keys() == evaluated.keys()
    assert all(np.array_equal(values, evaluated[name]) for name, values in trained.items())
    (run,) = [run for run in cli.read_json(tmp_path / "compare_models/run.json")["runs"] if run["config"] == "mirror"]
    (origin,) = cli.read_json(tmp_path / "lenet/run.json")["runs"]
    assert {**origin, "config": "mirror"} == run and set(run) == {"config", "seed", "git_commit", "started", "seconds"}


def test_a_clone_takes_over_what_main_has_committed(monkeypatch, start, steps, tmp_path):
    """It has neither runs/ nor weights: the result is made from the files that are committed."""
    start(main, "--model", "lenet", "--lr", "0.02", "--cutout", "0", "--seeds", "2")
    original = arrays(tmp_path / "lenet" / "runs" / "lenet-0.npz")
    shutil.rmtree(tmp_path / "lenet" / "runs")
    (tmp_path / "lenet" / "weights-0.pt").unlink()
    steps.clear()
    study_of(monkeypatch, lenet=LENET)
    start(compare_models, "--seeds", "2")
    assert not steps
    copied = arrays(tmp_path / "compare_models" / "runs" / "lenet-0.npz")
    assert copied.keys() == original.keys()
    assert all(np.array_equal(values, copied[name]) for name, values in original.items() if name != "settings")
    assert runner.json.loads(str(copied["settings"])) == runner.json.loads(str(original["settings"]))
    runs = [cli.read_json(tmp_path / name / "run.json")["runs"] for name in ("lenet", "compare_models")]
    assert runs[0] == runs[1]


def test_other_settings_are_trained(monkeypatch, start, steps):
    start(main, "--model", "lenet", "--lr", "0.02", "--cutout", "0")
    steps.clear()
    study_of(monkeypatch, lenet=dataclasses.replace(LENET, lr=0.03))
    start(compare_models)
    assert steps


def test_an_unreadable_run_elsewhere_is_passed_over(monkeypatch, start, steps, tmp_path):
    (tmp_path / "other" / "runs").mkdir(parents=True)
    (tmp_path / "other" / "runs" / "lenet-0.npz").write_bytes(b"no zip")
    study_of(monkeypatch, lenet=LENET)
    start(compare_models)
    assert steps


def test_folds_are_never_another_training():
    """All folds have one recipe: only the images that they hold out tell them apart."""
    start = {"scale": "quick", "precision": "fp32"}
    keys = {
        result_files.training_key(result_files.run_settings("lenet", {}, 0, start, split))
        for split in (None, "fold_0", "fold_1")
    }
    assert len(keys) == 3


def test_no_two_improvements_are_the_same_and_mirror_is_trained_with_the_baseline():
    configs = improvements.make_configs("cuda")
    settings = {
        config: result_files.run_settings(model, dataclasses.asdict(recipe), 0, {})
        for config, (model, recipe) in configs.items()
    }
    assert len({str(values) for values in settings.values()}) == len(configs)
    keys = {config: result_files.training_key(values) for config, values in settings.items()}
    assert [config for config in keys if keys[config] == keys["baseline"]] == ["baseline", "mirror"]


def test_the_networks_of_main_and_of_the_grid_are_those_of_the_model_table():
    """These are what run_all.sh trains once for several scripts."""
    table = compare_models.CONFIGS
    assert table["resnet18"] == improvements.make_configs("cuda")["baseline"]
    assert table["dla34"] == batch_epoch_grid.CONFIGS["epochs_100_batch_256"]


# --- the ensemble ---


def write_member(folder, model, seed, *, config=None, logits=None, **recipe):
    """Write the outputs of main.py (without `config`) or a run of a study, with random logits."""
    generator = torch.Generator().manual_seed(sum(map(ord, model)) + seed)
    result = {
        f"{part}_logits": torch.randn(count, 10, generator=generator).numpy() if logits is None else logits[:count]
        for part, count in (("val", 140), ("test", 500))
    }
    fields = {"epochs": 1, "ema": 0.0, "tta_views": 1, "tta_fraction": 1.0, **recipe}
    shared = {"scale": "quick", "precision": "fp32", "seeds": [0, 1], "device": "a CPU"}
    if config is None:
        arrays = {f"{seed}/{name.split('_')[0]}": values for name, values in result.items()}
        tables.save_arrays(folder / "logits.npz", arrays)
        cli.write_json(folder / "run.json", {**shared, "model": model, "recipe": fields})
        return
    settings = result_files.run_settings(model, fields, seed, shared)
    tables.save_arrays(
        result_files.result_path(folder, config, seed), {**result, "settings": np.array(runner.json.dumps(settings))}
    )
    path = folder / "run.json"
    configs = cli.read_json(path)["configs"] if path.exists() else {}
    cli.write_json(path, {**shared, "configs": {**configs, config: {"model": model, **fields}}})


@pytest.fixture
def combined(monkeypatch, tmp_path):
    """Return combined(*folders): the names of the members that an ensemble of these folders has."""

    def combined(*folders):
        flags = ("--members", *map(str, folders), "--out", str(tmp_path / "ensemble"))
        monkeypatch.setattr(sys, "argv", ["ensemble.py", "--scale", "quick", *flags])
        ensemble.main()
        run_json = cli.read_json(tmp_path / "ensemble" / "run.json")
        return [(member["folder"], member["config"], member["seed"]) for member in run_json["members"]]

    return combined


def test_members_are_of_several_networks_and_folders(combined, tmp_path):
    write_member(tmp_path / "resnet18", "resnet18", 0)
    write_member(tmp_path / "study", "vgg16_bn", 0, config="vgg")
    write_member(tmp_path / "study", "wrn16_8", 0, config="wrn16_8")
    members = combined(tmp_path / "resnet18", tmp_path / "study")
    assert members == [("resnet18", "resnet18", 0), ("study", "vgg", 0), ("study", "wrn16_8", 0)]
    run_json = cli.read_json(tmp_path / "ensemble" / "run.json")
    assert run_json["seeds"] == [0] and run_json["data"] and run_json["device"] and run_json["started"]
    page = (tmp_path / "ensemble" / "ensemble.md").read_text(encoding="utf-8")
    assert "The 3 members are finished runs of `resnet18` and `study`" in page
    for row in tables.read_csv(tmp_path / "ensemble" / "classes.csv"):
        p, r, f1 = (float(row[name]) for name in ("precision", "recall", "f1"))
        assert f1 == pytest.approx(2 * p * r / (p + r), abs=0.01) if p + r else f1 == 0


def test_no_training_is_counted_twice(combined, tmp_path, capsys):
    """Neither what differs at test time or in the average that is evaluated, nor one network in two folders."""
    write_member(tmp_path / "resnet18", "resnet18", 0)
    study = tmp_path / "study"
    write_member(study, "resnet18", 0, config="baseline")
    write_member(study, "resnet18", 0, config="mirror", tta_views=2, logits=np.eye(500, 10, dtype=np.float32))
    write_member(study, "resnet18", 0, config="ema", ema=0.9, logits=2 * np.eye(500, 10, dtype=np.float32))
    write_member(study, "resnet18", 1, config="baseline")
    write_member(study, "resnet18", 1, config="copy", epochs=2)  # other settings, and to the bit the same logits
    assert combined(tmp_path / "resnet18", study) == [("resnet18", "resnet18", 0), ("study", "baseline", 1)]
    assert capsys.readouterr().out.count("is a training that is already a member") == 4


def test_one_name_of_two_trainings_has_its_folder(combined, tmp_path):
    write_member(tmp_path / "a", "lenet", 0, epochs=1)
    write_member(tmp_path / "b", "lenet", 0, epochs=2, config="lenet", logits=np.eye(500, 10, dtype=np.float32))
    assert [config for _, config, _ in combined(tmp_path / "a", tmp_path / "b")] == ["a/lenet", "b/lenet"]


def test_members_of_different_scales_are_refused(combined, tmp_path):
    for name in ("a", "b"):
        write_member(tmp_path / name, "lenet", 0)
    cli.write_json(tmp_path / "b" / "run.json", {**cli.read_json(tmp_path / "b" / "run.json"), "scale": "full"})
    with pytest.raises(UserError, match="different scales, full and quick"):
        combined(tmp_path / "a", tmp_path / "b")


def test_the_default_members_are_those_of_main_and_of_the_model_table(monkeypatch, tmp_path):
    monkeypatch.setattr(ensemble, "TASK", tmp_path)
    assert ensemble.default_folders("full") == []
    write_member(tmp_path / "outputs_short" / "improvements", "fast_small", 0, config="baseline")
    write_member(tmp_path / "outputs_short" / "improvements", "fast_small", 1, config="baseline")
    assert ensemble.default_folders("full") == [tmp_path / "outputs_short" / "improvements"]
    write_member(tmp_path / "outputs" / "resnet18", "resnet18", 0)
    write_member(tmp_path / "outputs" / "compare_models", "dla34", 0, config="dla34")
    write_member(tmp_path / "outputs" / "improvements", "resnet18", 0, config="baseline")
    chosen = [tmp_path / "outputs" / name for name in ("resnet18", "compare_models")]
    assert ensemble.default_folders("full") == chosen


# --- failures, folders and files ---


def fail_first(monkeypatch, error):
    """Let the first training raise `error`."""
    real, calls = runner.train_runs, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return real(*arguments)

    monkeypatch.setattr(runner, "train_runs", failing)
    return calls


def test_a_broken_cuda_context_ends_the_study(monkeypatch, start):
    """Every later run would fail by it within a second."""
    study_of(monkeypatch, one=LENET, two=dataclasses.replace(LENET, lr=0.03))
    calls = fail_first(monkeypatch, torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(torch.AcceleratorError):
        start(compare_models)
    assert len(calls) == 1


def test_after_a_lack_of_memory_the_cache_is_emptied_and_the_study_continues(monkeypatch, start, tmp_path):
    study_of(monkeypatch, one=LENET, two=dataclasses.replace(LENET, lr=0.03))
    fail_first(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    with pytest.raises(UserError, match=r"1 failed: one with seed 0 \(out of memory; lower --batch-size\)"):
        start(compare_models)
    assert emptied and (tmp_path / "compare_models/runs/two-0.npz").exists()


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        (("--scale", "full", "--device", "cpu"), "outputs_short"),
        (("--scale", "full", "--device", "cpu", "--epochs", "7"), "outputs_custom"),
        (("--scale", "quick", "--device", "cpu"), "outputs_quick"),
        (("--plan", "--device", "cuda"), "outputs"),
        (("--redraw",), "outputs_short"),
        (("--redraw", "--device", "cuda"), "outputs"),
    ],
)
def test_short_runs_have_their_own_folder(monkeypatch, tmp_path, flags, folder):
    monkeypatch.setattr(sys, "argv", ["study.py", *flags])
    assert runner.parse("", tmp_path, "study", {"quick": 1, "full": 1}).out == tmp_path / folder / "study"


def test_what_is_in_outputs_is_redrawn_there(monkeypatch, tmp_path):
    cli.write_json(tmp_path / "outputs" / "study" / "run.json", {})
    monkeypatch.setattr(sys, "argv", ["study.py", "--redraw"])
    assert runner.parse("", tmp_path, "study", {"quick": 1, "full": 1}).out == tmp_path / "outputs" / "study"


def test_the_loss_history_has_the_reports_three_keys(start, tmp_path):
    start(main, "--model", "lenet", "--seeds", "2")
    path = tmp_path / "lenet" / "loss_history.npz"
    saved, histories = tables.load_arrays(path), tables.load_histories(path)
    assert set(histories) == {("lenet", 0), ("lenet", 1)}
    for key in ("batch_losses", "epoch_losses", "batch_indices"):
        assert np.array_equal(saved[key], saved[f"lenet/0/{key}"])
