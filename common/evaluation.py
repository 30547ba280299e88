"""Evaluation is inference, with test-time augmentation or without, then a reduction of the logits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.data import Dataset, Stats, normalize

CALIBRATION_BINS = 15
Forward = Callable[[torch.Tensor], torch.Tensor]  # normalized images (B, 3, 32, 32) -> logits (..., B, classes)


@torch.no_grad()
def predict(forward: Forward, dataset: Dataset, stats: Stats, batch_size: int = 500) -> torch.Tensor:
    """Return logits (..., N, classes), float32, of all of `dataset`, in its order and without augmentation.

    forward: one network, or a stack of networks.
    """
    return torch.cat([forward(normalize(block, stats)).float() for block in dataset.images.split(batch_size)], dim=-2)


def predict_with_tta(
    forward: Forward, dataset: Dataset, stats: Stats, views: int, fraction: float = 1.0
) -> torch.Tensor:
    """Return logits (N, classes) of all of `dataset`, averaged over `views` of each image, one of TTA.

    fraction: only this share of the images is seen from all the views: those whose highest probability by the plain
        view is lowest. The share is of this dataset, so the same image may be treated otherwise in another one. After
        github.com/hiverge/cifar10-speedrun.
    """
    averaged = TTA[views](forward)
    if views == 1 or fraction == 1:
        return predict(averaged, dataset, stats)
    logits = predict(forward, dataset, stats)
    confidence = F.softmax(logits, -1).amax(-1)
    chosen = confidence.topk(int(fraction * len(dataset)), largest=False).indices
    logits[chosen] = predict(averaged, dataset[chosen], stats)
    return logits


def tta_none(forward: Forward) -> Forward:
    """Return `forward` itself."""
    return forward


def tta_mirror(forward: Forward) -> Forward:
    """Return `forward` averaged over an image and its mirror image."""

    def averaged(x):
        return (forward(x) + forward(x.flip(-1))) / 2

    return averaged


def tta_mirror_translate(forward: Forward) -> Forward:
    """Return `forward` averaged over an image, two images moved by one pixel, and the mirror images of all three.

    One is moved up and to the left, one down and to the right; the unmoved image and its mirror image have half of the
    weight (Jordan, arXiv 2404.00498, section 3.5).
    """
    mirrored = tta_mirror(forward)

    def averaged(x):
        height, width = x.shape[-2:]
        padded = F.pad(x, (1, 1, 1, 1), "reflect")
        moved = [padded[..., top : top + height, top : top + width] for top in (0, 2)]
        views = [(x, 0.5), *((view, 0.25) for view in moved)]
        return sum(weight * mirrored(view) for view, weight in views)

    return averaged


TTA = {1: tta_none, 2: tta_mirror, 6: tta_mirror_translate}  # {number of views: function}


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return top-1 accuracy in per cent, of shape (...,), for logits (..., N, classes) and labels (N,)."""
    return (logits.argmax(-1) == labels).float().mean(-1) * 100


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return mean cross-entropy in nats, of shape (...,), without smoothing, whatever the training loss was."""
    losses = F.cross_entropy(logits.flatten(0, -2), labels.expand(logits.shape[:-1]).flatten(), reduction="none")
    return losses.view(logits.shape[:-1]).mean(-1)


def top_k(logits: torch.Tensor, labels: torch.Tensor, k: int = 5) -> torch.Tensor:
    """Return the share, in per cent, of logits (N, classes) whose k highest include the label."""
    return (logits.topk(k, -1).indices == labels[:, None]).any(-1).float().mean() * 100


def calibration(logits: torch.Tensor, labels: torch.Tensor, bins: int = CALIBRATION_BINS) -> dict[str, torch.Tensor]:
    """Measure how reliable the highest probability is, in `bins` equal bins (Guo et al., arXiv 1706.04599, section 2).

    Returns a dict of tensors (bins,): `count`, `confidence` and `accuracy` (fractions, 0 where count is), and `ece`, a
    tensor (): the expected calibration error, equation 3, a fraction.
    """
    confidence, prediction = F.softmax(logits.double(), -1).max(-1)
    correct = (prediction == labels).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bin m is ((m - 1) / bins, m / bins]
    count = torch.bincount(index, minlength=bins).double()
    means = [torch.bincount(index, values, minlength=bins) / count.clamp(min=1) for values in (confidence, correct)]
    ece = (count / len(labels) * (means[0] - means[1]).abs()).sum()
    return {"count": count, "confidence": means[0], "accuracy": means[1], "ece": ece}


def confusion_matrix(labels: torch.Tensor, predictions: torch.Tensor, classes: int = 10) -> torch.Tensor:
    """Return counts (classes, classes): rows are true classes, columns predicted ones."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


def top_confusions(matrix: torch.Tensor, count: int = 10) -> list[tuple[int, int, int]]:
    """Return the largest off-diagonal counts as (true class, predicted class, count), the most frequent first."""
    pairs = [
        (row, column, int(matrix[row, column]))
        for row in range(len(matrix))
        for column in range(len(matrix))
        if row != column
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]
