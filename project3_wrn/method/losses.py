"""The losses that chapter 3 of the report proposes, for labels (B,) or their probabilities (B, classes)."""

import torch
import torch.nn.functional as F


def focal(logits, y, gamma=2.0, label_smoothing=0.0):
    """Return cross-entropy with each class's term times (1 - p) ** gamma (Lin et al., arXiv 1708.02002, equation 4)."""
    log_p = F.log_softmax(logits, 1)
    targets = smooth(y, logits.shape[1], label_smoothing)
    return -(targets * (1 - log_p.exp()) ** gamma * log_p).sum(1).mean()


def multi_label(logits, y, label_smoothing=0.0):
    """Return the sum over the classes of binary cross-entropies, for multi-label classification (section 2.6).

    Each class has a sigmoid of its own, so that an image may have several classes, or none. The targets of smoothing
    are those of cross-entropy. A softmax of these logits is the probability of each class, given that exactly one of
    them is right; the most probable class is the same.
    """
    return (
        F.binary_cross_entropy_with_logits(logits, smooth(y, logits.shape[1], label_smoothing), reduction="none")
        .sum(1)
        .mean()
    )


def smooth(y, classes, label_smoothing):
    """Return probabilities (B, classes) of labels or probabilities y, of which `label_smoothing` is spread evenly."""
    targets = y if y.is_floating_point() else torch.eye(classes, device=y.device)[y]
    return targets * (1 - label_smoothing) + label_smoothing / classes


def ohem(logits, y, share=0.7, label_smoothing=0.0):
    """Return the mean of the highest losses, a `share` of the batch (online hard example mining, arXiv 1604.03540)."""
    losses = F.cross_entropy(logits, y, reduction="none", label_smoothing=label_smoothing)
    return losses.topk(max(1, round(share * len(losses)))).values.mean()


def supervised_contrastive(features, y, temperature=0.1):
    """Return the loss that pulls features (B, C) of one class together (Khosla et al., arXiv 2004.11362, equation 2).

    There is one view per image: its positives are the other images of its class in the batch. Images without any are
    left out of the mean.
    """
    z = F.normalize(features.float(), dim=1)
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positive = (y[:, None] == y) & ~itself
    count = positive.sum(1)
    mean = (log_p * positive).sum(1) / count.clamp(min=1)
    return -(mean * (count > 0)).sum() / (count > 0).sum().clamp(min=1)


class Contrastive:
    """A loss plus `weight` times the supervised contrastive loss of the last feature maps, averaged over their pixels.

    base: (logits, y) -> tensor (), the loss that it is added to.
    """

    needs_features = True  # common/learners.py passes them

    def __init__(self, base, weight=0.1):
        self.base, self.weight = base, weight

    def __call__(self, logits, y, features):
        return self.base(logits, y) + self.weight * supervised_contrastive(features.mean((2, 3)), y)
