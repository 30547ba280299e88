"""The Markdown pages of project 3, in both languages: those that are committed, and all six kinds from made-up runs."""

import ast
import re
import string

import numpy as np
import pytest
import torch

from common import cli, data, plots, tables
from common.support import chinese_project3
from common.support.translations import label, text
from project3_wrn import batch_epoch_grid, compare_models, improvements, label_audit, result_files
from project3_wrn.analysis import ensemble_tables, performance, study_tables
from tests.conftest import ROOT

TASK = ROOT / "project3_wrn"
COMMITTED = sorted(path for path in TASK.glob("outputs*/*/*.md") if not path.name.endswith(".zh.md"))
# what a Chinese page may have of Latin letters: names of networks and methods, units, and marks of a run
NAMES = {"ResNet", "WRN", "DLA", "VGG", "ViT", "LeNet", "CIFAR", "ImageNet", "JFT", "fast94", "fast95", "fast96"}
NAMES |= {"MixUp", "CutMix", "Cutout", "Dropout", "AutoAugment", "RandAugment", "TrivialAugment", "Focal", "Loss"}
NAMES |= {"Adam", "CBAM", "SE", "McNemar", "arXiv", "nat", "FLOPs", "MFLOPs", "GFLOPs", "fp32", "bf16"}
NAMES |= {"SHORT", "RUN", "QUICK", "CPU", "CUDA"}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
FIGURE = re.compile(r"!\[([^]]*)\]\(([^)]*)\)")


def check_page(path, drawn=True):
    """Assert that a page keeps the convention of pages, in both languages, with the same numbers in both.

    drawn: the folder has the page's figures.
    """
    english, chinese = (place.read_text(encoding="utf-8") for place in (path, path.with_suffix(".zh.md")))
    for page in (english, chinese):
        check_order(page)
        assert not re.search(r"(?:-|± )0(?:\.0+)?(?![.\d])", page), "a number is a signed zero"
        assert not re.search(r"(?<![\d.])\d{7,}", page), "a large number has no separators"
    shown = [name for _, name in FIGURE.findall(english)]
    assert [name for _, name in FIGURE.findall(chinese)] == [name.replace(".png", ".zh.png") for name in shown]
    if drawn:
        assert sorted(shown) == sorted(p.name for p in path.parent.glob("*.png") if not p.name.endswith(".zh.png"))
    english, chinese = (plain(page, path.parent) for page in (english, chinese))
    lines = [[line for line in page.splitlines() if line.startswith("|")] for page in (english, chinese)]
    assert [NUMBER.findall(line) for line in lines[0]] == [NUMBER.findall(line) for line in lines[1]]
    blocks = [page.split("\n\n") for page in (english, chinese)]
    assert len(blocks[0]) == len(blocks[1])
    for one, other in zip(blocks[0][1:], blocks[1][1:]):  # below the titles
        assert sorted(NUMBER.findall(one)) == sorted(NUMBER.findall(other)), (one, other)
    assert not re.search(r"[a-z]_[a-z]|[一-鿿]", english)
    words = set(re.findall(r"[A-Za-z_\d]*[A-Za-z]{2,}\d*", chinese)) - NAMES
    assert not words, sorted(words)
    assert not re.search(r"[一-鿿] [一-鿿]|[一-鿿][,;:]|。\*\*", chinese)


def check_order(page):
    """Assert: title, stamp, a finding that begins with a bold sentence, figures with captions, then the sections."""
    head, *sections = page.split("\n## ")
    title, *blocks = head.strip().split("\n\n")
    stamps = [block for block in blocks if block.startswith(("**SHORT RUN**", "**QUICK**"))]
    finding, *figures = blocks[len(stamps) :]
    assert title.startswith("# ") and blocks[: len(stamps)] == stamps and sections
    assert re.match(r"\*\*[^*]+(?:\.\*\*|\*\*。)", finding)
    assert 1 <= len(figures[::2]) <= 3
    assert all(FIGURE.fullmatch(block) for block in figures[::2])
    assert all(re.fullmatch(r"\*[^*\n]+[.。]\*", block) for block in figures[1::2])
    for figure in FIGURE.findall(page):
        after = page.split(f"![{figure[0]}]({figure[1]})\n\n")
        assert len(after) == 2 and after[1].startswith("*")


def plain(page, folder):
    """Return a page without code, the targets of links, and the name of the device."""
    device = cli.read_json(folder / "run.json")["device"] if (folder / "run.json").exists() else ""
    page = re.sub(r"`[^`]*`|\]\([^)]*\)", "", page)
    return page.replace(device, "") if device else page


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_pages(path):
    check_page(path)


@pytest.fixture
def no_files(monkeypatch):
    """Draw figures without writing more than their names."""

    def touch(figure, path):
        path.touch()
        path.with_suffix(".zh.png").touch()
        plots.plt.close(figure)

    monkeypatch.setattr(plots, "save", touch)


STUDIES = {
    compare_models: compare_models.CONFIGS,
    batch_epoch_grid: batch_epoch_grid.CONFIGS,
    improvements: improvements.make_configs("cuda"),
}
SCALES = [("full", 3, False), ("full", 1, True), ("quick", 1, True)]


@pytest.mark.parametrize(("scale", "seeds", "shortened"), SCALES)
@pytest.mark.parametrize("study", STUDIES)
def test_a_study(study, scale, seeds, shortened, monkeypatch, no_files, tmp_path):
    configs, random = STUDIES[study], np.random.default_rng(0)
    monkeypatch.setattr(study_tables, "model_size", lambda model: (10_000_000 + len(model), 10**9 * len(model)))
    accuracies = ("test_accuracy", "val_accuracy", "train_accuracy", "clean_train_accuracy")
    rows = [
        {
            **{"config": config, "seed": seed, "epochs": recipe.epochs, "best_epoch": 1},
            **{name: float(random.uniform(80, 90)) for name in accuracies},
            **{"seconds": float(random.uniform(900, 2000)), "cat_dog": 5, "automobile_truck": 1000, "bird_deer": 2},
        }
        for config, (_, recipe) in configs.items()
        for seed in range(seeds)
    ]
    study_tables.write_result_rows(tmp_path, rows, scale, shortened)
    write_run_json(tmp_path, scale, seeds, shortened, configs=result_files.describe(configs))
    study.write_results(tmp_path)
    (path,) = (path for path in tmp_path.glob("*.md") if not path.name.endswith(".zh.md"))
    check_page(path)


def write_run_json(folder, scale, seeds, shortened, **more):
    shared = {"scale": scale, "seeds": list(range(seeds)), "device": "Some CPU v9", "precision": "fp32"}
    cli.write_json(folder / "run.json", {**shared, "shortened": shortened, **more})


def test_a_grid_of_other_epochs_and_missing_cells(no_files, tmp_path):
    name, *others = batch_epoch_grid.NAMES.values()
    rows = [{"config": config, "seed": 0, "test_accuracy": 50.0} for config in others]
    study_tables.write_result_rows(tmp_path, rows, "full", True)
    configs = {config: {"model": "dla34", "epochs": 2, "batch_size": 64} for config in (name, *others)}
    write_run_json(tmp_path, "full", 1, True, configs=configs)
    batch_epoch_grid.write_results(tmp_path)
    check_page(tmp_path / "grid.md")
    page = (tmp_path / "grid.md").read_text(encoding="utf-8")
    assert "do not have the report's epochs" in page and "Not run: 20 epochs at batch size 64." in page


@pytest.mark.parametrize(("scale", "seeds", "shortened"), SCALES)
@pytest.mark.parametrize("configs", [["resnet18"], ["resnet18", "vgg16_bn", "wrn28_10"]])
def test_an_ensemble(configs, scale, seeds, shortened, no_files, tmp_path):
    members = [
        {"config": config, "seed": seed, "folder": "compare_models", "model": config, "epochs": 100}
        for config in configs
        for seed in range(max(2, seeds))
    ]
    methods = ["majority vote", ensemble_tables.MEAN, "mean weighted by validation accuracy"]
    methods.append("stacking (logistic regression)")
    random = np.random.default_rng(0)
    labels = random.integers(10, size=400, dtype=np.uint8)
    predictions = [np.where(random.random(400) < 0.8, labels, 3).astype(np.uint8) for _ in (*members, *methods)]
    arrays = {"members": np.stack(predictions[: len(members)]), "methods": np.stack(predictions[len(members) :])}
    val_accuracy = random.uniform(70, 90, len(members))
    tables.save_arrays(tmp_path / "predictions.npz", {**arrays, "test_labels": labels, "val_accuracy": val_accuracy})
    write_run_json(tmp_path, scale, seeds, shortened, members=members, methods=methods, within=5.0)
    ensemble_tables.write_results(tmp_path)
    check_page(tmp_path / "ensemble.md")


@pytest.mark.parametrize(("scale", "seeds", "shortened"), SCALES)
@pytest.mark.parametrize("images", [500, 10_000])  # of the full test set label errors are known
def test_a_label_audit(images, scale, seeds, shortened, monkeypatch, no_files, sample, tmp_path):
    torch.manual_seed(0)
    labels = torch.arange(images) % 10
    test_set = data.Dataset(torch.zeros(images, 3, 32, 32, dtype=torch.uint8), labels)
    monkeypatch.setattr(data, "load", lambda *arguments: (sample[0], test_set, "none"))
    arrays = {
        name: torch.rand(len(part), 10).softmax(1).numpy() for name, part in (("train", sample[0]), ("test", test_set))
    }
    tables.save_arrays(tmp_path / "probabilities.npz", arrays)
    described = result_files.describe({"fold_0": label_audit.BASELINES["cpu"]})
    write_run_json(tmp_path, scale, seeds, shortened, configs=described)
    label_audit.write_results(tmp_path)
    check_page(tmp_path / "audit.md")


@pytest.mark.parametrize("model", ["resnet18", "wrn28_10", "lenet"])
@pytest.mark.parametrize(("scale", "seeds", "smoothing"), [("full", 3, 0.1), ("full", 1, 0.0), ("quick", 1, 0.1)])
@pytest.mark.parametrize("sure", [0.1, 10])  # of its predictions: too little and too much
def test_a_network(model, scale, seeds, smoothing, sure, tmp_path):
    torch.manual_seed(0)
    labels = torch.arange(10_000 if seeds > 1 else 500) % 10
    logits = sure * (torch.randn(seeds, len(labels), 10) + 3 * torch.eye(10)[labels])
    history = {"epoch_losses": np.linspace(2, 1, 100 if scale == "full" else 2)}
    history["train_accuracy"] = 90 - history["epoch_losses"]
    entry = {"epochs": 100, "best_epoch": 97, "test_loss": 0.5, "test_top5": 99.0, "ece": 0.2, "train_loss": 0.1}
    entry |= {"val_accuracy": 90.0, "val_loss": 0.4, "train_accuracy": 88.0, "training_seconds": 12345.6}
    entry |= {"parameters": 1_234_567, "flops": 2_345_678, "compile_seconds": 0.0, "early_stopping_epoch": None}
    metrics = [
        entry | {"seed": seed, "test_accuracy": 100 * float((logits[seed].argmax(1) == labels).double().mean())}
        for seed in range(seeds)
    ]
    sections = performance.sections(model, metrics, [history] * seeds, logits, labels, {"label_smoothing": smoothing})
    tables.write_markdown(tmp_path / "performance.md", text("Project 3: {model}", model=label(model)), sections, scale)
    check_page(tmp_path / "performance.md", drawn=False)


# --- the sentences ---


def templates():
    """Return every string that is the first argument of a call of `text` in project 3, or one of its alternatives."""
    found = []
    for path in sorted(TASK.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "text":
                alternatives = list(alternatives_of(node.args[0]))
                assert all(isinstance(one, ast.Constant) for one in alternatives), f"{path}:{node.lineno}"
                found += [one.value for one in alternatives]
    return found


def alternatives_of(node):
    """Yield the expressions of which a conditional expression chooses."""
    if isinstance(node, ast.IfExp):
        yield from alternatives_of(node.body)
        yield from alternatives_of(node.orelse)
    else:
        yield node


def test_every_sentence_has_a_translation_and_every_translation_a_sentence():
    assert len(templates()) > 100
    assert set(templates()) == set(chinese_project3.SENTENCES)


@pytest.mark.parametrize("english", chinese_project3.SENTENCES)
def test_a_translation_has_the_same_values(english):
    def fields(template):
        return sorted({(name, form) for _, name, form, _ in string.Formatter().parse(template) if name})

    assert fields(english) == fields(chinese_project3.SENTENCES[english])
