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
    """What is done to images, one row per move, as tensors on one device; `apply` takes one row per image."""

    chosen: torch.Tensor  # (M, len(CHANGES)) bool: which of CHANGES computes the operation; none for Identity
    theta: torch.Tensor  # (M, 2, 3): from a pixel of the result to the one of the image that it shows
    blending: torch.Tensor  # (M, 4): the factor of the image, and which picture has the rest
    mask: torch.Tensor  # (M,) uint8: the bits of a pixel that are kept
    threshold: torch.Tensor  # (M,): pixels from here on are inverted

    def __getitem__(self, rows):
        return Moves(*(column[rows] for column in self))


def tabulate(moves, device, size):
    """Return Moves on `device` of [(operation, magnitude)], for images of `size` pixels per side.

    Magnitudes are torchvision's: of a shear, pixels per pixel; of a translation, pixels; of a rotation, degrees; of a
    blend, the factor minus 1; of Posterize, bits; of Solarize, the threshold.
    """
    rows = [
        (
            [name in names for names, _, _ in CHANGES],
            move_matrix(name, magnitude, size),
            (1.0 + magnitude, *(float(name == other) for other in BLENDED[1:])),
            MAX - (MAX >> int(magnitude)) if name == "Posterize" else MAX,
            magnitude if name == "Solarize" else 0.0,
        )
        for name, magnitude in moves
    ]
    types = (torch.bool, torch.float32, torch.float32, torch.uint8, torch.float32)
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


def apply(images, moves):
    """Return uint8 images (N, 3, S, S), each changed by its own row of `moves`, Moves of N rows."""
    for (_, change, column), chosen in zip(CHANGES, moves.chosen.unbind(1)):
        images = change_chosen(images, chosen, change, *([getattr(moves, column)] if column else []))
    return images


def change_chosen(images, chosen, change, *values):
    """Return the images, of which those `chosen` (N,) are replaced by change(images, *values), values being per image.

    Only these are computed where it costs no waiting to learn how many there are; on a GPU, all are.
    """
    if can_read_at_once(images.device):
        rows = chosen.nonzero()[:, 0]
        return images.index_copy(0, rows, change(images[rows], *(value[rows] for value in values)))
    return torch.where(per_image(chosen), change(images, *values), images)


def can_read_at_once(device):
    """Return whether the host can read a value from this device without waiting for the work that is under way."""
    return device.type == "cpu"


def per_image(values):
    """Return values (N,) as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


# --- changes: uint8 images and a value per image -> uint8 images ---


def move(images, theta):
    """Return images moved by theta (N, 2, 3), by the nearest pixel, with black from outside of the image."""
    size = images.shape[-1]
    positions = torch.arange(size, device=images.device) - (size - 1) / 2
    across, down = positions.view(1, 1, -1), positions.view(1, -1, 1)
    # no matrix product: on a GPU it may round the coordinates
    grid = [row[:, 0] * across + row[:, 1] * down + row[:, 2] for row in theta[..., None, None].unbind(1)]
    grid = torch.stack(grid, -1) / (size / 2)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def blend(images, blending):
    """Return other + factor (image - other), rounded down and clipped: Pillow's blend, and torchvision's up to a level.

    blending: (N, 4), the factor, and 1 for what `other` is: gray, mean gray, or blurred. With three zeros it is black.
    """
    x = images.float()
    gray = sum(share * channel for share, channel in zip(GRAY, x.unbind(1)))[:, None].floor()
    factor, is_gray, is_mean, is_blurred = (per_image(value) for value in blending.unbind(1))
    other = is_gray * gray + is_mean * gray.mean((2, 3), keepdim=True) + is_blurred * blur(x)
    return (other + factor * (x - other)).clamp(0, MAX).to(torch.uint8)


def blur(x):
    """Return float images smoothed by a 3x3 filter, whose center has five times the weight, except at the borders."""
    # sums of whole numbers: the result is the same in every precision and order
    columns = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    sums = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :] + 4 * x[..., 1:-1, 1:-1]
    blurred = x.clone()
    blurred[..., 1:-1, 1:-1] = (sums / 13).round()
    return blurred


def stretch_contrast(images):
    """Return images whose channels reach from 0 to MAX, except those of one value."""
    x = images.float()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    scale = ((high - low) * (1 / MAX)).masked_fill(flat, 1.0)
    return ((x - low.masked_fill(flat, 0.0)) / scale).clamp(0, MAX).to(torch.uint8)


def equalize(images):
    """Return images whose channels have an even histogram, by Pillow's table."""
    pixels = images.flatten(2).long()
    histogram = torch.zeros(*pixels.shape[:2], LEVELS, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, pixels, torch.ones_like(pixels, dtype=torch.int32))
    counts = histogram.cumsum(2, dtype=torch.int32)
    brightest = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = torch.div(pixels.shape[2] - brightest, MAX, rounding_mode="floor")
    below = F.pad(counts[..., :-1] + step // 2, (1, 0))
    table = torch.div(below, step.clamp(min=1), rounding_mode="floor").clamp(0, MAX).to(torch.uint8)
    unchanged = torch.arange(LEVELS, device=images.device, dtype=torch.uint8)
    return torch.where(step == 0, unchanged, table).gather(2, pixels).view_as(images)


def posterize(images, mask):
    """Return images of which each pixel keeps the bits of `mask` (N,)."""
    return images & per_image(mask)


def solarize(images, threshold):
    """Return images whose pixels from `threshold` (N,) on are inverted: all of them from 0 on."""
    return torch.where(images >= per_image(threshold), ~images, images)


# (operations, what computes them, the column of Moves that has its value per image)
CHANGES = (
    (GEOMETRIC, move, "theta"),
    (BLENDED, blend, "blending"),
    (("AutoContrast",), stretch_contrast, None),
    (("Equalize",), equalize, None),
    (("Posterize",), posterize, "mask"),
    (("Solarize", "Invert"), solarize, "threshold"),
)
