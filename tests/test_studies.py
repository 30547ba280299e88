"""The studies of project 3, with LeNet in every configuration, at quick scale."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support

from common import cli, data, tables
from common.reported import GRID
from common.support.errors import UserError
from common.support.translations import label
from project3_wrn import batch_epoch_grid, compare_models, ensemble, improvements, label_audit, result_files, runner
from project3_wrn.analysis import ensemble_tables, study_tables
from project3_wrn.analysis.label_errors import LABEL_ERRORS
from project3_wrn.method import soft_labels
from project3_wrn.method.recipes import Recipe
from project3_wrn.method.train import FAST_ONLY, check_recipe
from tests.test_project3_pages import check_page

LENET = ("lenet", Recipe(lr=0.02, cutout=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


def start(script, monkeypatch, folder, *flags):
    study = script.__name__.rsplit(".", 1)[1]
    flags = ["--scale", "quick", "--device", "cpu", "--out", str(folder), *flags]
    monkeypatch.setattr(sys, "argv", [f"{study}.py", *flags])
    script.main()
    return folder / study


def assert_redrawn_without_runs(script, monkeypatch, out):
    """As in a clone, which has the tables and figures of a study and not its runs."""
    shutil.rmtree(out / "runs")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    for path in (*out.glob("*.md"), *out.glob("*.png")):
        path.unlink()
    start(script, monkeypatch, out.parent, "--redraw")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


REPORT_SCHEDULE = {name: getattr(Recipe(), name) for name in FAST_ONLY}


def with_lenet(configs):
    changes = dict(fast=None, tta_views=1, optimizer="sgd", lr=0.02, **REPORT_SCHEDULE)
    return {config: ("lenet", dataclasses.replace(recipe, **changes)) for config, (_, recipe) in configs.items()}


def test_runs_are_kept_resumed_and_named_when_they_fail(monkeypatch, folder, capsys):
    configs = {"good": LENET, "other": LENET, "bad": ("lenet", Recipe(lr=1e9))}
    monkeypatch.setattr(compare_models, "CONFIGS", configs)
    with pytest.raises(UserError, match=r"1 failed: bad with seed 0 \(diverged at step"):
        start(compare_models, monkeypatch, folder / "failing")
    out = folder / "failing" / "compare_models"
    assert "| good |" in (out / "comparison.md").read_text(encoding="utf-8")
    before = (out / "runs" / "good-0.npz").stat().st_mtime_ns
    (out / "runs" / "other-0.npz").unlink()
    monkeypatch.setattr(compare_models, "CONFIGS", {"good": LENET, "other": LENET})
    start(compare_models, monkeypatch, folder / "failing")
    assert (out / "runs" / "good-0.npz").stat().st_mtime_ns == before
    assert (out / "runs" / "other-0.npz").exists() and not list((out / "checkpoints").glob("*.pt"))
    monkeypatch.setattr(compare_models, "CONFIGS", {"good": ("lenet", Recipe(lr=0.5)), "other": LENET})
    with pytest.raises(UserError, match=r"good-0.npz has other settings .*lr was 0.02, is 0.5"):
        start(compare_models, monkeypatch, folder / "failing")
    page = (out / "comparison.md").read_text(encoding="utf-8")
    assert "| other |" in page and "| good |" not in page  # what was refused is not shown as the new run either
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr(compare_models, "CONFIGS", dict.fromkeys(("good", "other"), ("lenet", Recipe(lr=0.7))))
    with pytest.raises(UserError, match=r"2 failed: .* No results are written"):
        start(compare_models, monkeypatch, folder / "failing")
    # the old results do not become those of the new settings
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_a_damaged_run_is_trained_again(monkeypatch, folder, capsys):
    monkeypatch.setattr(compare_models, "CONFIGS", {"good": LENET})
    out = start(compare_models, monkeypatch, folder / "damaged")
    path, before = out / "runs" / "good-0.npz", (out / "results.csv").read_text(encoding="utf-8")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    start(compare_models, monkeypatch, folder / "damaged")
    assert "trained again: " in capsys.readouterr().out
    after = (out / "results.csv").read_text(encoding="utf-8")
    assert after.splitlines()[1].split(",")[:5] == before.splitlines()[1].split(",")[:5]


def test_a_study_of_which_nothing_ran_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(compare_models, "CONFIGS", {"bad": ("lenet", Recipe(lr=1e9))})
    with pytest.raises(UserError, match="1 failed: bad with seed 0"):
        start(compare_models, monkeypatch, tmp_path)


@pytest.mark.parametrize("flags", [(), ("--plan",)])
def test_what_cannot_be_trained_is_refused_before_anything_is(monkeypatch, tmp_path, flags):
    misspelt = ((("resnet19", Recipe()), "no model resnet19"), (("lenet", Recipe(loss="focl")), "--loss focl"))
    for bad, message in misspelt:
        monkeypatch.setattr(compare_models, "CONFIGS", {"good": LENET, "bad": bad})
        with pytest.raises(UserError, match=message):
            start(compare_models, monkeypatch, tmp_path / "none", *flags)
    assert not (tmp_path / "none").exists()


def test_compare_models_and_ensemble(monkeypatch, folder):
    chosen = {config: compare_models.CONFIGS[config] for config in ("resnet18", "vit", "vgg16_bn")}
    configs = {
        config: ("lenet", dataclasses.replace(recipe, lr=lr))
        for (config, (_, recipe)), lr in zip(with_lenet(chosen).items(), (0.01, 0.02, 0.03))
    }
    monkeypatch.setattr(compare_models, "CONFIGS", configs)
    out = start(compare_models, monkeypatch, folder, "--seeds", "2")
    check_page(out / "comparison.md")
    page = (out / "comparison.md").read_text(encoding="utf-8")
    assert "95.77" in page and "53.48" in page and page.count("±") >= 9 and "**QUICK**" in page
    rows = [(row["config"], row["seed"]) for row in tables.read_csv(out / "results.csv")]
    assert rows == [(config, seed) for config in chosen for seed in ("0", "1")]
    flags = ["--scale", "quick", "--members", str(out), "--out", str(folder / "ensemble")]
    monkeypatch.setattr(sys, "argv", ["ensemble.py", *flags])
    ensemble.main()
    page = (folder / "ensemble" / "ensemble.md").read_text(encoding="utf-8")
    assert "6 members" in page and "stacking" in page
    _, test_labels, _ = result_files.load_labels("quick", None)
    mean = sum(
        F.softmax(torch.from_numpy(result["test_logits"]).double(), 1)
        for result in result_files.load_results(out, cli.read_json(out / "run.json")).values()
    )
    names = {path.name for path in (folder / "ensemble").iterdir()}
    assert {"members.csv", "classes.csv", "ensemble.json", "diversity.png", "run.json", "predictions.npz"} <= names
    assert cli.read_json(folder / "ensemble" / "run.json")["seeds"] == [0, 1]
    check_page(folder / "ensemble" / "ensemble.md")
    assert f"| mean probability | {100 * (mean.argmax(1) == test_labels).double().mean():.2f} |" in page


@pytest.mark.parametrize("script", [compare_models, batch_epoch_grid, improvements, label_audit])
def test_a_plan_lists_every_configuration_and_writes_nothing(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "--plan", "--device", "cuda", "--out", str(tmp_path)])
    script.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    counts = {
        compare_models: 10,
        batch_epoch_grid: 9,
        improvements: len(improvements.make_configs("cuda")),
        label_audit: 5,
    }
    assert len(rows) == counts[script] and not list(tmp_path.iterdir())


def test_the_plan_of_a_fold_counts_the_images_that_it_holds_out(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["label_audit.py", "--scale", "full", "--device", "cpu"])
    options = runner.parse("", label_audit.TASK, "label_audit", label_audit.SEEDS)
    runs = runner.make_runs({"fold_0": label_audit.BASELINES["cpu"]}, options)
    (row,) = runner.plan_rows(runs, "full", held_out=1 / label_audit.FOLDS)
    assert (row["train"], row["evaluated"]) == (40_000, 10_000)


def test_a_failed_fold_leaves_no_results(monkeypatch, tmp_path):
    """Without it some images would have no probabilities."""
    monkeypatch.setattr(label_audit, "BASELINES", {"cpu": ("lenet", Recipe(validation_split=False, patience=0))})
    real = runner.train_runs

    def failing(runs, *arguments):
        if runs[0].config == "fold_3":
            raise RuntimeError("broken")
        return real(runs, *arguments)

    monkeypatch.setattr(runner, "train_runs", failing)
    with pytest.raises(UserError, match=r"1 failed: fold_3 with seed 0 \(broken\). No results are written"):
        start(label_audit, monkeypatch, tmp_path)
    out = tmp_path / "label_audit"
    assert len(list((out / "runs").glob("*.npz"))) == 4
    assert [path.name for path in out.glob("*.*")] == ["log.csv"]
    assert "RuntimeError: broken" in (out / "failed" / "fold_3-0.log").read_text(encoding="utf-8")


def test_the_comparison_with_published_results_has_the_papers_the_reports_and_our_numbers():
    rows = compare_models.published_table({"wrn16_8": np.array([95.0, 95.5])})
    assert all(row["source"].startswith("arXiv ") for row in rows)
    (row,) = [row for row in rows if row["network"] == "WRN-16-8"]
    assert [row[f"{name}, %"] for name in ("published", "report", "ours")] == ["95.73", "95.39", "95.25 ± 0.35"]
    assert "0.61 points by the size" in compare_models.published_note().en  # 96.00 - 95.39


def test_remarks_are_of_the_networks_that_are_trained():
    sizes = {name: study_tables.model_size(name) for name in ("resnet18", "wrn16_8", "vit")}
    accuracy = {"resnet18": np.array([95.8]), "wrn16_8": np.array([95.5, 95.7]), "vit": np.array([53.0])}
    (text,) = compare_models.remarks(accuracy, sizes)
    assert (
        "10.96 million parameters and 3.10 GFLOPs, ResNet-18 has 11.17 million and 1.11: this is 2.8 times" in text.en
    )
    assert "WRN-16-8 is 95.60%, 0.20 points below the 95.80% of ResNet-18" in text.en
    assert "ViT" not in text.en and "DLA" not in text.en
    assert compare_models.remarks(accuracy, {"vit": sizes["vit"]}) == []


def test_a_short_run_is_stamped_with_network_epochs_and_seeds():
    run_json = {
        "scale": "full",
        "seeds": [0, 1, 2],
        "device": "a CPU",
        "shortened": True,
        "configs": {"baseline": {"model": "fast_small", "epochs": 3}, "cbam": {"model": "other", "epochs": 3}},
    }
    assert study_tables.facts(run_json) == ("fast_small", "3 seeds", "3 epochs", "short run")
    (text,) = study_tables.stamp(run_json)
    assert text.en.startswith("**SHORT RUN** (small fast network, 3 seeds, 3 epochs; on a CPU)")
    assert text.zh.startswith("**SHORT RUN**（缩短的训练：小型快速网络，3 个种子，3 轮；")
    assert not study_tables.stamp({**run_json, "shortened": False})
    assert study_tables.facts({**run_json, "shortened": False, "seeds": [0]})[1:] == (
        "1 seed",
        "3 epochs",
        "full scale",
    )


@pytest.mark.parametrize("study", ["improvements", "label_audit"])
def test_committed_short_runs_are_stamped(study):
    folder = improvements.TASK / runner.SHORT_OUTPUTS / study
    pages = [page.read_text(encoding="utf-8").splitlines() for page in folder.glob("*.md")]
    assert len(pages) == 2 and all(page[2].startswith("**SHORT RUN**") for page in pages)
    assert {row["scale"] for row in tables.read_csv(folder / "results.csv")} == {"short"}
    assert (
        not (improvements.TASK / "outputs" / study).exists()
        or cli.read_json(improvements.TASK / "outputs" / study / "run.json")["device_type"] == "cuda"
    )


def test_grid(monkeypatch, folder):
    monkeypatch.setattr(batch_epoch_grid, "CONFIGS", with_lenet(batch_epoch_grid.CONFIGS))
    out = start(batch_epoch_grid, monkeypatch, folder)
    check_page(out / "grid.md")
    page = (out / "grid.md").read_text(encoding="utf-8")
    for reported in ("81.38", "68.10", "52.11", "90.69"):
        assert reported in page
    assert "do not have the report's epochs" in page and (out / "grid.png").exists()


def test_accidents_are_those_far_from_our_seeds():
    near = {name: np.array([GRID[cell], GRID[cell] + 1]) for cell, name in batch_epoch_grid.NAMES.items()}
    assert batch_epoch_grid.accidents(near).en.startswith("**None of the report's 9 numbers that are compared lies")
    assert batch_epoch_grid.not_run(near) == []
    far = near | {"epochs_100_batch_128": np.array([89.0, 90.0])}
    text = batch_epoch_grid.accidents(far).en
    assert text.startswith("**Of the report's 9 numbers that are compared, 1 lies more than 5 points from")
    assert "has 52.11% for 100 epochs at batch size 128, and our mean is 89.50%." in text and "90.69" not in text
    del far["epochs_20_batch_256"]
    assert [text.zh for text in batch_epoch_grid.not_run(far)] == ["未运行：20 轮、批大小 256。"]


def test_improvements(monkeypatch, folder, sample):
    configs = with_lenet(improvements.make_configs("cuda"))
    assert len(configs) == 33
    monkeypatch.setattr(soft_labels, "load", lambda count: torch.full((count, 10), 0.1))
    monkeypatch.setattr(improvements, "make_configs", lambda device: configs)
    out = start(improvements, monkeypatch, folder, "--seeds", "2")
    check_page(out / "improvements.md")
    page = (out / "improvements.md").read_text(encoding="utf-8")
    for config in configs:
        assert f"| {label(config).en} |" in page
    for row in tables.read_csv(out / "results.csv"):
        test = tables.load_arrays(out / "runs" / f"{row['config']}-{row['seed']}.npz")["test_logits"].argmax(1)
        swapped = sum({data.CLASSES[a], data.CLASSES[b]} == {"cat", "dog"} for a, b in zip(test, sample[1].labels))
        assert int(row["cat_dog"]) == swapped
    entries = [
        {"config": config, "seed": seed, "test_accuracy": value}
        for config, values in {"baseline": (90.0, 91.0, 92.0), "better": (91.0, 92.1, 92.9)}.items()
        for seed, value in enumerate(values)
    ]
    assert_redrawn_without_runs(improvements, monkeypatch, out)
    mean, half = improvements.differences(entries)["better"]
    assert mean == pytest.approx(1.0) and half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-4)  # t of 2 degrees
    (text,) = improvements.verdict({"better": (mean, half), "mixup": (-2.0, 3.0)})
    assert "better than the baseline with 95% confidence: better (+1.00)." in text.en and "MixUp" not in text.en
    assert improvements.verdict({"mixup": (-2.0, 3.0)}) == []


@pytest.mark.parametrize(("device", "count"), [("cuda", 33), ("cpu", 31)])
def test_an_improvement_is_one_change_to_its_baseline(device, count):
    configs = improvements.make_configs(device)
    assert len(configs) == count
    for name, (model, recipe) in configs.items():
        check_recipe(model, recipe)
        base_model, base = configs[improvements.baseline_of(name, configs)]
        fields = (field.name for field in dataclasses.fields(Recipe))
        changed = {field for field in fields if getattr(recipe, field) != getattr(base, field)}
        if name in improvements.ARCHITECTURES:
            assert model.startswith(base_model + "_") and not changed
        elif name in improvements.CHANGES:
            assert model == base_model and changed == set(improvements.CHANGES[name].recipe)
    needs = {name: change.needs for name, change in improvements.CHANGES.items() if change.needs}
    for name, need in needs.items():
        if name in configs:
            model, recipe = configs[name]
            assert model == "wrn16_8" if need == "dropout" else not recipe.fast
    missing = improvements.not_run(configs)
    assert bool(missing) == (device == "cpu")
    assert not missing or missing[0].en.startswith("Not run: no dropout and stronger dropout. Dropout is")


def test_an_improvement_is_compared_with_its_own_baseline():
    rows = [
        {"config": config, "seed": 0, "test_accuracy": accuracy, "val_accuracy": accuracy, "seconds": 1.0}
        for config, accuracy in {"baseline": 90.0, "baseline_report": 80.0, "adam": 82.0, "mixup": 89.0}.items()
    ]
    compared = improvements.differences(rows)
    assert {name: mean for name, (mean, _) in compared.items()} == {"adam": 2.0, "mixup": -1.0}


def test_label_audit(monkeypatch, folder, sample):
    monkeypatch.setattr(
        label_audit, "BASELINES", {"cpu": ("lenet", Recipe(validation_split=False, patience=0, lr=0.02))}
    )
    out = start(label_audit, monkeypatch, folder)
    check_page(out / "audit.md")
    probabilities = tables.load_arrays(out / "probabilities.npz")["train"]
    assert np.allclose(probabilities.sum(1), 1, atol=1e-3)  # every image by exactly one network
    held_out = torch.cat([label_audit.fold_indices(fold, sample[0].labels)[1] for fold in range(label_audit.FOLDS)])
    assert torch.equal(held_out.sort().values, torch.arange(1400))
    assert_redrawn_without_runs(label_audit, monkeypatch, out)
    kept, held_out = label_audit.fold_indices(3, sample[0].labels)
    assert not set(kept.tolist()) & set(held_out.tolist()) and len(kept) + len(held_out) == 1400


def test_confident_learning_finds_the_flipped_labels():
    torch.manual_seed(0)
    true = torch.randint(10, (2000,))
    probabilities = F.softmax(F.one_hot(true, 10) * 4 + torch.randn(2000, 10) * 0.5, 1).double()
    labels = true.clone()
    flipped = torch.arange(0, 2000, 50)
    labels[flipped] = (labels[flipped] + 3) % 10
    found = label_audit.confident_learning(probabilities, labels).tolist()
    assert set(found) <= set(flipped.tolist()) and len(found) > len(flipped) / 2  # the confident half of them
    doubt = label_audit.margin(probabilities, labels)
    assert found == sorted(found, key=lambda index: doubt[index])
    assert set(doubt.argsort()[:40].tolist()) == set(flipped.tolist())


def test_labels_that_people_found_wrong_are_looked_for_among_the_errors():
    errors = torch.tensor([5, 165, 7, 792, *range(100), 882])  # two of the first hundred
    (text,) = label_audit.published(errors, LABEL_ERRORS, 10_000)
    assert "found 54 of" in text.en and "; 3 of these" in text.en and "2 are among the 100" in text.en
    assert "0.5." in text.en and label_audit.published(errors, None, 10_000) == []
    rows = label_audit.suspect_rows(errors[:2], torch.zeros(10_000, dtype=torch.int64), torch.rand(200, 10), {165})
    assert [row["found wrong by people"] for row in rows] == ["", "yes"]


def test_votes_and_their_ties():
    three = torch.tensor([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]], [[0.0, 0.45, 0.55]]])
    assert ensemble.vote(three).argmax(-1).tolist() == [1]  # one vote each: the highest mean probability
    assert ensemble.vote(three[[0, 0, 1]]).argmax(-1).tolist() == [0]


def test_disagreement_of_runs_is_that_of_their_different_seeds():
    groups = ensemble_tables.group_by_config([{"config": name} for name in "aab"])
    assert groups == {"a": [0, 1], "b": [2]}
    disagreement = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 8.0], [4.0, 8.0, 0.0]])
    assert ensemble_tables.disagreement_by_config(groups, disagreement).tolist() == [[2.0, 6.0], [6.0, 0.0]]
    labels = torch.tensor([0, 0, 1])
    test = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 1, 1]])
    scores = {config: ensemble_tables.class_scores(test[indices], labels) for config, indices in groups.items()}
    scores[ensemble_tables.MEAN] = ensemble_tables.class_scores(test[:1], labels)
    rows = ensemble_tables.class_table(scores, "recall")
    assert [row["airplane"] for row in rows] == ["**75.0**", "0.0", "50.0"] and rows[0]["automobile"] == "**100.0**"


def test_precision_recall_and_f1_are_scikit_learns():
    torch.manual_seed(0)
    labels, predictions = torch.randint(10, (300,)), torch.randint(9, (2, 300))  # class 9 is never predicted
    scores = ensemble_tables.class_scores(predictions, labels)
    expected = np.mean(
        [
            precision_recall_fscore_support(labels, member, labels=range(10), zero_division=0)[:3]
            for member in predictions
        ],
        axis=0,
    )
    for name, values in zip(("precision", "recall", "F1"), 100 * expected):
        assert np.allclose(scores[name], values)


def test_mcnemars_test_by_hand():
    """Of ten images that one of the two gets wrong, eight are the second's: 2 (1 + 10 + 45) / 2^10."""
    labels = torch.zeros(50, dtype=torch.int64)
    one, other = labels.clone(), labels.clone()
    one[:2], other[2:10] = 1, 1
    one[20:30], other[20:30] = 3, 4  # both are wrong: these do not count
    assert ensemble_tables.mcnemar(one, other, labels) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert ensemble_tables.mcnemar(other, one, labels) == ensemble_tables.mcnemar(one, other, labels)
    assert ensemble_tables.mcnemar(one, one, labels) == 1
    compared = ensemble_tables.compare(one, other, labels)
    assert compared["accuracy"] == pytest.approx(76) and compared["difference"] == pytest.approx(12)


def test_similar_configurations_are_neighbors():
    """Of two pairs whose members differ little, each stays together whatever the order."""
    disagreement = np.array([[0, 9, 1, 9], [9, 0, 9, 2], [1, 9, 0, 9], [9, 2, 9, 0]], float)
    order = ensemble_tables.order_by_similarity(disagreement)
    assert sorted(order) == [0, 1, 2, 3] and {*order[:2]} in ({0, 2}, {1, 3})


class Untouched:
    """Labels that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"the test labels were touched: {name}")

    __eq__ = __len__ = __iter__ = __getitem__ = __array__ = lambda self, *arguments: self.touched
    __hash__ = object.__hash__


def test_no_method_of_combining_sees_a_test_label(monkeypatch, tmp_path):
    """The labels raise when they are touched, and only what is saved, which is replaced, has them: no method does."""
    torch.manual_seed(0)
    for seed in range(3):
        result = {f"{part}_logits": torch.randn(count, 10).numpy() for part, count in (("val", 140), ("test", 400))}
        settings = result_files.run_settings("lenet", {}, seed, {"scale": "quick", "precision": "fp32"})
        result["settings"] = np.array(json.dumps(settings))
        tables.save_arrays(tmp_path / "study" / "runs" / f"lenet-{seed}.npz", result)
    run_json = {"configs": {"lenet": {"model": "lenet"}}, "seeds": [0, 1, 2], "scale": "quick", "precision": "fp32"}
    cli.write_json(tmp_path / "study" / "run.json", run_json)
    val_labels = torch.arange(140) % 10
    monkeypatch.setattr(result_files, "load_labels", lambda scale, folder: (val_labels, Untouched(), "none"))
    combined = []
    monkeypatch.setattr(ensemble, "save", lambda *arguments: combined.append(arguments[2:6]))
    monkeypatch.setattr(ensemble_tables, "write_results", lambda out: None)
    flags = ["--scale", "quick", "--members", str(tmp_path / "study"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["ensemble.py", *flags])
    ensemble.main()
    ((members, _, test, methods),) = combined
    assert len(members) == len(test) == 3 and all(scores.shape == (400, 10) for scores in methods.values())
    for score in (ensemble.percent_correct, ensemble_tables.compare, ensemble_tables.accuracy):
        with pytest.raises(AssertionError, match="were touched"):
            score(*[torch.randn(400, 10)] * (2 if score is ensemble_tables.compare else 1), Untouched())


def test_an_ensemble_of_other_splits_is_one_line(monkeypatch, folder, tmp_path):
    """The folds of label_audit.py hold out other images than the split."""
    monkeypatch.setattr(
        label_audit, "BASELINES", {"cpu": ("lenet", Recipe(validation_split=False, patience=0, lr=0.02))}
    )
    out = start(label_audit, monkeypatch, folder / "folds")
    monkeypatch.setattr(sys, "argv", ["ensemble.py", "--members", str(out), "--out", str(tmp_path)])
    with pytest.raises(UserError, match="other images than the 9:1 split"):
        ensemble.main()


def test_an_ensemble_of_nothing_is_one_line(monkeypatch, tmp_path):
    flags = ["--scale", "quick", "--members", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["ensemble.py", *flags])
    with pytest.raises(UserError, match=r"run project3_wrn/compare_models\.py first"):
        ensemble.main()
