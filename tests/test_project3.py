"""Project 3: the recipes, the fast method's parts, what main.py and predict.py write, and what they refuse."""

import dataclasses
import json
import math
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix

from common import cli, data, evaluation, tables
from common.learners import Learner
from common.models.fast import FastNet
from common.support import checkpoints
from common.support.errors import UserError
from project3_wrn import main, predict
from project3_wrn.analysis import figures
from project3_wrn.method import fast, train
from project3_wrn.method.recipes import RECIPES, SMALL, Fast, Recipe, get_recipe
from tests.conftest import ROOT, one_clear_line, run_python

MAIN = ROOT / "project3_wrn" / "main.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
WRITES = {
    *(
        "metrics.json",
        "performance.md",
        "classification_report.csv",
        "top_confusion_pairs.csv",
        "confusion_matrix.csv",
        "calibration.csv",
    ),
    *("training_history.json", "loss_history.npz", "logits.npz", "run.json", "training_curves.png"),
    *("confusion_matrix.png", "per_class_accuracy.png", "top_confusion_pairs.png", "confidence.png"),
    *("misclassified_samples.png", "gradcam_visualization.png", "weights-0.pt"),
}


# --- recipes ---


def test_the_reports_recipe():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum) == (100, 256, 0.1, 0.9)
    assert (recipe.weight_decay, get_recipe("report", "wrn28_10").weight_decay) == (1e-3, 5e-4)
    assert (recipe.label_smoothing, recipe.crop, recipe.cutout) == (0.1, 4, 12)
    assert (recipe.patience, recipe.min_delta) == (15, 0.001)


@pytest.mark.parametrize("batch", [1024, 256])
def test_a_fast_recipe_steps_as_the_published_sums_do(batch):
    """Ten steps of its SGD on mean losses are ten of the published one on sums (arXiv 2404.00498, appendix)."""
    published_lr, published_decay, momentum = 10.0, 0.0153, 0.85
    kilostep = 1024 * (1 + 1 / (1 - momentum))
    model = FastNet((8, 8, 8), depth=2, classes=10)
    mean = fast.optimizer(model, dataclasses.replace(RECIPES["fast95"], batch_size=batch))
    ours, theirs = model.fc.weight, model.fc.weight.detach().clone().requires_grad_()
    lr, decay = published_lr / kilostep, published_decay * batch / kilostep
    total = torch.optim.SGD([theirs], lr=lr, momentum=momentum, weight_decay=decay / lr, nesterov=True)
    for _ in range(10):
        for weight, optimizer, examples in ((ours, mean, 1), (theirs, total, batch)):
            optimizer.zero_grad()
            (weight.square() * 0.1 * examples).sum().backward()
            optimizer.step()
    assert torch.allclose(ours, theirs, rtol=1e-5)


def test_triangle_is_the_published_table():
    """airbench95's: lines through (0, 0.2), (int(0.23 steps), 1) and (steps, 0.07), a value a step."""
    for steps, peak_at, end in ((735, 0.23, 0.07), (1813, 0.1, 0.0), (20, 0.0, 0.0)):
        table = np.interp(range(steps), [0, int(peak_at * steps), steps], [0.2, 1, end])
        ours = [fast.triangular_schedule(step, steps, peak_at=peak_at, end=end) for step in range(steps)]
        assert ours == pytest.approx(table, abs=1e-12)


def test_training_and_validation_are_apart_and_fast_recipes_choose_nothing(sample):
    parts = train.make_splits(Recipe(), sample[0])
    assert {name: len(part) for name, part in parts.items()} == {"train": 1260, "val": 140}
    assert list(train.make_splits(RECIPES["fast96"], sample[0])) == ["train"]


def test_models_and_recipes_that_do_not_fit():
    with pytest.raises(UserError, match="not resnet18"):
        train.check("resnet18", RECIPES["fast94"])
    with pytest.raises(UserError, match="no model resnet19; one of lenet"):
        train.check("resnet19", Recipe())
    for change, told in (
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"ema": 1.5}, "ema 1.5"),
        ({"label_smoothing": 1.0}, "label_smoothing 1.0"),
        ({"crop": 40}, "crop 40"),
        ({"tta_views": 3}, "views"),
        ({"split": False}, "early stopping needs a validation set"),
        ({"mixing": "mixup", "loss": "hardest"}, "whole labels"),
        ({"fast": Fast(), "optimizer": "adamw"}, "SGD or Muon"),
        ({"last_epoch_fraction": 0.5}, "only the fast recipes end within a pass"),
        ({"low_res_epochs": 1.0}, "begin with small images"),
        ({"low_res_size": 8}, "small 8 is out of range"),
        ({"fast": Fast(), "last_epoch_fraction": 0.0}, "last_epoch_fraction 0.0 is out of range"),
        ({"tta_fraction": 1.5}, "unsure 1.5 is out of range"),
        ({"optimizer": "muon"}, "Muon is for the fast recipes"),
    ):
        with pytest.raises(UserError, match=told):
            train.check("fast94", dataclasses.replace(Recipe(), **change))
    for name, recipe in RECIPES.items():
        train.check("resnet18" if name == "report" else name, recipe)


def test_without_patience_the_best_validation_epoch_is_kept(sample):
    """Validation measured again on the returned network is the highest of all epochs, which are all trained."""
    parts = train.make_splits(Recipe(), sample[0])
    recipe = Recipe(lr=0.05, epochs=6, batch_size=64, patience=0)
    learner, history = train.train("lenet", recipe, 1, parts)
    accuracies = history["val_accuracy"]
    assert len(accuracies) == 6 and history["kept_epoch"] == accuracies.argmax() + 1
    logits = evaluation.predict(learner.logits, parts["val"], data.CIFAR10_STATS)
    assert float(evaluation.accuracy(logits, parts["val"].labels)) == pytest.approx(accuracies.max(), abs=1e-4)
    assert accuracies.argmax() != 5, "the last epoch is the best one, so this test shows nothing: choose another seed"


def test_a_held_out_fold_chooses_nothing(sample):
    """label_audit.py measures images that it must not choose by: without a split the last epoch is kept."""
    parts = train.make_splits(Recipe(), sample[0])
    recipe = Recipe(lr=0.05, epochs=6, batch_size=64, patience=0, validation_split=False)
    assert train.train("lenet", recipe, 1, parts)[1]["kept_epoch"] == 6


def test_what_the_outputs_tell_of_early_stopping():
    entry = {"seed": 0, "epochs": 100}
    assert figures.stopping_note([entry]) == []  # of a training without validation
    (told,) = figures.stopping_note([entry | {"early_stopping_epoch": 53}, entry | {"early_stopping_epoch": None}])
    assert "seed 0 after epoch 53; seed 0 not within its 100 epochs" in told and "patience 15, min_delta 0.001" in told
    history = {"epoch_losses": [1.0] * 20, "lr": np.ones(20), "val_accuracy": np.full(20, 90.0)}
    told = figures.training_history(history, 0.1)["early_stopping"]
    assert told == {"patience": 15, "min_delta": 0.001, "stops_after": 16}
    del history["val_accuracy"]
    assert "early_stopping" not in figures.training_history(history, 0.1)


def test_a_training_that_diverges_is_no_success(sample, tmp_path):
    parts, recipe = train.make_splits(Recipe(), sample[0]), Recipe(lr=1e9, epochs=3, batch_size=64)
    with pytest.raises(UserError, match=r"lenet with seed 0 diverged at step .*; lower the learning rate$"):
        train.train("lenet", recipe, 0, parts)
    with pytest.raises(UserError, match=r"in epoch 1: .*; lower the learning rate$"):
        train.train("lenet", recipe, 0, parts, checkpoint=tmp_path / "0.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [2 * 20 + 7, 3 * 20])  # in epoch 3, and its last: no loss of that epoch shows it
def test_a_gradient_that_is_not_finite_loses_nothing(sample, tmp_path, monkeypatch, step):
    """Checkpoint and best weights of epoch 2 stay; the same command resumes and ends as if nothing had happened."""
    parts, recipe = train.make_splits(Recipe(), sample[0]), Recipe(lr=0.05, epochs=5, batch_size=64)
    checkpoint, steps = tmp_path / "0.pt", []
    assert -(-len(parts["train"]) // 64) == 20
    straight, expected = train.train("lenet", recipe, 0, parts)
    train.train("lenet", dataclasses.replace(recipe, epochs=2), 0, parts)

    real = Learner.backward_and_step

    def broken(self, loss):
        steps.append(1)
        real(self, loss * (float("inf") if len(steps) == step else 1))

    monkeypatch.setattr(Learner, "backward_and_step", broken)
    with pytest.raises(UserError) as told:
        train.train("lenet", recipe, 0, parts, checkpoint=checkpoint)
    line, diverged = str(told.value), min(step + 1, 60)
    assert len(steps) == 60 and "\n" not in line
    for words in (
        f"step {diverged}, in epoch 3",
        f"epoch 2 is kept in {checkpoint}",
        "rerun the same command",
        "--fresh",
    ):
        assert words in line, line
    document = checkpoints.load(checkpoint, "checkpoint", "")
    assert document["epoch"] == 2 and document["best_weights"]
    assert all(
        value.isfinite().all() for value in (*document["learner"]["model"].values(), *document["best_weights"].values())
    )
    assert checkpoints.previous_path(checkpoint).exists()

    monkeypatch.setattr(Learner, "backward_and_step", real)
    learner, history = train.train("lenet", recipe, 0, parts, checkpoint=checkpoint)
    assert np.array_equal(history["batch_losses"], expected["batch_losses"])
    assert all(torch.equal(value, straight.weights()[name]) for name, value in learner.weights().items())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_a_stop_while_figures_are_drawn_loses_no_training(tmp_path, monkeypatch, capsys, here, stop):
    words = ("--model", "lenet", "--scale", "quick", "--device", "cpu", "--out", tmp_path)
    trained, drawn = [], main.write_results
    real = Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, x, y: trained.append(1) or real(self, x, y))

    def stopped(source, out, options):
        (out / "performance.md").write_text("half", encoding="utf-8")
        raise stop

    monkeypatch.setattr(main, "write_results", stopped)
    monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words)])
    with pytest.raises(stop):
        main.main()
    assert trained and (tmp_path / "lenet" / "checkpoints" / "0.pt").exists()
    trained.clear()
    assert "measuring" in capsys.readouterr().err
    monkeypatch.setattr(main, "write_results", drawn)
    process = here(main.main, *words)
    assert process.returncode == 0 and not trained, process.stderr
    assert "measuring" not in process.stderr
    assert not WRITES - {path.name for path in (tmp_path / "lenet").iterdir()}
    assert [path.name for path in (tmp_path / "lenet" / "checkpoints").iterdir()] == ["lock"]


def test_a_last_batch_of_one_image_is_refused(sample):
    parts = {"train": sample[0][slice(41)]}
    with pytest.raises(UserError, match="a last batch of one image"):
        train.train("dla34", Recipe(validation_split=False, patience=0, batch_size=20), 0, parts)


# --- the fast method's parts ---


def test_alternating_flips(sample):
    """Every example once a pass; each image and its mirror image in turn."""
    images = sample[0][slice(90)]
    batches = fast.AlternatingFlips(images, 20, seed=3, stats=data.TUTORIAL_STATS)
    originals = data.normalize(images.images, data.TUTORIAL_STATS)
    keys = {image.numpy().tobytes(): (i, False) for i, image in enumerate(originals)}
    keys |= {image.flip(-1).numpy().tobytes(): (i, True) for i, image in enumerate(originals)}
    passes = []
    for _ in range(3):
        seen = dict(keys[image.numpy().tobytes()] for x, _ in batches for image in x)
        assert len(seen) == 90
        passes.append([seen[i] for i in range(90)])
    assert passes[0] == passes[2] == [not flipped for flipped in passes[1]]
    assert 20 < sum(passes[0]) < 70


def test_lookahead_is_its_definition(sample):
    """Against the same network trained format_number, with the slow weights kept by hand."""
    recipe = RECIPES["fast95"]

    def network():
        torch.manual_seed(0)
        return FastNet((8, 8, 8), depth=2, classes=10)

    def batches():
        return data.Batches(sample[0][slice(240)], 20, seed=0, stats=data.CIFAR10_STATS)  # 12 steps

    model, plain = network(), network().train()
    ours = fast.Lookahead(model, fast.optimizer(model, recipe), steps=12, whitening_steps=300)
    optimizer = fast.optimizer(plain, recipe)
    slow = {name: value.clone() for name, value in plain.state_dict().items()}
    for done, (x, y) in enumerate(batches(), start=1):
        ours.step(x, y)
        optimizer.zero_grad()
        F.cross_entropy(plain(x.contiguous(memory_format=torch.channels_last)), y).backward()
        optimizer.step()
        if done in (5, 10, 12):
            keep = 1.0 if done == 12 else 0.95**5 * (done / 12) ** 3
            for name, value in plain.state_dict().items():
                if value.is_floating_point():
                    slow[name] = keep * slow[name] + (1 - keep) * value
                    value.copy_(slow[name])
    for name, value in ours.model.state_dict().items():
        assert torch.allclose(value.float(), plain.state_dict()[name].float(), atol=1e-5), name


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (40, 4, 3, 3)])
def test_orthogonal_changes_singular_values_only(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape).double().flatten(1)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert torch.allclose(fast.newton_schulz(matrix, (3.4445, -4.7750, 2.0315), 0.0), u * values @ v, atol=1e-12)
    assert values.min() > 0.5 and values.max() < 1.3


def test_muon_moves_filters_as_torch_does_and_the_rest_by_sgd():
    """torch.optim.Muon computes in bf16 and leaves the norm alone; so one step at a time, from weights of the norm that ours keeps."""
    recipe = dataclasses.replace(SMALL, batch_size=100)
    torch.manual_seed(0)
    model = FastNet((8, 8, 8), depth=2, classes=10)
    ours = fast.optimizer(model, recipe)
    filters = model.groups[0].convs[1].weight
    theirs = torch.zeros(8, 72, requires_grad=True)
    coefficients = (3.4445, -4.7750, 2.0315)
    muon = torch.optim.Muon(
        [theirs], lr=recipe.lr, momentum=recipe.momentum, weight_decay=0, ns_steps=3, ns_coefficients=coefficients
    )
    head, lr = model.fc.weight.detach().clone().requires_grad_(), 0.67 * (9 / 256) ** 2
    sums = torch.optim.SGD([head], lr=lr, momentum=0.85, weight_decay=100 * 2e-6 / lr, nesterov=True)
    for _ in range(4):
        with torch.no_grad():
            theirs.copy_(filters.flatten(1) * 8**0.5 / filters.norm())
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight)
        theirs.grad, head.grad = filters.grad.flatten(1).clone(), 100 * model.fc.weight.grad  # of a sum over the batch
        ours.step(), muon.step(), sums.step()
        assert torch.allclose(filters.flatten(1), theirs, atol=0.02 * recipe.lr)
        assert torch.allclose(model.fc.weight, head, rtol=1e-4)


@pytest.mark.parametrize("name", ["fast94", "fast95"])
def test_the_whitenings_bias_stops(sample, name):
    torch.manual_seed(0)
    model, recipe = FastNet((8, 8, 8), depth=2, classes=10), dataclasses.replace(RECIPES[name], batch_size=20)
    learner = fast.Fast(model, fast.optimizer(model, recipe), whitening_steps=3)
    biases = [model.whitening.bias.detach().clone()]
    for (x, y), _ in zip(data.Batches(sample[0], 20, seed=0, stats=data.CIFAR10_STATS), range(4)):
        learner.set_lr(1.0)
        learner.step(x, y)
        biases.append(model.whitening.bias.detach().clone())
    assert not torch.equal(biases[2], biases[3]) and torch.equal(biases[3], biases[4])


def test_views_are_weighted_to_one_and_see_the_mirror_image():
    left = lambda x: x[..., :16].mean((1, 2, 3))[:, None]
    x = torch.zeros(1, 3, 32, 32)
    x[..., :16] = 1
    assert fast.tta_mirror_translate(lambda x: torch.ones(len(x), 1))(x).item() == 1
    assert fast.tta_mirror_translate(left)(x).item() == pytest.approx(0.5, abs=0.01)


# --- measures ---


def test_calibration_against_a_loop():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 10) * 3, torch.randint(10, (500,))
    bins, expected = evaluation.calibration(logits, labels), 0.0
    confidence, prediction = (values.numpy() for values in F.softmax(logits.double(), -1).max(-1))
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        assert bins["count"][i] == inside.sum()
        if inside.any():
            right = (prediction == labels.numpy())[inside].mean()
            expected += inside.mean() * abs(right - confidence[inside].mean())
    assert bins["count"].sum() == 500 and math.isclose(float(bins["ece"]), expected, rel_tol=1e-9)


def test_confusions_and_top_five():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 10), torch.randint(10, (500,))
    matrix = evaluation.confusion_matrix(labels, logits.argmax(1))
    assert np.array_equal(matrix, confusion_matrix(labels, logits.argmax(1), labels=range(10)))
    top = evaluation.top_confusions(matrix, 90)
    assert sum(count for *_, count in top) == 500 - int(matrix.trace())
    assert [count for *_, count in top] == sorted((count for *_, count in top), reverse=True)
    assert evaluation.top_k(logits, labels, 1) == evaluation.accuracy(logits, labels)
    assert evaluation.top_k(logits, labels, 10) == 100


# --- data-parallel ---


def test_two_processes_compute_what_one_does(tmp_path):
    for name, words in (("one", ()), ("two", TORCHRUN)):
        process = run_python(*words, ROOT / "tests" / "parallel_run.py", tmp_path / name, OMP_NUM_THREADS="1")
        assert process.returncode == 0, process.stderr
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    assert torch.allclose(one["batch_losses"], two["batch_losses"], atol=1e-5)
    assert torch.equal(one["train_accuracy"], two["train_accuracy"])
    for name, value in one["weights"].items():
        assert torch.allclose(value, two["weights"][name], atol=1e-5), name


# --- main.py ---


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Folder of a quick run of LeNet by the report's recipe, started by torchrun in two processes."""
    out = tmp_path_factory.mktemp("project3")
    words = ("--model", "lenet", "--scale", "quick", "--device", "cpu", "--lr", "0.02", "--epochs", "3", "--out", out)
    # in bf16, the default where the CPU has it, the saved logits would be the weights' to three digits only
    words += ("--keep-checkpoints", "--precision", "fp32")
    process = run_python(*TORCHRUN, MAIN, *words, OMP_NUM_THREADS="1")
    assert process.returncode == 0, process.stderr
    return out / "lenet"


def test_writes_everything_consistently(quick, sample):
    assert not WRITES - {path.name for path in quick.iterdir()}
    (metrics,), saved = json.loads((quick / "metrics.json").read_text()), tables.load_arrays(quick / "logits.npz")
    assert np.array_equal(saved["test_labels"], sample[1].labels)
    assert metrics["test_accuracy"] == pytest.approx(
        100 * accuracy_score(saved["test_labels"], saved["0/test"].argmax(1))
    )
    history = tables.load_histories(quick / "loss_history.npz")["lenet", 0]
    assert metrics["val_accuracy"] == pytest.approx(history["val_accuracy"].max())
    assert not set(saved["train_indices"]) & set(saved["val_indices"])
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
    assert run_json["recipe"]["lr"] == 0.02 and run_json["model"] == "lenet"
    assert metrics["early_stopping_epoch"] is None  # of three epochs
    assert "seed 0 not within its 3 epochs" in (quick / "performance.md").read_text(encoding="utf-8")
    rates = json.loads((quick / "training_history.json").read_text())["lr"]
    assert rates == pytest.approx([0.02, 0.015, 0.005])  # 0.02 (1 + cos(pi e / 3)) / 2 in epoch e + 1


def test_the_saved_weights_give_the_saved_logits(quick, sample):
    network = predict.load_network("lenet", quick / "weights-0.pt")
    logits = evaluation.predict(torch.no_grad()(network), sample[1], data.CIFAR10_STATS)
    assert np.allclose(logits, tables.load_arrays(quick / "logits.npz")["0/test"], atol=1e-5)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_redraw_makes_all_of_it_again(quick, tmp_path, lang):
    from common import plots

    if lang == "zh" and not plots.chinese_font():
        pytest.skip("no font with Chinese glyphs is installed")
    out = tmp_path / "lenet"
    shutil.copytree(quick, out)
    drawn = [
        path for path in out.iterdir() if path.suffix in (".md", ".csv", ".png") or "training_history" in path.name
    ]
    before = {path.name: path.read_bytes() for path in drawn}
    for path in drawn:
        path.unlink()
    words = ("--model", "lenet", "--scale", "quick", "--redraw", "--out", tmp_path, "--lang", lang)
    process = run_python("-W", "error::UserWarning:matplotlib", MAIN, *words)
    assert process.returncode == 0, process.stderr
    assert "lyph" not in process.stderr
    for name, content in before.items():
        assert (out / name).exists()
        # a heat map's last bit depends on the number of threads
        if name != "gradcam_visualization.png" and (lang == "en" or not name.endswith(".png")):
            assert (out / name).read_bytes() == content, name


def test_nothing_to_resume_is_one_line(tmp_path, here):
    words = ("--model", "lenet", "--scale", "quick", "--resume", "--out", tmp_path)
    one_clear_line(here(main.main, *words), "to resume from", status=1)


@pytest.mark.parametrize("words", [["--lr", "-1"], ["--weight-decay", "much"], ["--cutout", "-3"], ["--recipe", "x"]])
def test_wrong_flags_are_usage_errors(words, here):
    one_clear_line(here(main.main, *words), words[0], status=2)


def test_a_seed_is_measured_once(tmp_path, capsys):
    """Six views of 20,000 images take minutes on a CPU: a run that was stopped among its later seeds does not repeat them."""
    measured, path, expected = [], tmp_path / "0-logits.pt", torch.arange(40.0).view(4, 10)
    for _ in range(2):
        logits = main.once(path, lambda: measured.append(1) or {"test": expected.clone()}, {"test": 4})
        assert torch.equal(logits["test"], expected)
    assert len(measured) == 1
    whole = path.read_bytes()
    torch.save({"test": None}, tmp_path / "foreign.pt")
    torch.save([1], tmp_path / "list.pt")
    flipped = bytearray(whole)
    flipped[whole.index(expected.numpy().tobytes()) + 5] ^= 1
    for damaged in (
        b"",
        b"text",
        whole[:-30],
        flipped,
        *((tmp_path / name).read_bytes() for name in ("foreign.pt", "list.pt")),
    ):
        path.write_bytes(damaged)
        count = len(measured)
        logits = main.once(path, lambda: measured.append(1) or {"test": expected.clone()}, {"test": 4})
        assert torch.equal(logits["test"], expected) and len(measured) == count + 1
        assert torch.equal(torch.load(path, weights_only=True)["test"], expected)
        (line,) = capsys.readouterr().out.splitlines()
        assert "0-logits.pt" in line and "measured again" in line


def test_a_fast_recipe_keeps_its_optimiser(monkeypatch):
    words = ["main.py", "--device", "cpu", "--recipe", "fast95", "--optimizer", "muon"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError, match="own optimiser"):
        main.parse()


def test_another_recipe_is_not_resumed(quick, here):
    words = ("--model", "lenet", "--scale", "quick", "--epochs", "3", "--out", quick.parent, "--resume", "--lr", "0.3")
    one_clear_line(here(main.main, *words), "recipe was", "0.02", "0.3", "--fresh", status=1)


def test_a_layer_that_is_not_there_is_named(quick, here):
    words = ("--model", "lenet", "--scale", "quick", "--redraw", "--out", quick.parent, "--gradcam-layer", "conv9")
    one_clear_line(here(main.main, *words), "conv9", status=1)


@pytest.mark.parametrize("name", ["resnet18", "wrn28_10", "fast94", "fast95", "fast96"])
def test_committed_tables_are_those_of_the_committed_logits(name, tmp_path):
    committed = ROOT / "project3_wrn" / "outputs" / name
    if not committed.exists():
        pytest.skip("no full run of this network is committed")
    saved, metrics = tables.load_arrays(committed / "logits.npz"), cli.read_json(committed / "metrics.json")
    for entry in metrics:
        logits, labels = (torch.from_numpy(saved[key]) for key in (f"{entry['seed']}/test", "test_labels"))
        assert float(evaluation.accuracy(logits, labels)) == pytest.approx(entry["test_accuracy"], abs=1e-3)
    figures.write_tables(tmp_path, name, "full", metrics, saved[f"{metrics[0]['seed']}/test"], saved["test_labels"])
    for path in tmp_path.iterdir():
        assert (committed / path.name).read_bytes() == path.read_bytes(), path.name


# --- predict.py ---


def test_a_photo_of_any_size(quick, tmp_path, sample, here):
    """A test image, enlarged and with margins left and right, is told as it was in the saved logits."""
    index = 7
    picture = Image.fromarray(sample[1].images[index].permute(1, 2, 0).numpy()).resize((320, 320), Image.NEAREST)
    wide = Image.new("RGB", (500, 320))
    wide.paste(picture, (90, 0))
    wide.save(tmp_path / "photo.png")
    process = here(predict.main, tmp_path / "photo.png", "--weights", quick / "weights-0.pt")
    assert process.returncode == 0, process.stderr
    expected = F.softmax(torch.from_numpy(tables.load_arrays(quick / "logits.npz")["0/test"][index]), 0)
    lines = [line.split() for line in process.stdout.splitlines() if "%" in line]
    assert len(lines) == 5
    for told, name in lines:
        assert float(told.rstrip("%")) == pytest.approx(100 * float(expected[data.CLASSES.index(name)]), abs=0.01)
    assert Image.open(tmp_path / "photo-gradcam.png").size == (320, 320)


class Malicious:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("kind", ["text", "tiny", "huge", "absent", "cut"])
def test_what_is_no_photo(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "text":
        path.write_text("not a picture")
    elif kind in ("tiny", "cut"):
        size = (1, 1) if kind == "tiny" else (300, 300)
        Image.effect_noise(size, 50).save(path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:2000])
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path)
    told = {"text": "no image", "tiny": "1x1", "huge": "20000x20000", "absent": "No such file", "cut": "cannot read"}
    with pytest.raises(UserError, match=told[kind]):
        predict.read_photo(path)


@pytest.mark.parametrize("kind", ["malicious", "of another network", "cut", "a folder"])
def test_weights_that_are_refused(quick, tmp_path, capsys, kind):
    path = tmp_path / "weights-0.pt"
    if kind == "malicious":
        path.write_bytes(pickle.dumps(Malicious(), protocol=2))
    elif kind == "cut":
        path.write_bytes((quick / "weights-0.pt").read_bytes()[:5000])
    elif kind == "a folder":
        path.mkdir()
    else:
        torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="weights-0"):
        predict.load_network("lenet", path)
    assert capsys.readouterr().out == ""


def test_bad_input_on_the_command_line_is_one_line(tmp_path, here):
    (tmp_path / "weights.pt").write_bytes(b"")
    (tmp_path / "photo.png").write_text("none")
    words = (tmp_path / "photo.png", "--weights", tmp_path / "weights.pt")
    one_clear_line(here(predict.main, *words), "no image", status=1)
