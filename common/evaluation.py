"""Evaluation is inference, then a reduction of the logits."""

import torch
import torch.nn.functional as F

from common.data import normalize


@torch.no_grad()
def predict(logits_of, data, stats, batch_size=500):
    """Return logits (..., N, classes), float32, of all of `data`, in its order and without augmentation.

    `logits_of` maps normalized images (B, 3, 32, 32) to (..., B, classes): one network, or a stack of them.
    """
    return torch.cat([logits_of(normalize(block, stats)).float() for block in data.images.split(batch_size)], dim=-2)


def accuracy(logits, labels):
    """Return top-1 accuracy in per cent, of shape (...,), for logits (..., N, classes) and labels (N,)."""
    return (logits.argmax(-1) == labels).float().mean(-1) * 100


def cross_entropy(logits, labels):
    """Return mean cross-entropy in nats, of shape (...,), without smoothing, whatever the training loss was."""
    losses = F.cross_entropy(logits.flatten(0, -2), labels.expand(logits.shape[:-1]).flatten(), reduction="none")
    return losses.view(logits.shape[:-1]).mean(-1)


def top_k(logits, labels, k=5):
    """Return the share, in per cent, of logits (N, classes) whose k highest include the label."""
    return (logits.topk(k, -1).indices == labels[:, None]).any(-1).float().mean() * 100


def calibration(logits, labels, bins=15):
    """Measure how reliable the highest probability is, in `bins` equal bins of it (Guo et al., arXiv 1706.04599, section 2).

    Returns a dict of tensors (bins,): `count`, `confidence` and `accuracy` (fractions, 0 where count is), and `ece`, a tensor ():
    the expected calibration error, equation 3, a fraction.
    """
    confidence, prediction = F.softmax(logits.double(), -1).max(-1)
    right = (prediction == labels).double()
    of = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bin m is ((m - 1) / bins, m / bins]
    count = torch.bincount(of, minlength=bins).double()
    sums = [torch.bincount(of, values, minlength=bins) / count.clamp(min=1) for values in (confidence, right)]
    ece = (count / len(labels) * (sums[0] - sums[1]).abs()).sum()
    return {"count": count, "confidence": sums[0], "accuracy": sums[1], "ece": ece}


def confusion_matrix(labels, predictions, classes=10):
    """Count (classes, classes): rows are true classes, columns predicted ones."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


def top_confusions(matrix, count=10):
    """Return the largest off-diagonal counts as (true class, predicted class, count), the most frequent first."""
    pairs = [
        (row, column, int(matrix[row, column]))
        for row in range(len(matrix))
        for column in range(len(matrix))
        if row != column
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]
