"""Project 3's tables, sentences and figures of one network, and the labels of all its figures."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, recall_score

from common import cli, data, evaluation, plots, reported, tables
from common.models import MODELS
from common.support import checkpoints
from common.support.translations import label, text
from project3_wrn import batch_epoch_grid, compare_models, improvements, label_audit
from project3_wrn.analysis import ensemble_tables, figures, label_errors, performance, result_tables, study_tables
from tests.conftest import ROOT

OUTPUTS = ROOT / "project3_wrn" / "outputs"
# Chinese figures leave these in English
NAMES = {"ECE", "arXiv", "nat", "ResNet", "WRN", "DLA", "VGG", "ViT", "LeNet", "CIFAR", "MFLOPs", "fast94", "MixUp"}
NAMES |= {"CutMix", "AutoAugment", "RandAugment", "TrivialAugment", "Focal", "Loss", "CBAM", "SE", "Grad", "CAM"}
NAMES |= {"Cutout", "Dropout", "Adam", "groups.2.convs"}  # the last is a layer


COMMITTED = ["resnet18", "wrn28_10", "fast94", "fast95", "fast96"]


def load_network_outputs(name):
    """Return (metrics, histories, logits (S, N, 10), labels, recipe) of a committed full run, or skip the test."""
    folder = OUTPUTS / name
    if not folder.exists():
        pytest.skip("no full run of this network is committed")
    saved, metrics = tables.load_arrays(folder / "logits.npz"), cli.read_json(folder / "metrics.json", list)
    histories = [*tables.load_histories(folder / "loss_history.npz").values()]
    logits = torch.stack([torch.from_numpy(saved[f"{entry['seed']}/test"]) for entry in metrics])
    labels, recipe = torch.from_numpy(saved["test_labels"]), cli.read_json(folder / "run.json")["recipe"]
    return metrics, histories, logits, labels, recipe


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_tables_are_those_of_the_committed_logits(name, tmp_path):
    committed = OUTPUTS / name
    metrics, histories, logits, labels, recipe = load_network_outputs(name)
    for entry, values in zip(metrics, logits):
        assert float(evaluation.accuracy(values, labels)) == pytest.approx(entry["test_accuracy"], abs=1e-3)
    predictions = logits[0].argmax(1)
    written = {
        "classification_report.csv": result_tables.class_rows(labels, predictions),
        "confusion_matrix.csv": result_tables.confusion_rows(labels, predictions),
        "top_confusion_pairs.csv": result_tables.pair_rows(labels, predictions),
        "calibration.csv": result_tables.calibration_rows(logits[0], labels),
    }
    for file, rows in written.items():
        tables.write_csv(tmp_path / file, rows)
    gradcam = (committed / "gradcam_visualization.png").exists()
    page = performance.sections(name, metrics, histories, logits, labels, recipe, gradcam)
    tables.write_markdown(tmp_path / "performance.md", text("Project 3: {model}", model=label(name)), page, "full")
    for path in tmp_path.iterdir():
        assert (committed / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_the_outputs_say_about_early_stopping():
    entry = {"seed": 0, "epochs": 100, "best_epoch": 90}
    assert performance.stopping_section([entry]) == []  # this training has no validation
    entries = [entry | {"early_stopping_epoch": 53}, entry | {"early_stopping_epoch": None}]
    note, rows = performance.stopping_section(entries)
    assert "patience 15, `min_delta` 0.001" in note.en and "容忍度 15，`min_delta` 0.001" in note.zh
    assert [row["early stopping after epoch"] for row in rows] == [53, tables.DASH]
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
    chosen = result_tables.most_confident_errors(logits, labels, 20)
    confidence, predictions = F.softmax(logits, 1).max(1)
    wrong = [index for index in range(300) if predictions[index] != labels[index]]
    assert chosen.tolist() == sorted(wrong, key=lambda index: -confidence[index])[:20]


def test_grad_cam_shows_the_classes_and_confusions_that_the_report_names():
    """The first correct image of six classes; then, of each of three confusions, the most confident."""
    torch.manual_seed(0)
    labels = torch.arange(10).repeat(100)
    logits = torch.randn(1000, 10) + 2 * F.one_hot(labels, 10)
    confidence, predictions = F.softmax(logits, 1).max(1)
    chosen = figures.cam_samples(logits, labels)
    names = [(data.CLASSES[labels[index]], data.CLASSES[predictions[index]]) for index in chosen]
    right = [(name, name) for name in ("airplane", "automobile", "truck", "dog", "cat", "horse")]
    assert names == [*right, ("cat", "dog"), ("dog", "cat"), ("automobile", "truck")]
    for index in chosen[:6]:
        same = (labels == labels[index]) & (predictions == labels[index])
        assert index == int(same.nonzero()[0])
    for index in chosen[6:]:
        same = (labels == labels[index]) & (predictions == predictions[index])
        assert confidence[index] == confidence[same].max()


def test_another_error_takes_the_place_of_a_confusion_that_does_not_occur():
    labels = torch.arange(10).repeat(2)
    logits = F.one_hot(labels, 10).double()
    logits[[2, 12]] = F.one_hot(torch.tensor([4, 6]), 10) * torch.tensor([[2.0], [3.0]]).double()
    assert figures.cam_samples(logits, labels) == [0, 1, 9, 5, 3, 7, 12, 2]


@pytest.mark.parametrize(
    ("probability", "shown"), [(0.9971, ">99%"), (0.994, "99%"), (0.8397, "84%"), (0.0008, "<1%"), (0.012, "1%")]
)
def test_no_probability_is_rounded_to_certainty(probability, shown):
    assert result_tables.percent(probability) == shown


def test_the_notes_count_as_numpy_does():
    metrics, _, logits, labels, recipe = load_network_outputs("fast94")
    probabilities = softmax(logits[0].double().numpy(), 1)
    predictions, truth = probabilities.argmax(1), labels.numpy()
    wrong = np.flatnonzero(predictions != truth)
    top = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:20]
    pairs = [frozenset((data.CLASSES[truth[index]], data.CLASSES[predictions[index]])) for index in top]
    pets, cars = (pairs.count(frozenset(pair)) for pair in (("cat", "dog"), ("automobile", "truck")))
    note = performance.confident_note(logits[0], labels).en
    assert f"{pets} confuse cat and dog, and {cars} confuse automobile and truck. These {pets + cars} are" in note
    assert f"with {100 * probabilities[top[0]].max():.2f}%" in note
    assert ("are not most" in note) == (pets + cars <= 10)

    confidence = 100 * softmax(logits.double().numpy(), -1).max(-1).mean()
    accuracy = 100 * (logits.numpy().argmax(-1) == truth).mean()
    note = performance.calibration_note(metrics, logits, recipe).en
    assert f"underconfident by {accuracy - confidence:.1f} points" in note
    assert "label smoothing, and the smoothing of 0.09" in note and "only 91.9%" in note  # 1 - 0.09 + 0.09 / 10
    assert "a short training" in performance.calibration_note(metrics, logits, {"label_smoothing": 0.0}).en
    note = performance.calibration_note(metrics, 100 * logits, recipe).en
    assert "overconfident by" in note and "overfitting" in note
    calibrated = [entry | {"ece": 0.01} for entry in metrics]
    assert "usual cause" not in performance.calibration_note(calibrated, logits, recipe).en

    counts = np.array([confusion_matrix(truth, row.argmax(1)) for row in logits.numpy()])
    rows = {row[performance.PAIR]: row for row in performance.reported_pair_rows(labels, logits.argmax(-1))}
    assert rows["cat → dog"]["report"] == 66 and rows["dog → cat"]["report"] == 46
    assert rows["cat → dog"]["ours"] == f"{counts[:, 3, 5].mean():.1f} ± {counts[:, 3, 5].std(ddof=1):.1f}"


def test_the_captions_count_as_scikit_learn_does():
    _, _, logits, labels, _ = load_network_outputs("fast94")
    predictions = logits.argmax(-1)
    recall = 100 * np.mean([recall_score(labels, row, average=None) for row in predictions], 0)
    caption = performance.class_caption(labels, predictions).en
    assert f"{data.CLASSES[recall.argmin()]} least often ({recall.min():.1f}%)" in caption
    assert f"{data.CLASSES[recall.argmax()]} most often ({recall.max():.1f}%)" in caption
    counts = np.mean([confusion_matrix(labels, row) for row in predictions], 0) * (1 - np.eye(10))
    true, predicted = (data.CLASSES[index] for index in np.unravel_index(counts.argmax(), counts.shape))
    assert f"is {true} → {predicted}, with {counts.max():.1f} test" in performance.pair_caption(labels, predictions).en
    order, matrix = figures.ORDER, confusion_matrix(labels, predictions[0])
    groups = [[data.CLASSES.index(name) for name in group] for group in (order[:4], order[4:])]
    inside = sum(matrix[np.ix_(group, group)].sum() - matrix.diagonal()[group].sum() for group in groups)
    wrong = matrix.sum() - np.trace(matrix)
    assert f"Of the {wrong} errors of seed 0, {inside} take" in performance.matrix_figure(0, labels, predictions[0]).en


@pytest.mark.parametrize(("epochs", "ends"), [(100, [1, 20, 60, 100]), (8, [1, 2, 5, 8]), (3, [1, 1, 2, 3])])
def test_the_phases_are_the_reports_share_of_a_training(epochs, ends):
    numbers = np.arange(1.0, epochs + 1)
    _, rows = performance.phase_section([{"epoch_losses": numbers, "train_accuracy": 2 * numbers}])
    assert [row["ours: after epoch"] for row in rows] == ends
    assert [float(row["ours: training loss"]) for row in rows] == ends
    assert [float(row["ours: training accuracy, %"]) for row in rows] == [2 * end for end in ends]
    assert [row["report: after epoch"] for row in rows] == [1, 20, 60, 100]
    assert len(performance.phase_section([{"epoch_losses": numbers[:2]}])) == 1


# --- what the figures show ---


@pytest.fixture
def figure(monkeypatch):
    """Return figure(draw, *arguments): the figure that a function of `figures` saves."""
    plots.setup()
    saved = []
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.append(figure))

    def draw(function, *arguments):
        function("figure.png", *arguments)
        return saved[-1]

    yield draw
    plots.plt.close("all")


def test_the_confusion_matrix_shows_every_count_once_and_colors_the_errors_only(figure):
    _, _, logits, labels, _ = load_network_outputs("fast94")
    predictions = logits[0].argmax(1)
    axes = figure(figures.draw_confusion_matrix, labels, predictions, ["fast94"]).axes[0]
    order = [data.CLASSES.index(name) for name in figures.ORDER]
    counts = confusion_matrix(labels, predictions, labels=order)
    shown = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    assert shown == {place: count for place, count in np.ndenumerate(counts) if count}
    assert sorted(order) == list(range(10))
    colors = axes.images[0].get_array()
    assert np.ma.getmaskarray(np.ma.masked_invalid(colors)).tolist() == np.eye(10, dtype=bool).tolist()
    assert axes.images[0].get_clim() == (0, (counts * (1 - np.eye(10))).max())


def test_class_accuracy_is_scikit_learns_recall_next_to_the_reports(figure):
    _, _, logits, labels, _ = load_network_outputs("fast94")
    axes = figure(figures.draw_class_accuracy, labels, logits.argmax(-1), ["fast94"]).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    lines = {line.get_label(): np.asarray(line.get_xdata(), float) for line in axes.lines}
    recall = 100 * np.array([recall_score(labels, row.argmax(1), average=None) for row in logits])
    expected = dict(zip(data.CLASSES, recall.mean(0)))
    assert lines["Ours"] == pytest.approx([expected[name] for name in names])
    assert list(lines["Ours"]) == sorted(lines["Ours"])
    assert dict(zip(names, lines["The report's table 2.3"])) == reported.RECALL
    spreads = np.array([(path[1, 0] - path[0, 0]) / 2 for path in axes.collections[0].get_segments()])
    assert spreads == pytest.approx([recall.std(0, ddof=1)[data.CLASSES.index(name)] for name in names])


def test_top_confusions_are_means_over_seeds_with_all_that_the_report_counts(figure):
    _, _, logits, labels, _ = load_network_outputs("fast94")
    axes = figure(figures.draw_top_confusions, labels, logits.argmax(-1), ["fast94"]).axes[0]
    counts = np.mean([confusion_matrix(labels, row.argmax(1)) for row in logits], 0)
    names = [tuple(label.get_text().split(" → ")) for label in axes.get_yticklabels()]
    assert len(names) >= 10 and set(reported.CONFUSIONS) <= set(names)
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([counts[data.CLASSES.index(a), data.CLASSES.index(b)] for a, b in names])
    largest = sorted((counts * (1 - np.eye(10))).flatten())[-10:]
    assert sorted(widths)[-10:] == pytest.approx(largest)
    (line,) = (line for line in axes.lines if line.get_label().startswith("The report"))
    drawn = {names[round(row)]: count for count, row in zip(line.get_xdata(), line.get_ydata())}
    assert drawn == reported.CONFUSIONS


def test_the_hatched_gaps_add_up_to_the_expected_calibration_error(figure):
    _, _, logits, labels, _ = load_network_outputs("fast94")
    axes = figure(figures.draw_confidence, logits[0], labels, ["fast94"]).axes[1]
    probabilities = softmax(logits[0].double().numpy(), 1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    accuracy, gaps = (container.patches for container in axes.containers)
    total = 0
    for bar, gap in zip(accuracy, gaps):
        inside = (confidence > bar.get_x() + 1e-9) & (confidence <= bar.get_x() + bar.get_width() + 1e-9)
        assert bar.get_height() == pytest.approx(correct[inside].mean())
        assert gap.get_y() == bar.get_height() and gap.get_hatch()
        assert gap.get_y() + gap.get_height() == pytest.approx(confidence[inside].mean())
        total += inside.mean() * abs(gap.get_height())
    assert f"ECE {total:.3f}" in axes.get_title()


@pytest.mark.parametrize("epochs", [8, 100])
def test_training_curves_have_the_reports_numbers_where_the_training_is_as_long(figure, epochs):
    numbers = np.linspace(1, 90, epochs)
    fields = ("epoch_losses", "val_loss", "train_accuracy", "lr")
    history = {**dict.fromkeys(fields, numbers), "val_accuracy": np.full(epochs, 90.0), "kept_epoch": np.array(3)}
    metrics = dict(best_epoch=3, train_loss=0.1, train_accuracy=99.0, test_loss=0.3, test_accuracy=94.0)
    left, middle, _ = figure(figures.draw_training_curves, history, metrics, 0.1, ["LeNet"]).axes
    for axes, position in ((left, 0), (middle, 1)):
        points = {line.get_label(): dict(zip(*line.get_data())) for line in axes.lines}
        assert points["Test"] == {3: (0.3, 94.0)[position]}
        assert points["Best epoch: 3"] == {3: history[("val_loss", "val_accuracy")[position]][2]}
        assert ("The report's early stopping: epoch 16" in points) == (epochs == 100)
        assert ("The report: training" in points) == (epochs == 100)
        if epochs == 100:
            assert points["The report: training"] == {e: pair[position] for e, pair in reported.TRAINING.items()}


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [(1.0, 0.5, "Better"), (-1.0, 0.5, "Worse"), (1.0, 1.0, "Not"), (-1.0, 2.0, "Not"), (9.0, None, "Not")],
)
def test_a_difference_has_a_color_where_its_interval_excludes_zero(mean, half, word):
    assert (
        improvements.judgement(mean, half).startswith(word) and improvements.judgement(mean, half) in improvements.LOOKS
    )


# --- both languages ---


def draw_everything(folder):
    """Draw every figure of project 3, from committed outputs where they are enough; the images are noise."""
    plots.setup()
    metrics, histories, logits, labels, recipe = load_network_outputs("fast94")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(labels), 3, 32, 32), generator=generator, dtype=torch.uint8)
    test_set, predictions = data.Dataset(images, labels), logits.argmax(-1)
    one, several = (study_tables.run_facts("fast94", seeds, 8, "full") for seeds in ("seed 0", 5))
    torch.manual_seed(0)
    checkpoints.save(folder / "weights-0.pt", MODELS["fast94"]().state_dict())
    long = {name: np.linspace(1, 2, 100) for name in ("epoch_losses", "val_loss", "train_accuracy", "lr")}
    long |= {"val_accuracy": np.full(100, 90.0), "kept_epoch": np.array(3)}
    by_logits = (*one, *figures.logit_facts(recipe))
    figures.draw_training_curves(folder / "short.png", histories[0], metrics[0], 0.1, one, floor=0.5)
    figures.draw_training_curves(folder / "long.png", long, metrics[0], 0.1, one)
    figures.draw_class_accuracy(folder / "classes.png", labels, predictions, several)
    figures.draw_confidence(folder / "confidence.png", logits[0], labels, by_logits)
    figures.draw_confusion_matrix(folder / "matrix.png", labels, predictions[0], one)
    figures.draw_top_confusions(folder / "pairs.png", labels, predictions, several)
    figures.draw_misclassified(folder / "errors.png", logits[0], test_set, by_logits)
    figures.draw_gradcam(folder / "gradcam.png", "fast94", folder / "weights-0.pt", logits[0], test_set, one)

    suspects, known = torch.arange(40), {0, 1, 2}
    facts = ("fast_small", "5 folds", "5 epochs")
    label_audit.draw_suspects(folder / "suspects.png", suspects, test_set, F.softmax(logits[0], 1), facts, known)
    configs = improvements.make_configs("cpu")
    changes = {config: (1.0, half) for config, half in zip(configs, (0.5, 2.0, *[0.5] * len(configs)))}
    improvements.draw_differences(folder / "changes.png", changes, facts)
    ensemble_tables.draw_diversity(folder / "diversity.png", list(configs), np.eye(len(configs)))
    cells = dict.fromkeys(batch_epoch_grid.CONFIGS, np.array([80.0]))
    batch_epoch_grid.draw_grids(folder / "grid.png", cells)
    accuracy = dict.fromkeys(compare_models.CONFIGS, np.array([90.0, 91.0]))
    sizes = dict.fromkeys(accuracy, (1e6, 1e9))
    compare_models.draw_accuracy_cost(folder / "cost.png", accuracy, sizes)


@pytest.mark.filterwarnings("ignore:Grad-CAM is zero", "ignore:Glyph")
def test_no_figure_has_a_code_name_in_english_or_an_english_word_in_chinese(monkeypatch, tmp_path):
    texts = {"en": set(), "zh": set()}

    def collect(figure, path):
        figure.canvas.draw()
        language = "zh" if path.name.endswith(".zh.png") else "en"
        texts[language].update(text.get_text() for text in figure.findobj(Text) if text.get_text())

    monkeypatch.setattr(plots, "write_png", collect)
    monkeypatch.setattr(plots, "chinese_font", lambda: "DejaVu Sans")
    draw_everything(tmp_path)
    assert len(texts["en"]) > 100
    assert not [text for text in texts["en"] if re.search(r"[a-z]_[a-z]|[一-鿿]", text)]
    chinese = [text for text in texts["zh"] if "$" not in text]  # such a tick has no word but TeX's
    words = {word for text in chinese for word in re.findall(r"[A-Za-z_.\d]*[A-Za-z]{2,}\d*", text)}
    assert not words - NAMES, sorted(words - NAMES)


@pytest.mark.filterwarnings("ignore:Grad-CAM is zero", "error:Glyph")
def test_every_figure_is_written_in_both_languages_without_a_missing_glyph(tmp_path):
    if not plots.chinese_font():
        pytest.skip("no font with Chinese glyphs is installed")
    draw_everything(tmp_path)
    english = {path.name for path in tmp_path.glob("*.png") if not path.name.endswith(".zh.png")}
    assert len(english) == 13
    assert {path.name for path in tmp_path.glob("*.zh.png")} == {name.replace(".png", ".zh.png") for name in english}
