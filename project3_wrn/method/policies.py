"""Augmentations that chapter 3 of the report proposes, drawn for each image: policies, erasing, confused classes."""

import functools
import itertools
import math

import torch
import torch.nn.functional as F

from common.data import CLASSES, IMAGE_SIZE
from common.reported import CONFUSED_PAIRS
from project3_wrn.method import image_operations
from project3_wrn.method.image_operations import BLENDED, OPERATIONS

CONFUSED = tuple(itertools.chain(*CONFUSED_PAIRS))
SIGNED = OPERATIONS[1:10]  # their magnitudes are negative half of the time
# random erasing: how often, shares of the area, height / width, and draws until the rectangle fits (arXiv 1708.04896)
ERASED, AREAS, RATIOS, ATTEMPTS = 0.5, (0.02, 0.33), (0.3, 3.3), 10


# --- policies: what they draw from ---


def magnitudes(name, bins, wide=False):
    """Return the magnitudes of an operation, as torchvision's policies have them; (0,) of one without.

    wide: those of TrivialAugment, otherwise those of AutoAugment and RandAugment.
    """
    if name == "Posterize":
        return [8 - round(step / ((bins - 1) / (6 if wide else 4))) for step in range(bins)]
    if name == "Solarize":
        return torch.linspace(255.0, 0.0, bins).tolist()
    if name in ("ShearX", "ShearY"):
        highest = 0.99 if wide else 0.3
    elif name in ("TranslateX", "TranslateY"):
        highest = 32.0 if wide else 150.0 / 331.0 * IMAGE_SIZE
    elif name == "Rotate":
        highest = 135.0 if wide else 30.0
    elif name in BLENDED:
        highest = 0.99 if wide else 0.9
    else:
        return [0.0]
    return torch.linspace(0.0, highest, bins).tolist()


def with_signs(name, magnitude):
    """Return the two moves of an operation, of which either is drawn half of the time."""
    return [(name, -magnitude if name in SIGNED else magnitude), (name, magnitude)]


def randaugment_moves(magnitude=9, bins=31):
    """Return the moves of RandAugment (arXiv 1909.13719), all equally probable: each operation at one magnitude."""
    moves = []
    for name in OPERATIONS[:-1]:  # without Invert
        values = magnitudes(name, bins)
        moves += with_signs(name, values[magnitude] if len(values) > 1 else values[0])
    return moves


def trivialaugment_moves(bins=31):
    """Return the moves of TrivialAugment (arXiv 2103.10158), all equally probable: each operation at any magnitude."""
    moves = []
    for name in OPERATIONS[:-1]:
        values = magnitudes(name, bins, wide=True)
        for value in values if len(values) > 1 else values * bins:
            moves += with_signs(name, value)
    return moves


@functools.cache
def autoaugment_moves(bins=10):
    """Return AutoAugment's moves for CIFAR-10 (arXiv 1805.09501) and their probabilities, two after another per policy.

    The moves of step s of sub-policy i are the rows 4 i + 2 s and 4 i + 2 s + 1.
    """
    from torchvision import transforms  # not at the top: --help would wait for it

    policies = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10).policies
    moves, chances = [], []
    for name, chance, magnitude in itertools.chain(*policies):
        values = magnitudes(name, bins)
        moves += with_signs(name, values[magnitude] if magnitude is not None else 0.0)
        chances.append(chance)
    return moves, chances


# --- policies: what they draw ---


@functools.cache
def moves(name):
    """Return the moves of a policy."""
    if name == "autoaugment":
        return [*autoaugment_moves()[0], ("Identity", 0.0)]
    return {"randaugment": randaugment_moves, "trivialaugment": trivialaugment_moves}[name]()


@functools.cache
def _table(name, device):
    """Return the Moves of a policy on a device, copied there once: a copy makes the host wait for a GPU."""
    return image_operations.tabulate(moves(name), device, IMAGE_SIZE)


@functools.cache
def _chances(device):
    """Return the probabilities of AutoAugment's moves (sub-policies, 2) on a device."""
    return torch.tensor(autoaugment_moves()[1], device=device).view(-1, 2)


def equally_often(name, steps, images, generator):
    """Change each image `steps` times by a move of its own; all moves of the policy are equally probable."""
    table = _table(name, images.device)
    for _ in range(steps):
        rows = torch.randint(len(table.mask), (len(images),), generator=generator, device=images.device)
        images = image_operations.apply(images, table[rows])
    return images


def autoaugment(images, generator):
    """Change each image by a sub-policy of its own: two moves, each with a probability."""
    table, chances = _table("autoaugment", images.device), _chances(images.device)
    policy = torch.randint(len(chances), (len(images),), generator=generator, device=images.device)
    drawn = torch.rand(2, len(images), generator=generator, device=images.device)
    signs = torch.randint(2, (2, len(images)), generator=generator, device=images.device)
    for step in range(2):
        rows = torch.where(drawn[step] <= chances[policy, step], 4 * policy + 2 * step + signs[step], 4 * len(chances))
        images = image_operations.apply(images, table[rows])
    return images


# functions of uint8 images (N, 3, 32, 32) and a generator
POLICIES = {
    "autoaugment": autoaugment,
    "randaugment": functools.partial(equally_often, "randaugment", 2),
    "trivialaugment": functools.partial(equally_often, "trivialaugment", 1),
}


# --- others ---


def random_erasing(x, generator):
    """Fill a random rectangle of half of the images with 0, the mean color (arXiv 1708.04896).

    As in torchvision, of ATTEMPTS draws the first whose rectangle is smaller than the image counts.
    """
    n, _, height, width = x.shape
    hit, corner_row, corner_column = torch.rand(3, n, generator=generator, device=x.device)
    area, ratio = torch.rand(2, ATTEMPTS, n, generator=generator, device=x.device)
    area = height * width * (AREAS[0] + (AREAS[1] - AREAS[0]) * area)
    low, high = (math.log(value) for value in RATIOS)
    ratio = (low + (high - low) * ratio).exp()
    rows, columns = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (rows < height) & (columns < width)
    first = fits.int().argmax(0, keepdim=True)
    rows, columns = (size.gather(0, first)[0] for size in (rows, columns))
    hit = (hit < ERASED) & fits.any(0)
    top = (corner_row * (height - rows + 1)).floor()
    left = (corner_column * (width - columns + 1)).floor()
    row = torch.arange(height, device=x.device).view(1, 1, -1, 1)
    column = torch.arange(width, device=x.device)
    top, left, rows, columns, hit = (value.view(-1, 1, 1, 1) for value in (top, left, rows, columns, hit))
    inside = (row >= top) & (row < top + rows) & (column >= left) & (column < left + columns)
    return x.masked_fill(inside & hit, 0)


def targeted_augmentation(x, y, generator, degrees=15.0, scale=0.1, color=0.2, chance=0.5, others=0.5):
    """Rotate and scale random images and jitter their colors: of the classes in CONFUSED more often than of the others.

    chance: of an image of the classes in CONFUSED. others: the share of that chance which the other classes have.

    The report proposes it for the confused classes only (section 3.1). But then the traces of the augmentation tell the
    class in training, and the network predicts every test image, which has no traces, as one of the other classes. So
    some images of all classes are changed, and some of all classes are not.
    """
    labels = y.argmax(1) if y.is_floating_point() else y  # a recipe may train on probabilities
    chances = torch.where(torch.isin(labels, _confused(x.device)), chance, chance * others)
    picked, turn, size, contrast, light = torch.rand(5, len(x), generator=generator, device=x.device)
    turn, size, contrast, light = (value * 2 - 1 for value in (turn, size, contrast, light))
    angle, size = torch.deg2rad(turn * degrees), 1 + size * scale
    zero = torch.zeros_like(angle)
    theta = torch.stack((angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero), 1).view(-1, 2, 3)
    grid = F.affine_grid(theta / size.view(-1, 1, 1), x.shape, align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    moved = moved * (1 + color * contrast.view(-1, 1, 1, 1)) + color * light.view(-1, 1, 1, 1)
    return torch.where((picked < chances).view(-1, 1, 1, 1), moved, x), y


def class_weights(labels, weight=1.5):
    """Return sampling weights (N,): the classes in CONFUSED have `weight` times that of the others (section 3.1)."""
    return torch.where(torch.isin(labels, _confused(labels.device)), weight, 1.0)


@functools.cache
def _confused(device):
    return torch.tensor([CLASSES.index(name) for name in CONFUSED], device=device)
