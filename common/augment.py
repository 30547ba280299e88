"""Augmentations of whole batches, drawn for each image: functions (images, generator) -> images on normalized images.

images are float (N, C, H, W). They are values: `augment=(random_crop, random_flip, Cutout(12))`. mixup and cutmix take
and return the labels too, and go into `mix`.
"""

import torch
import torch.nn.functional as F

from common.support.cifar_files import LABELS


def random_crop(
    x: torch.Tensor,
    generator: torch.Generator,
    padding: int = 4,
    mode: str = "constant",
    fill: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pad by `padding` pixels on every side and crop to the old size at a random position (project 3, section 1.2).

    mode: one of F.pad's: "constant" pads with 0, the mean color of normalized images.
    fill: pad with this color instead, a tensor (C, 1, 1) on the images' device; `mode` is then not read.
    """
    n, channels, height, width = x.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator, device=x.device)
    rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
    images = torch.arange(n, device=x.device)[:, None, None, None]
    planes = torch.arange(channels, device=x.device)[None, :, None, None]
    if fill is None:
        padded = F.pad(x, (padding,) * 4, mode)
    else:  # F.pad takes one value for all channels
        padded = fill.expand(n, -1, height + 2 * padding, width + 2 * padding).clone()
        padded[..., padding : padding + height, padding : padding + width] = x
    return padded[images, planes, rows, columns]


def random_flip(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left to right with probability 0.5."""
    heads = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(heads, x.flip(-1), x)


def jitter_color(x: torch.Tensor, generator: torch.Generator, brightness: float, contrast: float) -> torch.Tensor:
    """Add a number within +-brightness to each image, then multiply it by one within 1 +- contrast, both uniform.

    On normalized images, brightness is in the pixels' standard deviations, and contrast is about the mean color, 0.
    """
    added, factor = 2 * torch.rand(2, len(x), 1, 1, 1, generator=generator, device=x.device) - 1
    return (x + brightness * added) * (1 + contrast * factor)


class Cutout:
    """Zero a square of `length` pixels around a uniformly drawn center, clipped at the borders.

    DeVries & Taylor, arXiv 1708.04552, as in project 3's section 1.2: rows from center - length // 2 up to, not
    including, center + length // 2; the same for columns. Masked pixels are 0 after normalization: the mean color.
    """

    def __init__(self, length: int):
        if length < 0:
            raise ValueError(f"Cutout length must be >= 0, not {length}")
        self.half = length // 2

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        n, _, height, width = x.shape
        center_row = torch.randint(height, (n, 1, 1, 1), generator=generator, device=x.device)
        center_col = torch.randint(width, (n, 1, 1, 1), generator=generator, device=x.device)
        rows = torch.arange(height, device=x.device).view(1, 1, -1, 1)
        columns = torch.arange(width, device=x.device)
        inside = (
            (rows >= center_row - self.half)
            & (rows < center_row + self.half)
            & (columns >= center_col - self.half)
            & (columns < center_col + self.half)
        )
        return x.masked_fill(inside, 0)


def mixup(x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image with another one of the batch (Zhang et al., arXiv 1710.09412, alpha = 1).

    The shares are uniform in 0..1. labels (N,) become probabilities (N, 10): the same shares.
    """
    share = torch.rand(len(x), generator=generator, device=x.device)
    other = torch.randperm(len(x), generator=generator, device=x.device)
    return torch.lerp(x[other], x, share.view(-1, 1, 1, 1)), shared_labels(y, y[other], share)


def cutmix(x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a rectangle of each image by that of another image (Yun et al., arXiv 1905.04899, alpha = 1).

    Its sides are sqrt(1 - share) of the image's, its center is uniform, it is clipped at the borders. labels (N,)
    become probabilities (N, 10): the shares of the areas after clipping.
    """
    n, _, height, width = x.shape
    side = torch.rand(n, generator=generator, device=x.device).sqrt()  # 1 - share is uniform, as share is
    other = torch.randperm(n, generator=generator, device=x.device)
    inside = torch.ones(n, 1, height, width, dtype=torch.bool, device=x.device)
    for size, view in ((height, (n, 1, -1, 1)), (width, (n, 1, 1, -1))):
        center = torch.randint(size, (n, 1), generator=generator, device=x.device)
        half = (side[:, None] * size / 2).floor()
        positions = torch.arange(size, device=x.device)
        inside = inside & ((positions >= center - half) & (positions < center + half)).view(view)
    share = 1 - inside.float().mean((1, 2, 3))
    return torch.where(inside, x[other], x), shared_labels(y, y[other], share)


def shared_labels(y: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return probabilities (N, 10): `share` (N,) of each label in `y`, the rest of the one in `other`.

    y, other: labels (N,) or their probabilities (N, 10).
    """
    mine, others = (
        labels if labels.is_floating_point() else torch.eye(LABELS, device=y.device)[labels] for labels in (y, other)
    )
    return torch.lerp(others, mine, share[:, None])
