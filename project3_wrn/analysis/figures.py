"""The figures of one network that main.py draws (project 3's report, chapter 2).

`facts` are short texts for the line under the title of a figure: network, seeds, epochs and scale. `predictions` (S, N)
has one row per seed, and `labels` (N,) are those of the test set.
"""

import numpy as np
import torch
import torch.nn.functional as F

from common import data, evaluation, plots, reported, tables, training
from common.plots import matplotlib, plt
from common.support.errors import UserError
from project3_wrn.analysis import gradcam, label_errors
from project3_wrn.analysis.result_tables import count_confusions, most_confident_errors, percent
from project3_wrn.method.weights import load_network

# vehicles, then animals, similar ones next to each other
ORDER = ("airplane", "ship", "automobile", "truck", "bird", "frog", "deer", "horse", "cat", "dog")
VEHICLES = 4
MISCLASSIFIED = (4, 5)  # rows and columns of images
CAM_CORRECT = ("airplane", "automobile", "truck", "dog", "cat", "horse")  # the classes that section 2.5 names
CAM_WRONG = (("cat", "dog"), ("dog", "cat"), ("automobile", "truck"))  # true class, predicted class
CAM_COLUMNS = 3  # samples per row
CAM_COLORS = "inferno"
FEW_EPOCHS = 20  # below this number a curve shows its points
CONFIDENCE_BINS = 30
LABEL_ERRORS_NOTE = "red: people have found the label wrong (arXiv 2103.14749)"
HOLLOW = {"marker": "D", "markersize": 8, "linestyle": "none", "markerfacecolor": "none"}  # the report's numbers


def logit_facts(recipe):
    """Return the facts of a recipe that its probabilities depend on."""
    smoothing, views, share = recipe["label_smoothing"], recipe["tta_views"], recipe["tta_fraction"]
    facts = [f"label smoothing {smoothing:g}"] if smoothing else []
    if views > 1:
        images = "each image" if share == 1 else f"the least certain {share:.0%}"
        facts.append(f"{views} views of {images}")
    return facts


# --- 2.1 training ---


def draw_training_curves(path, history, metrics, lr, facts, floor=None):
    """Draw loss and accuracy of each epoch, and the learning rate.

    metrics: the run's entry in metrics.json. lr: the learning rate that the history's is a factor of. floor: the least
    loss that label smoothing allows. A training as long as the report's shows the report's phases and numbers too.
    """
    figure, panels = plt.subplots(1, 3, figsize=(14, 5), layout="constrained", width_ratios=(5, 5, 3))
    epochs = np.arange(1, len(history["epoch_losses"]) + 1)
    marker = "o" if len(epochs) < FEW_EPOCHS else None
    for panel, kind, train in zip(panels, ("loss", "accuracy"), ("epoch_losses", "train_accuracy")):
        panel.plot(epochs, history[train], marker=marker, label="Training (augmented batches)")
        if f"val_{kind}" in history:
            draw_validation(panel, epochs, history, kind, marker)
        kept = metrics["best_epoch"]
        panel.plot(kept, metrics[f"train_{kind}"], "C0s", markerfacecolor="none", label="Training (evaluation mode)")
        panel.plot(kept, metrics[f"test_{kind}"], "C3s", label="Test")
        if len(epochs) == max(reported.TRAINING):
            draw_reported_curve(panel, kind)
    if floor is not None:
        label = f"Least possible with smoothed labels: {floor:.2f}"
        panels[0].axhline(floor, color="C7", linestyle="-.", label=label)
    panels[2].plot(epochs, history["lr"] * lr, color="C2", marker=marker)
    labels = (
        ("Loss", "Loss, nats"),
        ("Accuracy", "Accuracy, %"),
        ("Learning rate", "Learning rate in the epoch's last step"),
    )
    for panel, (title, ylabel) in zip(panels, labels):
        panel.set(title=title, xlabel="Epoch", ylabel=ylabel)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    plots.legend(figure)
    plots.about(figure, "Training, epoch by epoch", *facts)
    plots.save(figure, path)


def draw_validation(panel, epochs, history, kind, marker):
    """Draw the curve of validation, its kept epoch, and where the report's early stopping would have ended."""
    values, kept = history[f"val_{kind}"], int(history["kept_epoch"])
    panel.plot(epochs, values, "C1--", marker=marker, label="Validation")
    panel.plot(kept, values[kept - 1], "k*", markersize=11, label=f"Best epoch: {kept}")
    if end := training.stopped_after(history["val_accuracy"]):
        panel.axvline(end, color="C4", linestyle=":", label=f"The report's early stopping: epoch {end}")


def draw_reported_curve(panel, kind):
    """Draw the report's numbers of one kind, loss or accuracy, and the borders of its phases (2.1)."""
    position = ("loss", "accuracy").index(kind)
    for name, points, color in (("training", reported.TRAINING, "C0"), ("validation", reported.VALIDATION, "C1")):
        values = [numbers[position] for numbers in points.values()]
        panel.plot([*points], values, **HOLLOW, markeredgecolor=color, label=f"The report: {name}")
    for first, last in reported.PHASES[1::2]:
        panel.axvspan(first - 0.5, last + 0.5, color="0.93", zorder=0, label=f"The report's phase: {first} to {last}")


# --- 2.2 and 2.3 accuracy by class, and confidence ---


def draw_class_accuracy(path, labels, predictions, facts):
    """Draw the recall of each class, which the report calls its accuracy, over the seeds, and the report's."""
    matrices = count_confusions(labels, predictions)
    recall = matrices.double().diagonal(dim1=1, dim2=2) / matrices.sum(2).clamp(min=1) * 100
    overall = (predictions == labels).double().mean() * 100
    order = recall.mean(0).argsort(stable=True).tolist()
    names, rows = [data.CLASSES[label] for label in order], range(len(order))
    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    means, spreads = recall[:, order].mean(0), [tables.std(recall[:, label].tolist()) for label in order]
    axes.plot(means, rows, "C0o", label="Ours")
    axes.errorbar(means, rows, xerr=spreads, fmt="none", ecolor="C0", capsize=3)
    values = [reported.RECALL[name] for name in names]
    axes.plot(values, rows, **HOLLOW, markeredgecolor="black", label="The report's table 2.3")
    axes.axvline(overall, color="C0", linestyle="--", linewidth=1, label=f"Ours, all classes: {overall:.2f}")
    report = reported.CHAPTER_2_ACCURACY
    axes.axvline(report, color="black", linestyle=":", linewidth=1, label=f"The report, all classes: {report:.2f}")
    axes.set_yticks(rows, names)
    axes.set(xlabel="Share of the class that is recognized (recall), %")
    plots.legend(figure, columns=2)
    plots.about(figure, "Test accuracy of each class", *facts, *spread_fact(predictions))
    plots.save(figure, path)


def spread_fact(predictions):
    return ["mean ± standard deviation"] if len(predictions) > 1 else []


def draw_confidence(path, logits, labels, facts):
    """Draw the confidence of correct and of wrong predictions, and how reliable it is (2.4)."""
    confidence, predictions = F.softmax(logits.double(), -1).max(-1)
    correct = predictions == labels
    bins = {name: values.numpy() for name, values in evaluation.calibration(logits, labels).items()}
    figure, (histogram, reliability) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    parts = [confidence[correct].numpy(), confidence[~correct].numpy()]
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    histogram.hist(parts, edges, label=["Correct", "Incorrect"], log=True, color=["C0", "C3"])
    histogram.set(xlabel="Highest probability", ylabel="Test images", title="How confident the network is")
    histogram.legend(loc="upper left")

    filled, count = bins["count"] > 0, len(bins["count"])
    centers, accuracy = (np.arange(count)[filled] + 0.5) / count, bins["accuracy"][filled]
    gap = bins["confidence"][filled] - accuracy
    reliability.bar(centers, accuracy, 1 / count, color="C5", edgecolor="white", label="Accuracy")
    look = {"facecolor": "none", "edgecolor": "C3", "hatch": "///", "linewidth": 0}
    reliability.bar(centers, gap, 1 / count, accuracy, **look, label="Gap to the mean confidence")
    reliability.plot([0, 1], [0, 1], "k--", linewidth=1, label="Perfectly calibrated")
    title = f"Accuracy by confidence: ECE {float(bins['ece']):.3f}"
    reliability.set(xlabel="Highest probability", ylabel="Fraction correct", title=title, xlim=(0, 1), ylim=(0, 1))
    reliability.legend(loc="upper left")
    plots.about(figure, "Confidence and accuracy on the test set", *facts, f"ECE over {count} bins")
    plots.save(figure, path)


# --- 2.2 and 2.4 errors ---


def draw_confusion_matrix(path, labels, predictions, facts):
    """Draw the counts of a confusion matrix; the colors are those of the errors, and the diagonal has none.

    predictions: (N,), of one seed.
    """
    order = [data.CLASSES.index(name) for name in ORDER]
    counts = evaluation.confusion_matrix(labels, predictions)[order][:, order].numpy()
    errors = np.where(np.eye(len(order), dtype=bool), np.nan, counts)
    highest = max(1, np.nanmax(errors))
    figure, axes = plt.subplots(figsize=(8.5, 7.6), layout="constrained")
    colors = plt.get_cmap("Oranges").with_extremes(bad="0.9")
    image = axes.imshow(errors, cmap=colors, vmin=0, vmax=highest)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = row != column and count > highest / 2
            look = {"color": "white" if dark else "black", "fontsize": 10}
            axes.text(column, row, str(count), ha="center", va="center", **look)
    for line in (axes.axhline, axes.axvline):
        line(VEHICLES - 0.5, color="black", linewidth=1)
    axes.set_xticks(range(len(ORDER)), ORDER, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(ORDER)), ORDER)
    axes.grid(False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    figure.colorbar(image, ax=axes, shrink=0.8, label="Errors, test images")
    plots.about(figure, "Confusion matrix: vehicles, then animals", *facts)
    plots.save(figure, path)


def draw_top_confusions(path, labels, predictions, facts):
    """Draw the most frequent pairs of a true and a predicted class over the seeds, and the counts in the report."""
    matrices = count_confusions(labels, predictions)
    pairs = [(true, prediction) for true, prediction, _ in evaluation.top_confusions(matrices.sum(0))]
    report = {
        (data.CLASSES.index(true), data.CLASSES.index(prediction)): count
        for (true, prediction), count in reported.CONFUSIONS.items()
    }
    totals = matrices.sum(0)
    pairs = sorted({*pairs, *report}, key=lambda pair: (totals[pair], pair))
    figure, axes = plt.subplots(figsize=(8.5, 5.5), layout="constrained")
    counts = [matrices[:, true, prediction].tolist() for true, prediction in pairs]
    means, spreads = [np.mean(values) for values in counts], [tables.std(values) for values in counts]
    axes.barh(range(len(pairs)), means, xerr=spreads, capsize=3, color="C5", label="Ours")
    rows = [row for row, pair in enumerate(pairs) if pair in report]
    values = [report[pairs[row]] for row in rows]
    axes.plot(values, rows, **HOLLOW, markeredgecolor="black", label="The report (where it gives a number)")
    axes.set_yticks(range(len(pairs)), [f"{data.CLASSES[true]} → {data.CLASSES[other]}" for true, other in pairs])
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="Test images")
    axes.legend(loc="lower right")
    title = "Most frequent confusions: true → predicted"
    plots.about(figure, title, *facts, *spread_fact(predictions))
    plots.save(figure, path)


def draw_misclassified(path, logits, test_set, facts):
    """Draw the most confident errors, each with the probabilities of the predicted and the true class."""
    known = label_errors.known(test_set.labels)
    probabilities = F.softmax(logits.double(), -1)
    rows, columns = MISCLASSIFIED
    chosen = most_confident_errors(logits, test_set.labels, rows * columns).tolist()
    figure, grid = plt.subplots(rows, columns, figsize=(10, 10), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, chosen):
        true, prediction = int(test_set.labels[index]), int(logits[index].argmax())
        axes.imshow(test_set.images[index].permute(1, 2, 0).numpy())
        lines = [
            f"{role} {data.CLASSES[label]} {percent(probabilities[index, label])}"
            for role, label in (("predicted", prediction), ("true", true))
        ]
        color = "firebrick" if index in known else "black"
        axes.set_title("\n".join([f"image {index}", *lines]), fontsize=9, color=color)
    note = [LABEL_ERRORS_NOTE] if set(chosen) & set(known) else []
    plots.about(figure, f"The {len(chosen)} most confident errors of the test set", *facts, *note)
    plots.save(figure, path)


# --- 2.5 Grad-CAM ---


def draw_gradcam(path, model, weights, logits, test_set, facts, layer=None):
    """Draw nine test images, and over each of them its Grad-CAM for the predicted class.

    layer: the module to explain; by default the last one whose maps are large enough, see `gradcam.detailed_layer`.
    Where the weights cannot be read or the network has no feature maps, one line is printed instead.

    Raises:
        UserError: the figure of a `layer` is asked for and cannot be drawn.
    """
    if not weights.exists():
        print(f"{weights.name} not found (weights are not committed); keeping the existing {path.name}")
        return
    chosen = torch.tensor(cam_samples(logits, test_set.labels))
    pictures, labels, predictions = test_set.images[chosen], test_set.labels[chosen], logits[chosen].argmax(1)
    images = data.normalize(pictures, data.CIFAR10_STATS)
    try:
        network = load_network(model, weights)
        explained = layer or gradcam.detailed_layer(network, images)
        maps = gradcam.gradcam(network, images, predictions, explained)
    except UserError as problem:
        if layer:
            raise
        print(f"no {path.name}: {problem}")
        return
    height, width = maps.shape[-2:]
    rows = -(-len(chosen) // CAM_COLUMNS)
    figure, grid = plt.subplots(
        rows, 2 * CAM_COLUMNS, figsize=(11.5, 1.9 * rows + 1), layout="constrained", squeeze=False
    )
    for axes in grid.flat:
        axes.axis("off")
    cells = grid.reshape(-1, 2)  # a sample has two: the image, and the map over it
    heats = gradcam.upsample(maps, pictures.shape[-2:])
    for cell, index, picture, heat, *classes in zip(cells, chosen, pictures, heats, labels, predictions):
        true, prediction = (data.CLASSES[label] for label in classes)
        picture = picture.permute(1, 2, 0)
        color = "black" if true == prediction else "firebrick"
        cell[0].imshow(picture.numpy())
        cell[0].set_title(f"image {index}: {true}", fontsize=9, color=color)
        cell[1].imshow(gradcam_overlay(picture, heat).numpy())
        cell[1].set_title(f"predicted {prediction}", fontsize=9, color=color)
    scale = matplotlib.cm.ScalarMappable(cmap=CAM_COLORS)
    figure.colorbar(scale, ax=grid, shrink=0.7, label="Grad-CAM, from the image's lowest to its highest value")
    place = [f"layer {explained}"] if explained else ["last feature maps"]
    note = "red: wrong prediction"
    plots.about(figure, "Where the network looks", *facts, *place, f"maps of {height}×{width}", note)
    plots.save(figure, path)


def cam_samples(logits, labels):
    """Return the indices of the first correct image of each class of CAM_CORRECT, and of an error of each of CAM_WRONG.

    The error is the most confident one of its kind. Where there is none of a kind, the next most confident error of any
    kind takes its place.
    """
    predictions = logits.argmax(1)
    chosen = []
    for name in CAM_CORRECT:
        label = data.CLASSES.index(name)
        chosen += ((labels == label) & (predictions == label)).nonzero().flatten()[:1].tolist()
    errors = most_confident_errors(logits, labels, len(labels)).tolist()
    wrong = []
    for pair in CAM_WRONG:
        true, other = (data.CLASSES.index(name) for name in pair)
        wrong += [index for index in errors if labels[index] == true and predictions[index] == other][:1]
    wrong += [index for index in errors if index not in wrong][: len(CAM_WRONG) - len(wrong)]
    return chosen + wrong


def gradcam_overlay(picture, heat, opacity=0.5):
    """Blend a picture, uint8 (H, W, 3), with its heat map (H, W) in 0..1; return float RGB (H, W, 3)."""
    colors = torch.from_numpy(plt.get_cmap(CAM_COLORS)(heat.numpy())[..., :3])
    return ((1 - opacity) * picture / 255 + opacity * colors).clamp(0, 1)
