"""What main.py measures of one network, and its tables as CSV and JSON (project 3's report, chapter 2)."""

import numpy as np
import torch
import torch.nn.functional as F

from common import data, evaluation, tables, training

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
    from sklearn.metrics import classification_report  # not at the top: --help would wait for it

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
