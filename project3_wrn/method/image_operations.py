"""The operations of augmentation policies on whole batches: every image has an operation and a strength of its own.

They compute what torchvision.transforms.v2.functional computes, with nearest interpolation and black outside of the
image, and never wait for the device.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

MAX = 255  # of a pixel
LEVELS = MAX + 1
GRAY = (0.2989, 0.587, 0.114)  # the shares of red, green and blue in torchvision's gray
OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
)
GEOMETRIC = OPERATIONS[1:6]
BLENDED = OPERATIONS[6:10]


class Moves(NamedTuple):
    """What is done to images, one row per move, as tensors on one device; `apply` takes one row per image.

    Of every row, all columns but those of its operation leave an image as it is.
    """

    theta: torch.Tensor  # (M, 2, 3): from a pixel of the result to the one of the image that it shows
    shares: torch.Tensor  # (M, 4): of a blend of the image, its gray, its mean gray and its blurred copy
    stretched: torch.Tensor  # (M,) whether the contrast is stretched
    equalized: torch.Tensor  # (M,) whether the histogram is equalized
    bits: torch.Tensor  # (M,) uint8, those of a pixel that are kept
    threshold: torch.Tensor  # (M,) uint8 pixels from here on are inverted

    def __getitem__(self, rows):
        return Moves(*(column[rows] for column in self))


def tabulate(moves, device, size):
    """Return Moves on `device` of [(operation, magnitude)], for images of `size` pixels per side.

    Magnitudes are torchvision's: of a shear, pixels per pixel; of a translation, pixels; of a rotation, degrees; of a
    blend, the factor minus 1; of Posterize, bits; of Solarize, the threshold.
    """
    rows = [
        (
            move_matrix(name, magnitude, size),
            blend_shares(name, magnitude),
            name == "AutoContrast",
            name == "Equalize",
            MAX - (MAX >> int(magnitude)) if name == "Posterize" else MAX,
            {"Solarize": magnitude, "Invert": 0.0}.get(name, float(LEVELS)),
        )
        for name, magnitude in moves
    ]
    types = (torch.float32, torch.float32, torch.bool, torch.bool, torch.uint8, torch.float32)
    return Moves(*(torch.tensor(column, dtype=kind, device=device) for column, kind in zip(zip(*rows), types)))


def move_matrix(name, magnitude, size):
    """Return ((a, b, c), (d, e, f)): a pixel (x, y) of the result is (a x + b y + c, d x + e y + f) of the image.

    Coordinates are in pixels from the center. A shear leaves the upper left corner in its place, as torchvision's does.
    """
    half = size / 2
    if name == "ShearX":
        return (1.0, magnitude, half * magnitude), (0.0, 1.0, 0.0)
    if name == "ShearY":
        return (1.0, 0.0, 0.0), (magnitude, 1.0, half * magnitude)
    if name == "TranslateX":
        return (1.0, 0.0, -float(int(magnitude))), (0.0, 1.0, 0.0)
    if name == "TranslateY":
        return (1.0, 0.0, 0.0), (0.0, 1.0, -float(int(magnitude)))
    angle = -math.radians(magnitude if name == "Rotate" else 0.0)
    return (math.cos(angle), math.sin(angle), 0.0), (-math.sin(angle), math.cos(angle), 0.0)


def blend_shares(name, magnitude):
    """Return the shares of the image, its gray, its mean gray and its blurred copy; Brightness blends with black."""
    if name not in BLENDED:
        return 1.0, 0.0, 0.0, 0.0
    factor = 1.0 + magnitude
    return factor, *((1.0 - factor) * (name == other) for other in BLENDED[1:])


def apply(images, moves):
    """Return uint8 images (N, 3, S, S), each changed by its own row of `moves`, Moves of N rows."""
    x = blend(move(images.float(), moves.theta), moves.shares)
    x = stretch_contrast(x, moves.stretched).to(torch.uint8)
    inverted = (x >= per_image(moves.threshold)).to(torch.uint8) * MAX
    return equalize((x & per_image(moves.bits)) ^ inverted, moves.equalized)


def per_image(values):
    """Return values (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def move(x, theta):
    """Return float images moved by theta (N, 2, 3), by the nearest pixel, with black from outside of the image."""
    size = x.shape[-1]
    positions = torch.arange(size, device=x.device) - (size - 1) / 2
    across, down = positions.view(1, 1, -1), positions.view(1, -1, 1)
    # no matrix product: on a GPU it may round the coordinates
    grid = [row[:, 0] * across + row[:, 1] * down + row[:, 2] for row in theta[..., None, None].unbind(1)]
    return F.grid_sample(x, torch.stack(grid, -1) / (size / 2), mode="nearest", align_corners=False)


def blend(x, shares):
    """Return mixtures of float images, their gray, their mean gray and a blurred copy, of whole numbers in 0..MAX."""
    gray = sum(share * channel for share, channel in zip(GRAY, x.unbind(1)))[:, None].floor()
    own, of_gray, of_mean, of_blurred = (per_image(share) for share in shares.unbind(1))
    added = gray * of_gray + gray.mean((2, 3), keepdim=True) * of_mean
    return torch.addcmul(torch.addcmul(added, x, own), blur(x), of_blurred).clamp(0, MAX).floor()


def blur(x):
    """Return float images smoothed by a 3x3 filter, whose center has five times the weight, except at the borders."""
    # sums of whole numbers: the result is the same in every precision and order
    columns = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    sums = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :] + 4 * x[..., 1:-1, 1:-1]
    blurred = x.clone()
    blurred[..., 1:-1, 1:-1] = (sums / 13).round()
    return blurred


def stretch_contrast(x, chosen):
    """Return float images of which the `chosen` (N,) have channels that reach from 0 to MAX, unless of one value."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    kept = (low == high) | ~per_image(chosen)
    scale = ((high - low) * (1 / MAX)).masked_fill(kept, 1.0)
    return ((x - low.masked_fill(kept, 0.0)) / scale).clamp(0, MAX)


def equalize(images, chosen):
    """Return uint8 images of which the `chosen` (N,) have channels of an even histogram, by Pillow's table."""
    pixels = images.flatten(2).long()
    histogram = torch.zeros(*pixels.shape[:2], LEVELS, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, pixels, torch.ones_like(pixels, dtype=torch.int32))
    counts = histogram.cumsum(2, dtype=torch.int32)
    brightest = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = torch.div(pixels.shape[2] - brightest, MAX, rounding_mode="floor")
    below = F.pad(counts[..., :-1] + step // 2, (1, 0))
    table = torch.div(below, step.clamp(min=1), rounding_mode="floor").clamp(0, MAX).to(torch.uint8)
    kept = (step == 0) | ~chosen.view(-1, 1, 1)
    table = torch.where(kept, torch.arange(LEVELS, device=images.device, dtype=torch.uint8), table)
    return table.gather(2, pixels).view_as(images)
