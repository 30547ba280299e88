"""CIFAR-10 as uint8 tensors, its 9:1 split, and batches normalized and augmented on the network's device."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.support import download
from common.support.cifar_files import SAMPLE, SAMPLE_FILES, decode, read

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VALIDATION_SHARE = 0.1  # the share of the training images that is held out for validation
SAMPLE_SOURCE = "the embedded sample (common/support/sample)"
IMAGE_SIZE = 32  # pixels per side

Stats = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and std per channel, of pixels in 0..1
# the PyTorch tutorial's, which the assignment follows
TUTORIAL_STATS: Stats = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# those of the training pixels, for project 3
CIFAR10_STATS: Stats = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, 3, 32, 32) and their labels int64 (N,).

    targets: probabilities (N, 10) that Batches yields in place of the labels, or None.
    """

    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor | None = None

    def __getitem__(self, indices) -> "Dataset":
        targets = None if self.targets is None else self.targets[indices]
        return Dataset(self.images[indices], self.labels[indices], targets)

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the same images and labels on `device`."""
        targets = None if self.targets is None else self.targets.to(device)
        return Dataset(self.images.to(device), self.labels.to(device), targets)

    def __len__(self) -> int:
        return len(self.labels)


def load(scale: str, folder: str | Path | None = None) -> tuple[Dataset, Dataset, str]:
    """Return the training set, the test set, and where they come from, for run.json.

    scale: "full": all of CIFAR-10, 50,000 and 10,000 images. "quick": the embedded sample, 1,400 and 500 real images
        with equally many of each class.
    folder: contains CIFAR-10 in any official form, or is where to download it to; data/ in the repository if None.

    Raises:
        UserError: a file is missing or damaged, and cannot be downloaded.
    """
    if scale == "quick":
        files, source = {name: read(SAMPLE / name, md5) for name, md5 in SAMPLE_FILES.items()}, SAMPLE_SOURCE
    else:
        files, source = download.load(folder)
    *train, test = map(decode, files.values())
    return _join(train), _join([test]), source


def _join(parts):
    images, labels = zip(*parts)
    return Dataset(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)))


def train_val_split(
    labels: torch.Tensor, seed: int = 0, validation: float = VALIDATION_SHARE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split at random, class by class, into training and validation indices: 45,000 and 5,000 (project 3, section 1.1).

    Returns two sorted int64 tensors, disjoint, covering all; the same for the same seed.
    """
    generator = torch.Generator().manual_seed(seed)
    train, held_out = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        count = round(len(members) * validation)
        held_out.append(members[:count])
        train.append(members[count:])
    return torch.cat(train).sort().values, torch.cat(held_out).sort().values


def normalize(images: torch.Tensor, stats: Stats) -> torch.Tensor:
    """Return (x / 255 - mean) / std per channel, float32, of uint8 images (..., 3, H, W).

    The result equals that of torchvision's ToTensor and Normalize to the bit.
    """
    mean, std = _constants(stats, images.device)
    return images.float().div_(255).sub_(mean).div_(std)


def black(stats: Stats, device: torch.device | str) -> torch.Tensor:
    """Return what `normalize` makes of a black pixel, float32 (3, 1, 1) on `device`."""
    return normalize(torch.zeros(3, 1, 1, dtype=torch.uint8, device=device), stats)


@functools.cache
def _constants(stats, device):
    """Return mean and std (3, 1, 1) on the device, copied there once: a copy makes the host wait for a GPU."""
    return tuple(torch.tensor(values, device=device).view(3, 1, 1) for values in stats)


class Batches:
    """Passes over a dataset, each in a new random order and with every example once.

    Iterating yields (images float32 (B, 3, 32, 32), labels (B,)) on the dataset's device; the last batch may be short.
    A dataset with targets has these probabilities (B, 10) for labels.

    policy: a function (uint8 images (n, 3, 32, 32), generator) -> images, applied before normalization.
    augment: a tuple of functions (images, generator) -> images, applied to normalized images.
    mix: a tuple of functions (images, labels, generator) -> (images, labels), applied to each batch; they may turn
        labels into probabilities (B, 10).
    weights: (N,), to draw with replacement in proportion to them; an example may then come twice in a pass, or not at
        all.
    """

    BLOCK = 512  # images prepared at once: a batch of 4 is too small to keep a vector unit busy

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        stats: Stats,
        policy: Callable | None = None,
        augment: tuple[Callable, ...] = (),
        mix: tuple[Callable, ...] = (),
        weights: torch.Tensor | None = None,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.stats = stats
        self.policy = policy
        self.augment = augment
        self.mix = mix
        self.weights = weights
        self.generator = torch.Generator(dataset.images.device).manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        labels = self.dataset.labels if self.dataset.targets is None else self.dataset.targets
        for block in self._order().split(max(1, self.BLOCK // self.batch_size) * self.batch_size):
            x = normalize(self.prepare(block), self.stats)
            for augment in self.augment:
                x = augment(x, self.generator)
            for batch in zip(x.split(self.batch_size), labels[block].split(self.batch_size)):
                for mix in self.mix:
                    batch = mix(*batch, self.generator)
                yield batch

    def _order(self):
        if self.weights is not None:
            return torch.multinomial(self.weights, len(self.dataset), replacement=True, generator=self.generator)
        return torch.randperm(len(self.dataset), generator=self.generator, device=self.dataset.images.device)

    def prepare(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the uint8 images of these indices, ready to be normalized."""
        images = self.dataset.images[indices]
        return self.policy(images, self.generator) if self.policy else images

    def state_dict(self) -> dict:
        """Return the state of the random numbers, between two passes."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Set the random numbers to what `state_dict` returned."""
        self.generator.set_state(state["generator"])
