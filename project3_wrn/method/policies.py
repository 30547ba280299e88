"""Augmentations that chapter 3 of the report proposes: torchvision's policies, and one for confusable classes."""

import functools
import itertools

import torch
import torch.nn.functional as F
from torchvision import transforms

from common.data import CLASSES
from common.reported import CONFUSED_PAIRS

CONFUSED = tuple(itertools.chain(*CONFUSED_PAIRS))
GROUP_SIZE = 8  # this many images share a draw; one call per image takes five times as long
POLICIES = {
    "autoaugment": transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),  # arXiv 1805.09501
    "randaugment": transforms.RandAugment(),  # arXiv 1909.13719
    "trivialaugment": transforms.TrivialAugmentWide(),  # arXiv 2103.10158
}


def auto_augment(name):
    """Return the policy `name` as a function of uint8 images (N, 3, 32, 32).

    It computes on the CPU, where the many small operations of torchvision's policies are fastest.
    """

    def augment(images):
        return apply_in_groups(POLICIES[name], images.cpu()).to(images.device)

    return augment


def random_erasing(x, generator):
    """Fill a random rectangle of half of the images with 0, the mean color (arXiv 1708.04896).

    torchvision draws from torch's global generator; `generator` is not used.
    """
    return apply_in_groups(transforms.RandomErasing(p=0.5), x)


def apply_in_groups(transform, images):
    """Call torchvision's transform once for every GROUP_SIZE images of a shuffled batch.

    It draws once per call, so these images share the operation and its strength; every image still gets each operation
    equally often.
    """
    return torch.cat([transform(group) for group in images.split(GROUP_SIZE)])


def targeted_augmentation(x, y, generator, degrees=15.0, scale=0.1, color=0.2, chance=0.5, others=0.5):
    """Rotate and scale random images and jitter their colors: of the classes in CONFUSED more often than of the others.

    chance: of an image of the classes in CONFUSED. others: the share of that chance which the other classes have.

    The report proposes it for the confused classes only (section 3.1). But then the traces of the augmentation tell the
    class in training, and the network predicts every test image, which has no traces, as one of the other classes. So
    some images of all classes are changed, and some of all classes are not.
    """
    chances = torch.where(torch.isin(y, _confused(x.device)), chance, chance * others)
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
