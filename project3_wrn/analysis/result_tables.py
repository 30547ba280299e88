"""The tables and sentences about one network that main.py writes (project 3's report, chapter 2).

Tables with a ± are over all seeds, the others are of the first one.
"""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import classification_report

from common import data, evaluation, reported, tables, training
from project3_wrn.analysis import label_errors

CONFIDENT_ERRORS = 20  # the report looks at this number of the most confident errors
OVERALL = {  # quantity: field of metrics.json, decimals
    "test accuracy, %": ("test_accuracy", 2),
    "test loss, nats": ("test_loss", 4),
    "top-5 accuracy, %": ("test_top5", 2),
    "expected calibration error": ("ece", 4),
    "validation accuracy, %": ("val_accuracy", 2),
    "best epoch": ("best_epoch", 0),
    "epochs": ("epochs", 0),
    "training, s": ("training_seconds", 1),
    "compilation before it, s": ("compile_seconds", 1),
}


# --- of one run ---


def metrics_entry(seed, result, labels):
    """Return a run's entry in metrics.json: accuracies in per cent, losses in nats, ECE as a fraction.

    result: as `runner.train_runs` returns it. labels: {"test": (N,), "val": (N,) with a validation split}.

    With a validation accuracy there is `early_stopping_epoch`, after which the report's rule would have ended the
    training; None where it would not have.
    """
    logits = {name: torch.from_numpy(result[f"{name}_logits"]) for name in labels}
    entry = {
        "seed": seed,
        "test_accuracy": float(evaluation.accuracy(logits["test"], labels["test"])),
        "test_loss": float(evaluation.cross_entropy(logits["test"], labels["test"])),
        "test_top5": float(evaluation.top_k(logits["test"], labels["test"])),
        "ece": float(evaluation.calibration(logits["test"], labels["test"])["ece"]),
    }
    if "val" in labels:
        entry["val_accuracy"] = float(evaluation.accuracy(logits["val"], labels["val"]))
        entry["val_loss"] = float(evaluation.cross_entropy(logits["val"], labels["val"]))
    entry["train_accuracy"] = float(result["clean_train_accuracy"])
    entry["train_loss"] = float(result["clean_train_loss"])
    entry["best_epoch"] = int(result["kept_epoch"])
    entry["epochs"] = len(result["epoch_losses"])
    entry["training_seconds"] = round(tables.training_seconds(result), 1)
    entry["compile_seconds"] = round(float(np.sum(result.get("compile_seconds", 0.0), dtype=float)), 1)
    if "val_accuracy" in result:
        entry["early_stopping_epoch"] = training.stopped_after(result["val_accuracy"])
    return entry


def training_history(history, lr):
    """Return what the report calls training_history.json: one list per quantity, one value per epoch.

    Losses are in nats, accuracies in per cent; `lr` is the learning rate in the epoch's last step (with a fast recipe,
    the filters'). With a validation accuracy, `early_stopping` has the report's rule and as `stops_after` the epoch,
    from 1, after which it would have ended the training; None where it would not have. The patience of the training
    itself may differ.
    """
    fields = {
        "train_loss": "epoch_losses",
        "train_accuracy": "train_accuracy",
        "val_loss": "val_loss",
        "val_accuracy": "val_accuracy",
        "lr": "lr",
        "seconds": "seconds",
    }
    history = {**history, "lr": history["lr"] * lr}
    document = {name: [float(v) for v in history[field]] for name, field in fields.items() if field in history}
    if "val_accuracy" in history:
        document["early_stopping"] = {
            "patience": training.EarlyStopping.patience,
            "min_delta": training.EarlyStopping.min_delta,
            "stops_after": training.stopped_after(history["val_accuracy"]),
        }
    return document


def smoothing_floor(recipe):
    """Return the least loss that a recipe's label smoothing allows, in nats; None where its loss is not cross-entropy.

    This is the entropy of a smoothed label: 0.50 nats for a smoothing of 0.1 and ten classes.
    """
    if recipe["loss"] != "cross_entropy" or not recipe["label_smoothing"]:
        return None
    classes = len(data.CLASSES)
    label = torch.full((classes,), recipe["label_smoothing"] / classes, dtype=torch.float64)
    label[0] += 1 - recipe["label_smoothing"]
    return float(torch.special.entr(label).sum())


def most_confident_errors(logits, labels, count):
    """Return the indices of the `count` wrong predictions with the highest probability, the highest first."""
    confidence, predictions = F.softmax(logits.double(), -1).max(-1)
    wrong = (predictions != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)][:count]


def count_confusions(labels, predictions):
    """Return the confusion matrix of each seed, (S, 10, 10), for labels (N,) and predictions (S, N)."""
    return torch.stack([evaluation.confusion_matrix(labels, row) for row in predictions])


def percent(probability):
    """Format a probability in whole per cent: >99% and <1% where rounding would make it certain."""
    rounded = round(100 * float(probability))
    return ">99%" if rounded == 100 else "<1%" if rounded == 0 else f"{rounded}%"


# --- the CSV files ---


def class_rows(labels, predictions):
    """Return scikit-learn's classification report: one row per class, and one for accuracy and for each average."""
    report = classification_report(
        labels,
        predictions,
        labels=range(len(data.CLASSES)),
        target_names=data.CLASSES,
        output_dict=True,
        zero_division=0,
    )
    report.setdefault("accuracy", float((labels == predictions).float().mean()))
    rows = []
    for name, values in report.items():
        if name == "accuracy":
            rows.append({"class": name, "precision": "", "recall": "", "f1": f"{values:.4f}", "support": len(labels)})
        else:
            rows.append(
                {
                    "class": name,
                    "precision": f"{values['precision']:.4f}",
                    "recall": f"{values['recall']:.4f}",
                    "f1": f"{values['f1-score']:.4f}",
                    "support": int(values["support"]),
                }
            )
    return rows


def calibration_rows(logits, labels):
    """Return one row per bin of confidence: its limits, its images, their mean confidence and accuracy."""
    bins = evaluation.calibration(logits, labels)
    edges = torch.linspace(0, 1, len(bins["count"]) + 1)
    return [
        {"from": f"{low:.4f}", "to": f"{high:.4f}", "count": int(n), "confidence": f"{c:.4f}", "accuracy": f"{a:.4f}"}
        for low, high, n, c, a in zip(edges, edges[1:], bins["count"], bins["confidence"], bins["accuracy"])
    ]


def confusion_rows(labels, predictions):
    """Return the confusion matrix, one row per true class."""
    counts = evaluation.confusion_matrix(labels, predictions).tolist()
    return [{"true": name, **dict(zip(data.CLASSES, row))} for name, row in zip(data.CLASSES, counts)]


def pair_rows(labels, predictions):
    """Return the most frequent confusions, one row per pair of a true and a predicted class."""
    support = torch.bincount(labels, minlength=len(data.CLASSES))
    return [
        {
            "true": data.CLASSES[true],
            "predicted": data.CLASSES[prediction],
            "count": count,
            "% of the class": f"{100 * count / int(support[true]):.1f}",
        }
        for true, prediction, count in evaluation.top_confusions(evaluation.confusion_matrix(labels, predictions))
    ]


# --- performance.md ---


def performance(metrics, histories, logits, labels, recipe):
    """Return the sections of performance.md, as `tables.write_markdown` takes them.

    metrics: one entry per seed, as in metrics.json. histories: one per seed. logits: (S, N, 10), of the test images,
    whose labels are `labels` (N,). recipe: its fields.
    """
    seeds = f"{len(metrics)} seeds, mean ± standard deviation" if len(metrics) > 1 else "one seed"
    first, predictions = metrics[0]["seed"], logits.argmax(-1)
    wrong = int((predictions[0] != labels).sum())
    return [
        f"## Performance: {seeds}",
        overall_rows(metrics),
        f"Seed {first}: {len(labels) - wrong:,} of {len(labels):,} correct, {wrong:,} wrong.",
        *stopping_note(metrics),
        calibration_note(metrics, logits, recipe),
        "## The report's phases of training (2.1)",
        *phase_section(histories),
        "## Gap between training, validation and test (2.7)",
        gap_rows(metrics),
        gap_note(metrics),
        f"## By class, seed {first} (2.3)",
        class_rows(labels, predictions[0]),
        f"## Most frequent confusions, seed {first} (2.4)",
        pair_rows(labels, predictions[0]),
        f"## The report's confusions: {seeds} (2.4)",
        reported_pair_rows(labels, predictions),
        f"## The most confident errors, seed {first} (2.4)",
        confident_note(logits[0], labels),
        *label_note(labels, predictions[0]),
    ]


def overall_rows(metrics):
    """Return one row per quantity, with its mean and standard deviation over the seeds."""
    rows = [
        {"quantity": name, "value": tables.mean_std([entry[field] for entry in metrics], digits)}
        for name, (field, digits) in OVERALL.items()
        # without validation no epoch is selected
        if field in metrics[0] and (field != "best_epoch" or "val_accuracy" in metrics[0])
    ]
    return [
        *rows,
        {"quantity": "parameters", "value": f"{metrics[0]['parameters']:,}"},
        {"quantity": "FLOPs of one image's forward pass", "value": f"{metrics[0]['flops']:,}"},
    ]


def stopping_note(metrics):
    """Return, as a list, the sentences on when the report's early stopping would have ended each training (1.6).

    The list is empty where there is no validation.
    """
    ends = []
    for entry in metrics:
        if "early_stopping_epoch" in entry:
            epoch = entry["early_stopping_epoch"]
            end = f"after epoch {epoch}" if epoch else f"not within its {entry['epochs']} epochs"
            ends.append(f"seed {entry['seed']} {end}")
    if not ends:
        return []
    rule = f"patience {training.EarlyStopping.patience}, min_delta {training.EarlyStopping.min_delta}"
    return [
        "The kept epoch is the one with the highest validation accuracy."
        f" The report's early stopping ({rule}) would have ended the training: {'; '.join(ends)}."
    ]


def gap_rows(metrics):
    """Return one row per split, with accuracy and loss over the seeds."""
    return [
        {
            "split": name,
            "accuracy, %": tables.mean_std([entry[f"{name}_accuracy"] for entry in metrics]),
            "loss, nats": tables.mean_std([entry[f"{name}_loss"] for entry in metrics], 4),
        }
        for name in ("train", "val", "test")
        if f"{name}_accuracy" in metrics[0]
    ]


def gap_note(metrics):
    """Return the sentences on how far training accuracy is above test accuracy, here and in the report."""
    train, test = reported.CHAPTER_2["train"], reported.CHAPTER_2["test"]
    gap = np.mean([entry["train_accuracy"] - entry["test_accuracy"] for entry in metrics])
    return (
        "All values are in evaluation mode: plain cross-entropy, no augmentation."
        f" Training accuracy is {gap:.2f} points above test accuracy. The report's gap is {train} - {test} ="
        f" {train - test:.1f}, but its {train} is a running mean over augmented batches."
    )


def calibration_note(metrics, logits, recipe):
    """Return the sentences on what the expected calibration error is, and on which side of calibration it lies."""
    confidence = 100 * float(F.softmax(logits.double(), -1).amax(-1).mean())
    accuracy = float(np.mean([entry["test_accuracy"] for entry in metrics]))
    side = "underconfident" if confidence < accuracy else "overconfident"
    note = (
        "The expected calibration error is the mean distance between confidence, the highest probability, and accuracy"
        f" in {evaluation.CALIBRATION_BINS} equal bins of confidence, weighted by their images. Mean confidence is"
        f" {confidence:.1f}% and accuracy {accuracy:.1f}%: the network is {side} by {abs(confidence - accuracy):.1f}"
        " points."
    )
    smoothing = recipe["label_smoothing"]
    if side == "overconfident" or not smoothing:
        return note
    target = 100 * (1 - smoothing + smoothing / len(data.CLASSES))
    learned = 100 * float(np.exp(-np.mean([entry["train_loss"] for entry in metrics])))
    train_accuracy = np.mean([entry["train_accuracy"] for entry in metrics])
    return (
        f"{note} Its training leads to this: label smoothing of {smoothing:g} asks for {target:.1f}% at the label of"
        f" every image, and on the training images, {train_accuracy:.1f}% of which it gets right, the geometric mean of"
        f" the label's probability is {learned:.1f}%."
    )


def phase_section(histories):
    """Return a caption and one row per phase of the report: loss and accuracy of training at its last epoch.

    A training of another length is cut at the same shares of its epochs. A training of fewer epochs than phases has no
    table.
    """
    length, ours = reported.PHASES[-1][1], max(len(history["epoch_losses"]) for history in histories)
    if ours < len(reported.PHASES):
        return ["This training is shorter than three epochs."]
    ends = [max(1, round(last / length * ours)) for _, last in reported.PHASES]
    rows = []
    for report_epoch, epoch in ((1, 1), *zip((last for _, last in reported.PHASES), ends)):
        loss, accuracy = reported.TRAINING[report_epoch]
        done = [history for history in histories if len(history["epoch_losses"]) >= epoch]
        rows.append(
            {
                "report: after epoch": report_epoch,
                "ours: after epoch": epoch,
                "report: training loss": f"{loss:.2f}",
                "ours: training loss": tables.mean_std([history["epoch_losses"][epoch - 1] for history in done], 3),
                "report: training accuracy, %": accuracy,
                "ours: training accuracy, %": tables.mean_std([h["train_accuracy"][epoch - 1] for h in done], 1),
            }
        )
    phases = ", ".join(f"{first} to {last}" for first, last in reported.PHASES)
    same = "" if ours == length else f" This training has {ours} epochs, which are cut at the same shares."
    return [
        f"The report names the epochs {phases}.{same} Loss and accuracy are those of the augmented training batches.",
        rows,
    ]


def reported_pair_rows(labels, predictions):
    """Return one row per confusion that the report counts: its number and ours over the seeds.

    predictions: (S, N).
    """
    matrices = count_confusions(labels, predictions)
    return [
        {
            "true": true,
            "predicted": other,
            "report": count,
            "ours": tables.mean_std(matrices[:, data.CLASSES.index(true), data.CLASSES.index(other)], 1),
        }
        for (true, other), count in reported.CONFUSIONS.items()
    ]


def confident_note(logits, labels):
    """Return the sentences on the most confident errors: which pairs of classes they are of, and the highest."""
    chosen = most_confident_errors(logits, labels, CONFIDENT_ERRORS)
    if not len(chosen):
        return "There is no error."
    predictions, probabilities = logits.argmax(-1), F.softmax(logits.double(), -1)
    pairs = [{data.CLASSES[labels[index]], data.CLASSES[predictions[index]]} for index in chosen]
    counts = {pair: pairs.count(set(pair)) for pair in reported.CONFIDENT_PAIRS}
    both = sum(counts.values())
    listed = " and ".join(f"{count} confuse {one} and {other}" for (one, other), count in counts.items())
    verdict = f"{both} together, {'most' if 2 * both > len(chosen) else 'not most'} of them (the report: most)"
    first = int(chosen[0])
    true, predicted = int(labels[first]), int(predictions[first])
    theirs = " and ".join(f"{value}% for {name}" for name, value in reported.CONFIDENT_ERROR.items())
    highest, own = (100 * float(probabilities[first, label]) for label in (predicted, true))
    return (
        f"Of the {len(chosen)} most confident errors, {listed}: {verdict}. In the most confident one"
        f" {data.CLASSES[true]} is taken for {data.CLASSES[predicted]} with {highest:.2f}%, and the true class has"
        f" {own:.2f}%. The report's example, a cat, has {theirs}."
    )


def label_note(labels, predictions):
    """Return a heading and sentences on how many of the errors are known label errors (2.6); empty if none is known."""
    known = torch.tensor(label_errors.known(labels), dtype=torch.int64)
    if not len(known):
        return []
    wrong = int((predictions != labels).sum())
    among = int((predictions[known] != labels[known]).sum())
    return [
        "## Label errors (2.6)",
        f"People found {len(known)} of the {len(labels):,} test labels to be wrong (arXiv 2103.14749). {among} of them"
        f" are among the {wrong:,} errors; misclassified_samples.png shows theirs in red."
        " No image is left out of the accuracy.",
    ]
