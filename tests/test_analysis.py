"""Project 3's tables, sentences and figures of one network, and the labels of all its figures."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text

from common import cli, data, evaluation, plots, tables
from common.models import MODELS
from common.support import checkpoints
from common.support.translations import CHINESE
from project3_wrn import batch_epoch_grid, compare_models, ensemble, improvements, label_audit
from project3_wrn.analysis import figures, label_errors, result_tables
from tests.conftest import ROOT

OUTPUTS = ROOT / "project3_wrn" / "outputs"
NAMES = {"ECE", "arXiv", *MODELS, "vit_own_recipe"}  # these are the same in Chinese


@pytest.mark.parametrize("name", ["resnet18", "wrn28_10", "fast94", "fast95", "fast96"])
def test_committed_tables_are_those_of_the_committed_logits(name, tmp_path):
    committed = OUTPUTS / name
    if not committed.exists():
        pytest.skip("no full run of this network is committed")
    saved, metrics = tables.load_arrays(committed / "logits.npz"), cli.read_json(committed / "metrics.json")
    labels = torch.from_numpy(saved["test_labels"])
    for entry in metrics:
        logits = torch.from_numpy(saved[f"{entry['seed']}/test"])
        assert float(evaluation.accuracy(logits, labels)) == pytest.approx(entry["test_accuracy"], abs=1e-3)
    logits = torch.from_numpy(saved[f"{metrics[0]['seed']}/test"])
    predictions = logits.argmax(1)
    written = {
        "classification_report.csv": result_tables.class_rows(labels, predictions),
        "confusion_matrix.csv": result_tables.confusion_rows(labels, predictions),
        "top_confusion_pairs.csv": result_tables.pair_rows(labels, predictions),
        "calibration.csv": result_tables.calibration_rows(logits, labels),
    }
    for file, rows in written.items():
        tables.write_csv(tmp_path / file, rows)
    page = result_tables.performance(metrics, labels, predictions)
    tables.write_markdown(tmp_path / "performance.md", f"Project 3: {name}", page, "full")
    for path in tmp_path.iterdir():
        assert (committed / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_the_outputs_say_about_early_stopping():
    entry = {"seed": 0, "epochs": 100}
    assert result_tables.stopping_note([entry]) == []  # this training has no validation
    entries = [entry | {"early_stopping_epoch": 53}, entry | {"early_stopping_epoch": None}]
    (note,) = result_tables.stopping_note(entries)
    assert "seed 0 after epoch 53; seed 0 not within its 100 epochs" in note and "patience 15, min_delta 0.001" in note
    history = {"epoch_losses": [1.0] * 20, "lr": np.ones(20), "val_accuracy": np.full(20, 90.0)}
    rule = result_tables.training_history(history, 0.1)["early_stopping"]
    assert rule == {"patience": 15, "min_delta": 0.001, "stops_after": 16}
    del history["val_accuracy"]
    assert "early_stopping" not in result_tables.training_history(history, 0.1)


def test_the_smoothing_floor_is_the_loss_of_the_smoothed_label_itself():
    label = torch.full((1, 10), 0.01)
    label[0, 3] += 0.9
    expected = F.cross_entropy(label.log(), torch.tensor([3]), label_smoothing=0.1)
    recipe = {"loss": "cross_entropy", "label_smoothing": 0.1}
    assert result_tables.smoothing_floor(recipe) == pytest.approx(expected)
    assert result_tables.smoothing_floor(recipe | {"label_smoothing": 0.0}) is None
    assert result_tables.smoothing_floor(recipe | {"loss": "focal"}) is None


def test_the_label_errors_are_the_published_ones():
    """By class as arXiv 2103.14749's votes name them: an index of another numbering would be of any class."""
    saved = tables.load_arrays(OUTPUTS / "fast94" / "logits.npz")["test_labels"]
    assert np.bincount(saved[[*label_errors.known(saved)]]).tolist() == [6, 7, 4, 17, 7, 3, 1, 3, 2, 4]
    assert label_errors.known(saved[:500]) == ()


def test_the_most_confident_errors_come_first():
    torch.manual_seed(0)
    logits, labels = torch.randn(300, 10), torch.randint(10, (300,))
    chosen = figures.most_confident_errors(logits, labels, 20)
    confidence, predictions = F.softmax(logits, 1).max(1)
    wrong = [index for index in range(300) if predictions[index] != labels[index]]
    assert chosen.tolist() == sorted(wrong, key=lambda index: -confidence[index])[:20]
    samples = figures.cam_samples(logits, labels)
    assert len(samples) == 9 and samples[6:] == chosen[:3].tolist()
    assert all(predictions[index] == labels[index] for index in samples[:6])
    assert len({int(labels[index]) for index in samples[:6]}) == 6


@pytest.fixture
def drawn(monkeypatch):
    """Return a list that gets every text in the figures that are saved, in English."""
    texts = []

    def save(figure, path):
        figure.canvas.draw()
        texts.extend(text.get_text() for text in figure.findobj(Text) if text.get_text())
        plots.plt.close(figure)

    monkeypatch.setattr(plots, "save", save)
    return texts


@pytest.mark.filterwarnings("ignore:Grad-CAM is zero")
def test_every_label_is_translated(drawn, tmp_path, sample):
    torch.manual_seed(0)
    test_set, path = sample[1], tmp_path / "figure.png"
    network = MODELS["lenet"]().eval()
    checkpoints.save(tmp_path / "weights-0.pt", network.state_dict())
    with torch.no_grad():
        logits = 5 * network(data.normalize(test_set.images, data.CIFAR10_STATS))
    predictions, epochs = logits.argmax(1), np.linspace(1, 2, 5)
    fields = ("epoch_losses", "val_loss", "train_accuracy", "val_accuracy", "lr")
    history = {**dict.fromkeys(fields, epochs), "kept_epoch": np.array(3)}
    figures.draw_training_curves(path, history, 0.1, floor=0.5)
    figures.draw_class_accuracy(path, test_set.labels, predictions)
    figures.draw_confidence(path, logits, test_set.labels)
    figures.draw_confusion_matrix(path, test_set.labels, predictions)
    figures.draw_top_confusions(path, test_set.labels, predictions)
    figures.draw_misclassified(path, logits, test_set)
    figures.draw_gradcam(path, "lenet", tmp_path / "weights-0.pt", logits, test_set)

    probabilities, known = F.softmax(logits, 1), {0, 1, 2}
    label_audit.draw_suspects(path, torch.arange(40), test_set, probabilities, known)
    configs = improvements.make_configs("cpu")
    improvements.draw_differences(path, {config: (1.0, 0.5) for config in configs})
    ensemble.draw_diversity(path, list(configs), np.eye(len(configs)))
    batch_epoch_grid.draw_grids(path, dict.fromkeys(batch_epoch_grid.CONFIGS, np.array([80.0])))
    accuracy = dict.fromkeys(compare_models.CONFIGS, np.array([90.0, 91.0]))
    compare_models.draw_accuracy_cost(path, accuracy, dict.fromkeys(accuracy, (1e6, 1e9)))

    known_labels = "|".join(re.escape(label) for label in sorted({*CHINESE, *NAMES}, key=len, reverse=True))
    left = {re.sub(rf"(?<!\w)({known_labels})(?!\w)", "", text): text for text in drawn}
    assert len(set(drawn)) > 100
    assert not {text for rest, text in left.items() if re.search("[A-Za-z]{2}", rest) and "$" not in text}
