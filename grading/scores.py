"""What a network's test logits say of its classes: precision and recall, confusions, and its most confident errors."""

import functools

import numpy as np

from common.data import CLASSES

CONFIDENT = 20  # errors that the report shows
CONFUSED = ({"cat", "dog"}, {"automobile", "truck"})  # the pairs that section 2.4 names


def confusion_matrix(logits, labels):
    """Return counts (true class, predicted class)."""
    matrix = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(matrix, (labels, logits.argmax(1)), 1)
    return matrix


def precision_recall(logits, labels, name):
    """Return precision and recall of a class as fractions."""
    matrix, index = confusion_matrix(logits, labels), CLASSES.index(name)
    right = matrix[index, index]
    return right / max(matrix[:, index].sum(), 1), right / matrix[index].sum()


def f1(logits, labels, name):
    precision, recall = precision_recall(logits, labels, name)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def confused(logits, labels, true, predicted):
    """Return how many images of one class are predicted as another."""
    return confusion_matrix(logits, labels)[CLASSES.index(true), CLASSES.index(predicted)]


def pair_rank(logits, labels, one, other):
    """Return the rank of a pair of classes by its confusions in both directions; 1 is the most confused pair."""
    matrix = confusion_matrix(logits, labels)
    both = matrix + matrix.T
    mine = both[CLASSES.index(one), CLASSES.index(other)]
    return 1 + (both[np.triu_indices(len(CLASSES), 1)] > mine).sum()


def probabilities(logits):
    """Return the softmax (N, 10) in float64."""
    shifted = logits.astype(float) - logits.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(1, keepdims=True)


def most_confident_errors(logits, labels):
    """Return the indices of the wrong images, the most confident first."""
    errors = np.flatnonzero(logits.argmax(1) != labels)
    return errors[np.argsort(-probabilities(logits[errors]).max(1), kind="stable")]


def confidence(logits, labels, true, predicted, of):
    """Return the probability in per cent of the `predicted` or of the `true` class, `of` which of the two.

    The image is the one of the true class that is predicted as the other one with the highest probability; NaN where
    no image is.
    """
    classes = {"true": CLASSES.index(true), "predicted": CLASSES.index(predicted)}
    for index in most_confident_errors(logits, labels):
        if labels[index] == classes["true"] and logits[index].argmax() == classes["predicted"]:
            return 100 * probabilities(logits[index : index + 1])[0, classes[of]]
    return np.nan


def confident_confusions(logits, labels):
    """Return how many of the CONFIDENT most confident errors are within the pairs of CONFUSED."""
    errors = most_confident_errors(logits, labels)[:CONFIDENT]
    return sum({CLASSES[labels[i]], CLASSES[logits[i].argmax()]} in CONFUSED for i in errors)


def of_class(function):
    """Make a score of a class from a function of its name."""

    @functools.wraps(function)
    def score(logits, labels, **arguments):
        return function(logits, labels, arguments["class"])

    return score


SCORES = {  # of one seed: (logits (N, 10), labels (N,), arguments of the term) -> number
    "precision": of_class(lambda logits, labels, name: precision_recall(logits, labels, name)[0]),
    "recall": of_class(lambda logits, labels, name: precision_recall(logits, labels, name)[1]),
    "f1": of_class(f1),
    "confused": confused,
    "pair_rank": pair_rank,
    "confidence": confidence,
    "confident_confusions": confident_confusions,
}
