"""The page that main.py writes about one network (project 3's report, chapter 2).

Tables with a ± are over all seeds, the others are of the first one. `predictions` is (S, N), one row per seed, and
`labels` (N,) are those of the test set.
"""

import numpy as np
import torch
import torch.nn.functional as F

from common import data, evaluation, plots, reported, tables, training
from common.support.translations import label, text
from project3_wrn.analysis import figures, label_errors
from project3_wrn.analysis.result_tables import class_rows, count_confusions, most_confident_errors, pair_rows

CONFIDENT_ERRORS = 20  # the report looks at this number of the most confident errors
LARGE_ECE = 0.05  # above this expected calibration error the page says what it means and where it comes from
OVERALL = {  # quantity: field of metrics.json, decimals
    "test accuracy, %": ("test_accuracy", 2),
    "test loss, nats": ("test_loss", 4),
    "top-5 accuracy, %": ("test_top5", 2),
    "expected calibration error": ("ece", 4),
    "validation accuracy, %": ("val_accuracy", 2),
    "kept epoch": ("best_epoch", 0),
    "epochs of training": ("epochs", 0),
    "training, s": ("training_seconds", 1),
    "compilation before the training, s": ("compile_seconds", 1),
}
SPLITS = {"train": "training set", "val": "validation set", "test": "test set"}
PAIR = "pair (true → predicted)"


def sections(model, metrics, histories, logits, labels, recipe, gradcam=True):
    """Return the sections of performance.md, as `tables.write_markdown` takes them.

    metrics: one entry per seed, as in metrics.json. histories: one per seed. logits: (S, N, 10), of the test images,
    whose labels are `labels` (N,). recipe: its fields. gradcam: whether the folder has that figure.
    """
    first, predictions = metrics[0]["seed"], logits.argmax(-1)
    values = {"first": first, "seeds": label(plots.count(len(metrics), "seed"))}
    return [
        finding(model, metrics),
        tables.figure("per_class_accuracy.png", "Test accuracy of each class", class_caption(labels, predictions)),
        tables.figure(
            "top_confusion_pairs.png", "Most frequent confusions: true → predicted", pair_caption(labels, predictions)
        ),
        *([gradcam_figure(logits[0], labels)] if gradcam else []),
        text("## Performance: {seeds}", **values),
        overall_rows(metrics),
        count_note(first, labels, predictions[0]),
        text("## Training (2.1)"),
        tables.figure("training_curves.png", "Training, epoch by epoch", training_caption(metrics[0], histories[0])),
        *phase_section(histories),
        *stopping_section(metrics),
        text("## Gap between training, validation and test (2.7)"),
        gap_rows(metrics),
        gap_note(metrics),
        text("## Calibration (2.4)"),
        confidence_figure(first, logits[0], labels),
        calibration_note(metrics, logits, recipe),
        text("## Classes of seed {first} (2.3)", **values),
        class_table(labels, predictions[0]),
        text("## Confusions of seed {first} (2.4)", **values),
        matrix_figure(first, labels, predictions[0]),
        pair_table(labels, predictions[0]),
        text("## The report's confusions: {seeds} (2.4)", **values),
        reported_pair_rows(labels, predictions),
        text("## The most confident errors of seed {first} (2.4)", **values),
        errors_figure(logits[0], labels),
        confident_note(logits[0], labels),
        *label_note(labels, predictions[0]),
    ]


def finding(model, metrics):
    """Return the sentences on the test accuracy, how far from the report's it is, and what the training costs."""
    test = [entry["test_accuracy"] for entry in metrics]
    first = text(
        "**{model} reaches a test accuracy of {accuracy}%, mean ± standard deviation over {count} seeds.**"
        if len(test) > 1
        else "**{model} reaches a test accuracy of {accuracy}% with {count} seed.**",
        model=label(model),
        accuracy=tables.mean_std(test),
        count=len(test),
    )
    if model in reported.NETWORKS:
        value = reported.NETWORKS[model][-1]
        points = np.mean(test) - value
        second = text(
            "This is {points:.2f} points above the report's {value:.2f}% for this network."
            if points >= 0
            else "This is {points:.2f} points below the report's {value:.2f}% for this network.",
            points=abs(points),
            value=value,
        )
    else:
        second = text(
            "The report's table 1.7 does not have this network; the network of its chapter 2 reaches {value:.2f}%.",
            value=reported.CHAPTER_2_ACCURACY,
        )
    third = text(
        "The network has {parameters:,} parameters, and one training takes {seconds} s.",
        parameters=metrics[0]["parameters"],
        seconds=tables.mean_std([entry["training_seconds"] for entry in metrics], 0),
    )
    return tables.paragraph(first, second, third)


# --- the captions of figures ---


def class_caption(labels, predictions):
    """Return the sentence on which class is recognized most and least often."""
    counts = count_confusions(labels, predictions).double()
    recall = (100 * counts.diagonal(dim1=1, dim2=2) / counts.sum(2).clamp(min=1)).mean(0)
    return text(
        "The network recognizes {low} least often ({lowest:.1f}%) and {high} most often ({highest:.1f}%); the bars are"
        " one standard deviation over {seeds}, and the hollow marks are the report's numbers."
        if len(predictions) > 1
        else "The network recognizes {low} least often ({lowest:.1f}%) and {high} most often ({highest:.1f}%, {seeds});"
        " the hollow marks are the report's numbers.",
        low=class_name(int(recall.argmin())),
        high=class_name(int(recall.argmax())),
        lowest=float(recall.min()),
        highest=float(recall.max()),
        seeds=label(plots.count(len(predictions), "seed")),
    )


def pair_caption(labels, predictions):
    """Return the sentence on the most frequent confusion over the seeds."""
    matrices = count_confusions(labels, predictions)
    true, predicted, total = evaluation.top_confusions(matrices.sum(0))[0]
    return text(
        "The most frequent confusion is {true} → {predicted}, with {count:.1f} test images on average; the bars are"
        " one standard deviation over {seeds}, and the hollow marks are the report's counts."
        if len(predictions) > 1
        else "The most frequent confusion is {true} → {predicted}, with {count:.0f} test images ({seeds}); the"
        " hollow marks are the report's counts.",
        true=class_name(true),
        predicted=class_name(predicted),
        count=total / len(predictions),
        seeds=label(plots.count(len(predictions), "seed")),
    )


def gradcam_figure(logits, labels):
    """Return the lines that show the Grad-CAM, with the number of its images that are predicted wrongly."""
    chosen = figures.cam_samples(logits, labels)
    wrong = int((logits[chosen].argmax(1) != labels[chosen]).sum())
    caption = text(
        "Bright pixels raise the score of the predicted class most; {right} of the {count} images are predicted"
        " correctly, and the other {wrong} have a red title.",
        right=len(chosen) - wrong,
        count=len(chosen),
        wrong=wrong,
    )
    return tables.figure("gradcam_visualization.png", "Where the network looks", caption)


def training_caption(metrics, history):
    """Return the sentence on the accuracy of training in the first and the last epoch, and that of the test."""
    return text(
        "The training accuracy is {first:.1f}% in epoch 1 and {last:.1f}% in epoch {epochs}; the weights that are"
        " kept reach {test:.2f}% on the test set (seed {seed}).",
        first=history["train_accuracy"][0],
        last=history["train_accuracy"][-1],
        epochs=len(history["train_accuracy"]),
        test=metrics["test_accuracy"],
        seed=metrics["seed"],
    )


def confidence_figure(seed, logits, labels):
    """Return the lines that show the confidence of one seed, with the side of calibration that it is on."""
    confidence = float(F.softmax(logits.double(), -1).amax(-1).mean())
    accuracy = float((logits.argmax(-1) == labels).double().mean())
    caption = text(
        "With seed {seed} the network is right more often than its confidence says: its mean confidence is"
        " {confidence:.1f}%, its accuracy {accuracy:.1f}%, and the hatched gaps have a weighted mean of {ece:.3f}."
        if confidence < accuracy
        else "With seed {seed} the network is right less often than its confidence says: its mean confidence is"
        " {confidence:.1f}%, its accuracy {accuracy:.1f}%, and the hatched gaps have a weighted mean of {ece:.3f}.",
        seed=seed,
        confidence=100 * confidence,
        accuracy=100 * accuracy,
        ece=float(evaluation.calibration(logits, labels)["ece"]),
    )
    return tables.figure("confidence.png", "Confidence and accuracy on the test set", caption)


def matrix_figure(seed, labels, predictions):
    """Return the lines that show the confusion matrix, with the errors that stay among vehicles or among animals."""
    vehicles = torch.tensor([name in figures.ORDER[: figures.VEHICLES] for name in data.CLASSES])
    wrong = predictions != labels
    caption = text(
        "Of the {wrong:,} errors of seed {seed}, {inside:,} take a vehicle for another vehicle or an animal for another"
        " animal; the lines separate the two groups.",
        wrong=int(wrong.sum()),
        seed=seed,
        inside=int((wrong & (vehicles[labels] == vehicles[predictions])).sum()),
    )
    return tables.figure("confusion_matrix.png", "Confusion matrix: vehicles, then animals", caption)


def errors_figure(logits, labels):
    """Return the lines that show the most confident errors, with their range of confidence."""
    rows, columns = figures.MISCLASSIFIED
    chosen = most_confident_errors(logits, labels, rows * columns)
    confidence = 100 * F.softmax(logits[chosen].double(), -1).amax(-1)
    known = set(chosen.tolist()) & set(label_errors.known(labels))
    values = {"count": len(chosen), "known": len(known)}
    if len(chosen):
        values |= {"low": float(confidence.min()), "high": float(confidence.max())}
    caption = text(
        "The network makes no error."
        if not len(chosen)
        else "The network is {low:.1f}% to {high:.1f}% confident of these {count} wrong predictions; people found the"
        " labels of the {known} red ones wrong."
        if known
        else "The network is {low:.1f}% to {high:.1f}% confident of these {count} wrong predictions.",
        **values,
    )
    return tables.figure(
        "misclassified_samples.png", f"The {len(chosen)} most confident errors of the test set", caption
    )


# --- performance and training ---


def overall_rows(metrics):
    """Return one row per quantity, with its mean and standard deviation over the seeds."""
    rows = [
        {"quantity": name, "value": tables.mean_std([entry[field] for entry in metrics], digits)}
        for name, (field, digits) in OVERALL.items()
        # without validation no epoch is selected; a network may not be compiled
        if any(entry.get(field) for entry in metrics) and (field != "best_epoch" or "val_accuracy" in metrics[0])
    ]
    return [
        *rows,
        {"quantity": "parameters", "value": f"{metrics[0]['parameters']:,}"},
        {"quantity": "FLOPs of one image's forward pass", "value": f"{metrics[0]['flops']:,}"},
    ]


def count_note(seed, labels, predictions):
    """Return the sentence on how many test images are classified correctly and wrongly."""
    wrong = int((predictions != labels).sum())
    return text(
        "With seed {seed}, {right:,} of the {count:,} test images are classified correctly and {wrong:,} wrongly.",
        seed=seed,
        right=len(labels) - wrong,
        count=len(labels),
        wrong=wrong,
    )


def phase_section(histories):
    """Return a note and one row per phase of the report: loss and accuracy of training at its last epoch.

    A training of another length is cut at the same shares of its epochs. A training of fewer epochs than phases has no
    table.
    """
    length, ours = reported.PHASES[-1][1], max(len(history["epoch_losses"]) for history in histories)
    if ours < len(reported.PHASES):
        phases = len(reported.PHASES)
        return [text("This training has fewer epochs than the report's training has phases ({phases}).", phases=phases)]
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
    note = text(
        "The report divides its training into the epochs {phases}. Loss and accuracy are those of the augmented"
        " training batches."
        if ours == length
        else "The report divides its training into the epochs {phases}. This training has {ours} epochs, and the table"
        " compares epochs at about the same shares of both. Loss and accuracy are those of the augmented training"
        " batches.",
        phases=tables.list_texts([label(f"{first} to {last}") for first, last in reported.PHASES]),
        ours=ours,
    )
    return [note, rows]


def stopping_section(metrics):
    """Return a note and one row per seed: after which epoch the report's early stopping would have ended it (1.6).

    The list is empty where there is no validation.
    """
    if "early_stopping_epoch" not in metrics[0]:
        return []
    note = text(
        "The kept epoch is the one with the highest validation accuracy. The table has the epoch after which the"
        " report's early stopping (patience {patience}, `min_delta` {min_delta:g}) would have ended each training, and"
        " a dash where it would not have.",
        patience=training.EarlyStopping.patience,
        min_delta=training.EarlyStopping.min_delta,
    )
    rows = [
        {
            "seed": entry["seed"],
            "epochs of training": entry["epochs"],
            "kept epoch": entry["best_epoch"],
            "early stopping after epoch": entry["early_stopping_epoch"] or tables.DASH,
        }
        for entry in metrics
    ]
    return [note, rows]


def gap_rows(metrics):
    """Return one row per split, with accuracy and loss over the seeds."""
    return [
        {
            "split": name,
            "accuracy, %": tables.mean_std([entry[f"{split}_accuracy"] for entry in metrics]),
            "loss, nats": tables.mean_std([entry[f"{split}_loss"] for entry in metrics], 4),
        }
        for split, name in SPLITS.items()
        if f"{split}_accuracy" in metrics[0]
    ]


def gap_note(metrics):
    """Return the sentences on how far training accuracy is from test accuracy, here and in the report."""
    train, test = reported.CHAPTER_2["train"], reported.CHAPTER_2["test"]
    gap = float(np.mean([entry["train_accuracy"] - entry["test_accuracy"] for entry in metrics]))
    return tables.paragraph(
        text("All values are in evaluation mode, by plain cross-entropy, without the augmentation of the training."),
        text(
            "The training accuracy is {gap:.2f} points above the test accuracy."
            if gap >= 0
            else "The training accuracy is {gap:.2f} points below the test accuracy.",
            gap=abs(gap),
        ),
        text(
            "The report's gap is {train} - {test} = {gap:.1f} points, but its {train}% is a running mean over augmented"
            " batches.",
            train=train,
            test=test,
            gap=train - test,
        ),
    )


# --- calibration ---


def calibration_note(metrics, logits, recipe):
    """Return the sentences on what the expected calibration error is, its sign and, where it is large, its cause."""
    confidence = 100 * float(F.softmax(logits.double(), -1).amax(-1).mean())
    accuracy, train, ece = (
        float(np.mean([entry[field] for entry in metrics])) for field in ("test_accuracy", "train_accuracy", "ece")
    )
    smoothing, under = recipe["label_smoothing"], confidence < accuracy
    values = {"confidence": confidence, "accuracy": accuracy, "train": train, "smoothing": smoothing}
    values["points"] = abs(confidence - accuracy)
    values["target"] = 100 * (1 - smoothing + smoothing / len(data.CLASSES))
    values["learned"] = 100 * float(np.exp(-np.mean([entry["train_loss"] for entry in metrics])))
    sentences = [
        text(
            "The expected calibration error compares confidence, the highest probability of a prediction, with"
            " accuracy: it is their mean distance over {bins} equal bins of confidence, weighted by the images in"
            " each.",
            bins=evaluation.CALIBRATION_BINS,
        ),
        text(
            "The mean confidence is {confidence:.1f}% and the accuracy {accuracy:.1f}%: the network is underconfident"
            " by {points:.1f} points."
            if under
            else "The mean confidence is {confidence:.1f}% and the accuracy {accuracy:.1f}%: the network is"
            " overconfident by {points:.1f} points.",
            **values,
        ),
    ]
    if ece > LARGE_ECE:
        sentences.append(
            text(
                "An overconfident network is wrong more often than its probabilities say; the usual cause is"
                " overfitting, and the training accuracy here is {train:.1f}%."
                if not under
                else "An underconfident network is right more often than its probabilities say; the usual cause is"
                " label smoothing, and the smoothing of {smoothing:g} in this training asks for only {target:.1f}% at"
                " the label of an image."
                if smoothing
                else "An underconfident network is right more often than its probabilities say; the usual cause is a"
                " short training, or one on mixed or strongly augmented images.",
                **values,
            )
        )
        if under and smoothing:
            sentences.append(
                text(
                    "On the training images, of which it classifies {train:.1f}% correctly, the geometric mean of the"
                    " label's probability is {learned:.1f}%.",
                    **values,
                )
            )
    return tables.paragraph(*sentences)


# --- classes and confusions ---


def class_name(index):
    """Return what a class is called in both languages."""
    return label(data.CLASSES[index])


def pair_name(true, predicted):
    """Return a confusion as a table names it."""
    return f"{true} → {predicted}"


def class_table(labels, predictions):
    """Return the rows of classification_report.csv as a page shows them."""
    rows = class_rows(labels, predictions)
    rows = [row | {"support": f"{row['support']:,}"} for row in rows]
    return [{name: tables.DASH if value == "" else value for name, value in row.items()} for row in rows]


def pair_table(labels, predictions):
    """Return the rows of top_confusion_pairs.csv as a page shows them."""
    return [
        {
            PAIR: pair_name(row["true"], row["predicted"]),
            "test images": row["count"],
            "share of the class, %": row["% of the class"],
        }
        for row in pair_rows(labels, predictions)
    ]


def reported_pair_rows(labels, predictions):
    """Return one row per confusion that the report counts: its number of test images and ours over the seeds."""
    matrices = count_confusions(labels, predictions)
    return [
        {
            PAIR: pair_name(true, other),
            "report": count,
            "ours": tables.mean_std(matrices[:, data.CLASSES.index(true), data.CLASSES.index(other)].tolist(), 1),
        }
        for (true, other), count in reported.CONFUSIONS.items()
    ]


def confident_note(logits, labels):
    """Return the sentences on the most confident errors: which pairs of classes they are of, and the highest."""
    chosen = most_confident_errors(logits, labels, CONFIDENT_ERRORS)
    if not len(chosen):
        return ""
    predictions, probabilities = logits.argmax(-1), F.softmax(logits.double(), -1)
    pairs = [{data.CLASSES[labels[index]], data.CLASSES[predictions[index]]} for index in chosen]
    (one, other), (third, fourth) = reported.CONFIDENT_PAIRS
    counts = [pairs.count(set(pair)) for pair in reported.CONFIDENT_PAIRS]
    first = int(chosen[0])
    true, predicted = int(labels[first]), int(predictions[first])
    (likely, high), (unlikely, low) = reported.CONFIDENT_ERROR.items()
    return tables.paragraph(
        text(
            "Of the {count} most confident errors, {a} confuse {one} and {other}, and {b} confuse {third} and {fourth}."
            " These {both} are most of them, as in the report."
            if 2 * sum(counts) > len(chosen)
            else "Of the {count} most confident errors, {a} confuse {one} and {other}, and {b} confuse {third} and"
            " {fourth}. These {both} are not most of them; the report says that they are.",
            count=len(chosen),
            a=counts[0],
            b=counts[1],
            both=sum(counts),
            **{name: label(pet) for name, pet in zip(("one", "other", "third", "fourth"), (one, other, third, fourth))},
        ),
        text(
            "In the most confident error, an image of class {true} is predicted as {predicted} with {highest:.2f}%, and"
            " the true class has {own:.2f}%.",
            true=class_name(true),
            predicted=class_name(predicted),
            highest=100 * float(probabilities[first, predicted]),
            own=100 * float(probabilities[first, true]),
        ),
        text(
            "In the report's example, an image of class {true} is predicted as {predicted} with {highest}%, and the"
            " true class has {own}%.",
            true=label(unlikely),
            predicted=label(likely),
            highest=high,
            own=low,
        ),
    )


def label_note(labels, predictions):
    """Return a heading and sentences on how many of the errors are known label errors (2.6); empty if none is known."""
    known = torch.tensor(label_errors.known(labels), dtype=torch.int64)
    if not len(known):
        return []
    return [
        text("## Label errors (2.6)"),
        text(
            "People found {known} of the {count:,} test labels to be wrong (arXiv 2103.14749). {among} of them are"
            " among the {wrong:,} errors. No image is left out of the accuracy.",
            known=len(known),
            count=len(labels),
            among=int((predictions[known] != labels[known]).sum()),
            wrong=int((predictions != labels).sum()),
        ),
    ]
