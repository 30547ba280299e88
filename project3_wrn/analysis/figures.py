"""The figures of one network that main.py draws (project 3's report, chapter 2), all of its first seed."""

import numpy as np
import torch
import torch.nn.functional as F

from common import data, evaluation, plots
from common.plots import plt
from common.support.errors import UserError
from project3_wrn.analysis import gradcam, label_errors
from project3_wrn.method.weights import load_network

MISCLASSIFIED = 20
CAM_SAMPLES = (6, 3)  # number of correct and of wrong predictions
FEW_EPOCHS = 20  # below this number a curve shows its points
CONFIDENCE_BINS = 30
HOLLOW = {"marker": "D", "linestyle": "none", "markerfacecolor": "none"}  # the report's numbers
LABEL_ERRORS_NOTE = "Red: people have found the label wrong (arXiv 2103.14749)"


def draw_training_curves(path, history, lr, floor=None):
    """Draw loss, accuracy and learning rate per epoch.

    lr: the learning rate that the history's is a factor of. floor: the least loss that label smoothing allows.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    epochs, best = np.arange(1, len(history["epoch_losses"]) + 1), int(history["kept_epoch"])
    marker = "o-" if len(epochs) < FEW_EPOCHS else "-"
    if floor is not None:
        left.axhline(floor, color="grey", linestyle=":", label=f"Least possible with smoothed labels: {floor:.2f}")
    for axes, train, validation in ((left, "epoch_losses", "val_loss"), (middle, "train_accuracy", "val_accuracy")):
        axes.plot(epochs, history[train], marker, label="Training (augmented batches)")
        if validation in history:
            axes.plot(epochs, history[validation], marker, label="Validation")
            value = history[validation][best - 1]
            axes.plot(best, value, "k*", markersize=10, label=f"Best epoch: {best}")
        axes.legend()
    left.set(title="Loss", ylabel="Loss, nats")
    middle.set(title="Accuracy", ylabel="Accuracy, %")
    right.plot(epochs, history["lr"] * lr, marker)
    right.set(title="Learning rate in the epoch's last step", ylabel="Learning rate")
    for axes in (left, middle, right):
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(plots.matplotlib.ticker.MaxNLocator(integer=True))
    plots.save(figure, path)


def draw_class_accuracy(path, labels, predictions):
    """Draw the recall of each class, which the report calls its accuracy."""
    matrix = evaluation.confusion_matrix(labels, predictions)
    recall = (matrix.diagonal() / matrix.sum(1).clamp(min=1) * 100).tolist()
    overall = float((labels == predictions).float().mean() * 100)
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    order = sorted(range(len(recall)), key=lambda index: -recall[index])
    bars = axes.bar([data.CLASSES[i] for i in order], [recall[i] for i in order], color="C0")
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.axhline(overall, color="C3", linestyle="--", label=f"All classes: {overall:.2f}")
    axes.set_ylim(max(0, min(recall) - 8), 100.5)  # cut off below, so that differences of one point are visible
    axes.set(ylabel="Test accuracy, %")
    axes.tick_params(axis="x", rotation=25)
    axes.legend()
    plots.save(figure, path)


def draw_confidence(path, logits, labels):
    """Draw the confidence of correct and of wrong predictions, and how well it is calibrated (2.4)."""
    confidence, predictions = F.softmax(logits.double(), -1).max(-1)
    correct = predictions == labels
    bins = {name: values.numpy() for name, values in evaluation.calibration(logits, labels).items()}
    figure, (histogram, reliability) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    histogram.hist(
        [confidence[correct].numpy(), confidence[~correct].numpy()], edges, label=["Correct", "Incorrect"], log=True
    )
    histogram.set(xlabel="Highest probability", ylabel="Test images")
    histogram.legend(loc="upper left")
    filled, count = bins["count"] > 0, len(bins["count"])
    centers = (np.arange(count) + 0.5) / count
    reliability.bar(centers[filled], bins["accuracy"][filled], 1 / count, edgecolor="white", label="Accuracy")
    reliability.plot([0, 1], [0, 1], "k--", linewidth=1, label="Perfectly calibrated")
    reliability.plot(
        bins["confidence"][filled],
        bins["accuracy"][filled],
        "C3o",
        markersize=4,
        label="Mean confidence of the bin",
    )
    reliability.set(xlabel="Highest probability", ylabel="Fraction correct", title=f"ECE {float(bins['ece']):.4f}")
    reliability.legend(loc="upper left")
    plots.save(figure, path)


def draw_confusion_matrix(path, labels, predictions):
    """Draw the confusion matrix, each cell with its count and its share of the true class."""
    matrix = evaluation.confusion_matrix(labels, predictions)
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1) * 100
    figure, axes = plt.subplots(figsize=(9, 8), layout="constrained")
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares.numpy()):
        color = "white" if share > 50 else "black"
        text = f"{int(matrix[row, column])}\n{share:.1f}%"
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
    axes.set_xticks(range(len(data.CLASSES)), data.CLASSES, rotation=35, ha="right")
    axes.set_yticks(range(len(data.CLASSES)), data.CLASSES)
    axes.grid(False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the true class, %")
    plots.save(figure, path)


def draw_top_confusions(path, labels, predictions):
    """Draw the most frequent pairs of a true and a predicted class."""
    pairs = evaluation.top_confusions(evaluation.confusion_matrix(labels, predictions))[::-1]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    names = [f"{data.CLASSES[true]} → {data.CLASSES[prediction]}" for true, prediction, _ in pairs]
    bars = axes.barh(names, [count for *_, count in pairs], color="C1")
    axes.bar_label(bars, padding=2)
    axes.set(xlabel="Test images", title="Most frequent confusions: true → predicted")
    plots.save(figure, path)


def draw_misclassified(path, logits, test_set):
    """Draw the most confident errors, each with the probabilities of the predicted and the true class."""
    known = label_errors.known(test_set.labels)
    probabilities = F.softmax(logits.double(), -1)
    chosen = most_confident_errors(logits, test_set.labels, MISCLASSIFIED).tolist()
    figure, grid = plt.subplots(4, 5, figsize=(11, 10), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, chosen):
        true, prediction = int(test_set.labels[index]), int(logits[index].argmax())
        axes.imshow(test_set.images[index].permute(1, 2, 0).numpy())
        lines = [
            f"{role} {data.CLASSES[label]} {100 * float(probabilities[index, label]):.2f}%"
            for role, label in (("predicted", prediction), ("true", true))
        ]
        axes.set_title("\n".join(lines), fontsize=9, color="firebrick" if index in known else "black")
    if set(chosen) & set(known):
        figure.suptitle(LABEL_ERRORS_NOTE, color="firebrick")
    plots.save(figure, path)


def most_confident_errors(logits, labels, count):
    """Return the indices of the `count` wrong predictions with the highest probability, the highest first."""
    confidence, predictions = F.softmax(logits.double(), -1).max(-1)
    wrong = (predictions != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)][:count]


def draw_gradcam(path, model, weights, logits, test_set, layer=None):
    """Draw nine test images, their Grad-CAM for the predicted class, and both blended (2.5).

    Where the weights cannot be read or the network has no feature maps, one line is printed instead.

    Raises:
        UserError: the figure of a `layer` is asked for and cannot be drawn.
    """
    if not weights.exists():
        print(f"{weights.name} not found (weights are not committed); keeping the existing {path.name}")
        return
    chosen = torch.tensor(cam_samples(logits, test_set.labels))
    images, labels, predictions = test_set.images[chosen], test_set.labels[chosen], logits[chosen].argmax(1)
    try:
        network = load_network(model, weights)
        maps = gradcam.gradcam(network, data.normalize(images, data.CIFAR10_STATS), predictions, layer)
    except UserError as problem:
        if layer:
            raise
        print(f"no {path.name}: {problem}")
        return
    maps = gradcam.upsample(maps, images.shape[-2:])
    figure, grid = plt.subplots(3, len(chosen), figsize=(1.75 * len(chosen), 5.6), layout="constrained", squeeze=False)
    for column, (image, heat, label, prediction) in enumerate(zip(images, maps, labels.tolist(), predictions.tolist())):
        picture = image.permute(1, 2, 0)
        for axes in grid[:, column]:
            axes.axis("off")
        grid[0, column].imshow(picture.numpy())
        grid[1, column].imshow(heat.numpy(), cmap="jet", vmin=0, vmax=1)
        grid[2, column].imshow(gradcam_overlay(picture, heat).numpy())
        title = f"true {data.CLASSES[label]}\npredicted {data.CLASSES[prediction]}"
        grid[0, column].set_title(title, fontsize=9, color="black" if label == prediction else "firebrick")
    plots.save(figure, path)


def cam_samples(logits, labels):
    """Return the indices of the first correct image of each of six classes, and of the three most confident errors."""
    correct = logits.argmax(1) == labels
    firsts = []
    for label in range(len(data.CLASSES)):
        of_class = (correct & (labels == label)).nonzero()
        if len(of_class):
            firsts.append(int(of_class[0]))
    return firsts[: CAM_SAMPLES[0]] + most_confident_errors(logits, labels, CAM_SAMPLES[1]).tolist()


def gradcam_overlay(picture, heat, opacity=0.45):
    """Blend a picture, uint8 (H, W, 3), with its heat map (H, W) in 0..1; return float RGB (H, W, 3)."""
    colors = torch.from_numpy(plt.get_cmap("jet")(heat.numpy())[..., :3])
    return ((1 - opacity) * picture / 255 + opacity * colors).clamp(0, 1)
