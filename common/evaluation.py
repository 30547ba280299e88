"""Evaluation is inference, then a reduction of the logits."""

import torch
import torch.nn.functional as F

from common.data import normalise


@torch.no_grad()
def predict(logits_of, data, normalisation, batch_size=500):
    """Logits (..., N, classes), float32, of all of `data`, in its order and without augmentation.

    `logits_of` maps normalised images (B, 3, 32, 32) to (..., B, classes): one network, or a stack of them.
    """
    return torch.cat(
        [logits_of(normalise(block, normalisation)).float() for block in data.images.split(batch_size)], dim=-2
    )


def accuracy(logits, labels):
    """Top-1 accuracy in per cent, of shape (...,), for logits (..., N, classes) and labels (N,)."""
    return (logits.argmax(-1) == labels).float().mean(-1) * 100


def cross_entropy(logits, labels):
    """Mean cross-entropy in nats, of shape (...,): plain, whatever the training loss was."""
    losses = F.cross_entropy(logits.flatten(0, -2), labels.expand(logits.shape[:-1]).flatten(), reduction="none")
    return losses.view(logits.shape[:-1]).mean(-1)
