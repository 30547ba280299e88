"""Tables and figures of one network's seeds (project 3, chapter 2), drawn from its saved histories and logits.

Figures are of the first seed; tables that carry a ± are over all.
"""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import classification_report

from common import data, evaluation, plots, tables, training
from common.plots import plt
from project3_wrn.analysis import gradcam
from project3_wrn.method.losses import smoothing_floor

MISCLASSIFIED = 20
CAM_SAMPLES = (6, 3)  # right ones, wrong ones


def measure(seed, logits, labels, history, also):
    """The entry of one seed in metrics.json. Accuracies in per cent, losses in nats, ECE a fraction.

    logits, labels: {"test": ..., "val": ..., "train": ...} as tensors, those there are.

    With a validation accuracy there is `early_stopping_epoch`, after which the report's rule would have ended the
    training, None where it would not.
    """
    entry = {
        "seed": seed,
        "test_accuracy": float(evaluation.accuracy(logits["test"], labels["test"])),
        "test_loss": float(evaluation.cross_entropy(logits["test"], labels["test"])),
        "test_top5": float(evaluation.top_k(logits["test"], labels["test"])),
        "ece": float(evaluation.calibration(logits["test"], labels["test"])["ece"]),
    }
    for part in ("val", "train"):
        if part in logits:
            entry[f"{part}_accuracy"] = float(evaluation.accuracy(logits[part], labels[part]))
            entry[f"{part}_loss"] = float(evaluation.cross_entropy(logits[part], labels[part]))
    entry["best_epoch"] = int(history["kept_epoch"])
    entry["epochs"] = len(history["epoch_losses"])
    entry["training_seconds"] = round(float(history["seconds"].astype(float).sum()), 1)
    entry["compile_seconds"] = round(float(np.sum(history.get("compile_seconds", 0.0), dtype=float)), 1)
    if "val_accuracy" in history:
        entry["early_stopping_epoch"] = training.stopped_after(history["val_accuracy"])
    return entry | also


def training_history(history, lr):
    """What the report calls training_history.json: one list a quantity, one value an epoch.

    Losses are in nats, accuracies in per cent; `lr` is the learning rate in the epoch's last step (of a fast recipe: the filters').
    Where there is a validation accuracy, `early_stopping` has the report's rule and as `stops_after` the epoch, from 1,
    after which it would have ended the training, None where it would not; the training may have had another patience.
    """
    fields = {
        "train_loss": "epoch_losses",
        "train_accuracy": "train_accuracy",
        "val_loss": "val_loss",
        "val_accuracy": "val_accuracy",
        "lr": "lr",
        "seconds": "seconds",
    }
    history = history | {"lr": history["lr"] * lr}
    document = {name: [float(v) for v in history[field]] for name, field in fields.items() if field in history}
    if "val_accuracy" in history:
        rule = {"patience": training.EarlyStopping.patience, "min_delta": training.EarlyStopping.min_delta}
        document["early_stopping"] = rule | {"stops_after": training.stopped_after(history["val_accuracy"])}
    return document


def write_tables(out, name, scale, metrics, logits, labels):
    """performance.md, and as CSV the classification report, confusions and calibration, all of the first seed but the means."""
    test = torch.from_numpy(logits)
    predictions, labels = test.argmax(1), torch.from_numpy(labels)
    per_class = class_rows(labels, predictions)
    tables.write_csv(out / "classification_report.csv", per_class)
    counts = evaluation.confusion_matrix(labels, predictions).tolist()
    tables.write_csv(
        out / "confusion_matrix.csv",
        [{"true": name} | dict(zip(data.CLASSES, row)) for name, row in zip(data.CLASSES, counts)],
    )
    pairs = pair_rows(labels, predictions)
    tables.write_csv(out / "top_confusion_pairs.csv", pairs)
    bins = evaluation.calibration(test, labels)
    edges = torch.linspace(0, 1, len(bins["count"]) + 1)
    rows = [
        {"from": f"{low:.4f}", "to": f"{high:.4f}", "count": int(n), "confidence": f"{c:.4f}", "accuracy": f"{a:.4f}"}
        for low, high, n, c, a in zip(edges, edges[1:], bins["count"], bins["confidence"], bins["accuracy"])
    ]
    tables.write_csv(out / "calibration.csv", rows)

    seeds = f"{len(metrics)} seeds, mean ± standard deviation" if len(metrics) > 1 else "one seed"
    wrong = int((predictions != labels).sum())
    sections = [f"## Performance: {seeds}", overall_rows(metrics)]
    sections += [f"Seed {metrics[0]['seed']}: {len(labels) - wrong:,} of {len(labels):,} right, {wrong:,} wrong."]
    sections += stopping_note(metrics)
    sections += ["## Gap between training, validation and test (2.7)", gap_rows(metrics), *gap_note(metrics)]
    sections += ["## By class (2.3)", per_class]
    sections += ["## What is taken for what (2.4)", pairs, pair_note(labels, predictions)]
    sections += label_note(labels, predictions)
    tables.write_markdown(out / "performance.md", f"Project 3: {name}", sections, scale)


def overall_rows(metrics):
    fields = {
        "test accuracy, %": ("test_accuracy", 2),
        "test loss, nats": ("test_loss", 4),
        "top-5 accuracy, %": ("test_top5", 2),
        "expected calibration error": ("ece", 4),
        "validation accuracy, %": ("val_accuracy", 2),
        "best epoch": ("best_epoch", 0),
        "epochs": ("epochs", 0),
        "training, s": ("training_seconds", 1),
        "compiling before it, s": ("compile_seconds", 1),
    }
    rows = [
        {"quantity": name, "value": tables.mean_std([entry[field] for entry in metrics], digits)}
        for name, (field, digits) in fields.items()
        if field in metrics[0] and (field != "best_epoch" or "val_accuracy" in metrics[0])  # else none is chosen
    ]
    rows += [{"quantity": "parameters", "value": f"{metrics[0]['parameters']:,}"}]
    return [*rows, {"quantity": "FLOPs of an image, forward", "value": f"{metrics[0]['flops']:,}"}]


def stopping_note(metrics):
    """Tell after which epoch the report's early stopping would have ended each training (1.6), as a list of sentences.

    It is empty where there is no validation.
    """
    ends = []
    for entry in metrics:
        if "early_stopping_epoch" in entry:
            epoch = entry["early_stopping_epoch"]
            told = f"after epoch {epoch}" if epoch else f"not within its {entry['epochs']} epochs"
            ends.append(f"seed {entry['seed']} {told}")
    rule = f"patience {training.EarlyStopping.patience}, min_delta {training.EarlyStopping.min_delta}"
    words = "The kept epoch is that of the highest validation accuracy."
    words += f" The report's early stopping ({rule}) would have ended the training: {'; '.join(ends)}."
    return [words] if ends else []


def gap_rows(metrics):
    parts = [part for part in ("train", "val", "test") if f"{part}_accuracy" in metrics[0]]
    return [
        {
            "part": part,
            "accuracy, %": tables.mean_std([entry[f"{part}_accuracy"] for entry in metrics]),
            "loss, nats": tables.mean_std([entry[f"{part}_loss"] for entry in metrics], 4),
        }
        for part in parts
    ]


def gap_note(metrics):
    gap = np.mean([entry["train_accuracy"] - entry["test_accuracy"] for entry in metrics])
    return [
        f"All in evaluation mode, plain cross-entropy, no augmentation. Training is {gap:.2f} points above test; the report's gap is 96.8 - 95.39 = 1.4, but its 96.8 is a running mean over augmented batches."
    ]


def class_rows(labels, predictions):
    """scikit-learn's classification report, a row a class and one each for accuracy and the two averages."""
    report = classification_report(
        labels, predictions, labels=range(10), target_names=data.CLASSES, output_dict=True, zero_division=0
    )
    report.setdefault("accuracy", float((labels == predictions).float().mean()))
    rows = []
    for name, values in report.items():
        if name == "accuracy":
            rows.append({"class": name, "precision": "", "recall": "", "f1": f"{values:.4f}", "support": len(labels)})
        else:
            shown = {key: f"{values[field]:.4f}" for key, field in (("precision", "precision"), ("recall", "recall"))}
            rows.append({"class": name, **shown, "f1": f"{values['f1-score']:.4f}", "support": int(values["support"])})
    return rows


def pair_rows(labels, predictions):
    support = torch.bincount(labels, minlength=10)
    return [
        {
            "true": data.CLASSES[true],
            "predicted": data.CLASSES[prediction],
            "count": count,
            "% of the class": f"{100 * count / int(support[true]):.1f}",
        }
        for true, prediction, count in evaluation.top_confusions(evaluation.confusion_matrix(labels, predictions))
    ]


def pair_note(labels, predictions):
    """The report's three pairs of classes (3.1), both ways."""
    matrix = evaluation.confusion_matrix(labels, predictions)
    index = {name: position for position, name in enumerate(data.CLASSES)}
    words = []
    for one, other in (("cat", "dog"), ("automobile", "truck"), ("bird", "deer")):
        there, back = matrix[index[one], index[other]], matrix[index[other], index[one]]
        words.append(f"{one} for {other} {int(there)}, {other} for {one} {int(back)}")
    return "The report's pairs: " + "; ".join(words) + "."


def draw(out, history, recipe, logits, labels):
    """The figures that need no images."""
    test, labels = torch.from_numpy(logits), torch.from_numpy(labels)
    predictions = test.argmax(1)
    draw_training(out / "training_curves.png", history, recipe)
    draw_confusion(out / "confusion_matrix.png", evaluation.confusion_matrix(labels, predictions))
    draw_classes(out / "per_class_accuracy.png", labels, predictions)
    draw_pairs(out / "top_confusion_pairs.png", labels, predictions)
    draw_confidence(out / "confidence.png", test, labels)


def draw_training(path, history, recipe):
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    epochs, best = np.arange(1, len(history["epoch_losses"]) + 1), int(history["kept_epoch"])
    marker = "o-" if len(epochs) < 20 else "-"
    if recipe["label_smoothing"] and recipe["loss"] == "cross_entropy":
        floor = smoothing_floor(recipe["label_smoothing"])
        left.axhline(
            floor,
            color="grey",
            linestyle=":",
            label=f"Least possible with smoothed labels: {floor:.2f}",
        )
    for axes, train, validation in (
        (left, "epoch_losses", "val_loss"),
        (middle, "train_accuracy", "val_accuracy"),
    ):
        axes.plot(epochs, history[train], marker, label="Training (augmented batches)")
        if validation in history:
            axes.plot(epochs, history[validation], marker, label="Validation")
            value = history[validation][best - 1]
            axes.plot(best, value, "k*", markersize=10, label=f"Best epoch: {best}")
        axes.legend()
    left.set(title="Loss", ylabel="Loss, nats")
    middle.set(title="Accuracy", ylabel="Accuracy, %")
    right.plot(epochs, history["lr"] * recipe["lr"], marker)
    right.set(title="Learning rate in the epoch's last step", ylabel="Learning rate")
    for axes in (left, middle, right):
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(plots.matplotlib.ticker.MaxNLocator(integer=True))
    plots.save(figure, path)


def draw_confusion(path, matrix):
    figure, axes = plt.subplots(figsize=(9, 8), layout="constrained")
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1) * 100
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    for row in range(10):
        for column in range(10):
            share = float(shares[row, column])
            axes.text(
                column,
                row,
                f"{int(matrix[row, column])}\n{share:.1f}%",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if share > 50 else "black",
            )
    names = [name for name in data.CLASSES]
    axes.set_xticks(range(10), names, rotation=35, ha="right")
    axes.set_yticks(range(10), names)
    axes.grid(False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the true class, %")
    plots.save(figure, path)


def draw_classes(path, labels, predictions):
    """Recall of each class: the report calls it the class's accuracy."""
    matrix = evaluation.confusion_matrix(labels, predictions)
    recall = (matrix.diagonal() / matrix.sum(1).clamp(min=1) * 100).tolist()
    overall = float((labels == predictions).float().mean() * 100)
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    order = sorted(range(10), key=lambda index: -recall[index])
    bars = axes.bar([data.CLASSES[i] for i in order], [recall[i] for i in order], color="C0")
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.axhline(overall, color="C3", linestyle="--", label=f"All classes: {overall:.2f}")
    axes.set_ylim(max(0, min(recall) - 8), 100.5)  # cut off below, so that differences of a point are seen
    axes.set(ylabel="Test accuracy, %")
    axes.tick_params(axis="x", rotation=25)
    axes.legend()
    plots.save(figure, path)


def draw_pairs(path, labels, predictions):
    pairs = evaluation.top_confusions(evaluation.confusion_matrix(labels, predictions))[::-1]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    words = [f"{data.CLASSES[true]} → {data.CLASSES[prediction]}" for true, prediction, _ in pairs]
    bars = axes.barh(words, [count for *_, count in pairs], color="C1")
    axes.bar_label(bars, padding=2)
    axes.set(xlabel="Test images", title="Most frequent confusions: true → predicted")
    plots.save(figure, path)


def draw_confidence(path, logits, labels):
    """Section 2.4's confidence analysis: how sure the network is when right and when wrong, and whether it may be."""
    confidence, predictions = F.softmax(logits.double(), -1).max(-1)
    right = predictions == labels
    bins = evaluation.calibration(logits, labels)
    figure, (histogram, reliability) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    edges = np.linspace(0, 1, 31)
    histogram.hist(
        [confidence[right], confidence[~right]],
        edges,
        stacked=False,
        label=["Right", "Wrong"],
        log=True,
    )
    histogram.set(xlabel="Highest probability", ylabel="Test images")
    histogram.legend(loc="upper left")
    there = bins["count"] > 0
    count = len(there)
    middles = (torch.arange(count) + 0.5) / count
    reliability.bar(middles[there], bins["accuracy"][there], 1 / count, edgecolor="white", label="Accuracy")
    reliability.plot([0, 1], [0, 1], "k--", linewidth=1, label="Perfectly calibrated")
    reliability.plot(
        bins["confidence"][there],
        bins["accuracy"][there],
        "C3o",
        markersize=4,
        label="Mean confidence of the bin",
    )
    reliability.set(
        xlabel="Highest probability",
        ylabel="Share right",
        title=f"ECE {float(bins['ece']):.4f}",
    )
    reliability.legend(loc="upper left")
    plots.save(figure, path)


def most_confident_errors(logits, labels, count=MISCLASSIFIED):
    """Indices of the wrong ones, the surest first."""
    confidence, predictions = F.softmax(logits.double(), -1).max(-1)
    wrong = (predictions != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)][:count]


def label_note(labels, predictions):
    """How many of the errors are the label's, as far as people have looked (2.6)."""
    known = torch.tensor(data.label_errors(labels), dtype=torch.int64)
    if not len(known):
        return []
    wrong = int((predictions != labels).sum())
    found = int((predictions[known] != labels[known]).sum())
    return [
        "## Errors of the labels (2.6)",
        f"People have found {len(known)} of the {len(labels):,} test labels wrong (arXiv 2103.14749). {found} of these are among "
        f"the {wrong:,} errors; those of them that misclassified_samples.png shows are red. Nothing is left out of the accuracy.",
    ]


def draw_misclassified(path, logits, test):
    """The most confident errors, each with the probability of what it was taken for and of what it is."""
    known = data.label_errors(test.labels)
    logits = torch.from_numpy(logits)
    probabilities = F.softmax(logits.double(), -1)
    chosen = most_confident_errors(logits, test.labels)
    figure, grid = plt.subplots(4, 5, figsize=(11, 10), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, chosen.tolist()):
        true, prediction = int(test.labels[index]), int(logits[index].argmax())
        axes.imshow(test.images[index].permute(1, 2, 0).numpy())
        named = [
            f"{word} {data.CLASSES[label]} {100 * float(probabilities[index, label]):.2f}%"
            for word, label in (("taken for", prediction), ("is", true))
        ]
        axes.set_title("\n".join(named), fontsize=9, color="firebrick" if index in known else "black")
    if set(chosen.tolist()) & {*known}:
        figure.suptitle("Red: people have found the label wrong (arXiv 2103.14749)", color="firebrick")
    plots.save(figure, path)


def cam_samples(logits, labels):
    """Indices of nine test images: the first right one of each of six classes, and the three most confident errors."""
    right = logits.argmax(1) == labels
    firsts = [int((right & (labels == label)).nonzero()[0]) for label in range(10) if (right & (labels == label)).any()]
    return firsts[: CAM_SAMPLES[0]] + most_confident_errors(logits, labels, CAM_SAMPLES[1]).tolist()


def draw_gradcam(path, model, logits, test, layer=None):
    """Image, map and both, for the class each image is taken for (section 2.5)."""
    logits = torch.from_numpy(logits)
    chosen = torch.tensor(cam_samples(logits, test.labels))
    images, labels, predictions = test.images[chosen], test.labels[chosen], logits[chosen].argmax(1)
    device = next(model.parameters()).device
    maps = gradcam.gradcam(model, data.normalize(images.to(device), data.CIFAR10_STATS), predictions, layer)
    maps = gradcam.upsample(maps, images.shape[-2:]).cpu()
    figure, grid = plt.subplots(3, len(chosen), figsize=(1.75 * len(chosen), 5.6), layout="constrained", squeeze=False)
    for column, (image, heat, label, prediction) in enumerate(zip(images, maps, labels.tolist(), predictions.tolist())):
        picture = image.permute(1, 2, 0)
        for axes in grid[:, column]:
            axes.axis("off")
        grid[0, column].imshow(picture.numpy())
        grid[1, column].imshow(heat.numpy(), cmap="jet", vmin=0, vmax=1)
        grid[2, column].imshow(gradcam_overlay(picture, heat).numpy())
        words = [f"is {data.CLASSES[label]}"]
        words += [f"taken for {data.CLASSES[prediction]}"]
        grid[0, column].set_title("\n".join(words), fontsize=9, color="black" if label == prediction else "firebrick")
    plots.save(figure, path)


def gradcam_overlay(picture, heat, opacity=0.45):
    """A picture uint8 (H, W, 3) under its heat map (H, W) of 0..1: float RGB (H, W, 3)."""
    colors = torch.from_numpy(plt.get_cmap("jet")(heat.numpy())[..., :3])
    return ((1 - opacity) * picture / 255 + opacity * colors).clamp(0, 1)
