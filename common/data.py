"""CIFAR-10 as uint8 tensors, its 9:1 split, and batches that are normalized and augmented where the network is.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). On disk: the six files of the official binary
version, each 10,000 records of one label byte and 3 x 32 x 32 pixel bytes. common/support/download.py brings them.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.support.errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {  # MD5s of the official binary version
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
SAMPLE = Path(__file__).parent / "sample"
SAMPLE_FILES = {  # made by common/support/sample/make.py
    "train.bin": "1bde375ab64ecf105bad882f1372b1f0",
    "test.bin": "cde13d4fda8b222417a25a4728b716b0",
}
RECORD = 1 + 3 * 32 * 32

# Indices of the test images of which fewer than three of five people chose the label alone, of 275 that were shown to
# people (Northcutt et al., arXiv 2103.14749): `given` below 3 in github.com/cleanlab/label-errors' cifar10_mturk.json.
# A vote for the label and another class together is none for the label alone: in 17 of the 54 three or more saw it.
LABEL_ERRORS = (
    *(165, 792, 882, 1227, 1300, 1684, 1718, 1969, 2010, 2128, 2232, 2405, 2532, 2592, 2804, 2840, 2940, 3113),
    *(3168, 3183, 3192, 3490, 3600, 3753, 3977, 4055, 4198, 4614, 4643, 4794, 4910, 4965, 5166, 5191, 5211, 5468),
    *(5632, 5690, 5882, 5960, 6522, 6792, 6877, 6966, 7311, 7657, 7846, 8058, 8296, 8620, 9227, 9352, 9643, 9793),
)

TUTORIAL_STATS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # the PyTorch tutorial's stats, which the assignment follows
CIFAR10_STATS = (
    (0.4914, 0.4822, 0.4465),
    (0.2470, 0.2435, 0.2616),
)  # mean and std of the training pixels, for project 3


@dataclass(frozen=True)
class Dataset:
    """A part of the data set: images uint8 (N, 3, 32, 32), labels int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __getitem__(self, indices):
        return Dataset(self.images[indices], self.labels[indices])

    def to(self, device):
        return Dataset(self.images.to(device), self.labels.to(device))

    def __len__(self):
        return len(self.labels)


def label_errors(labels):
    """The indices that people found wrongly labelled in this test set: LABEL_ERRORS, none in the sample."""
    return LABEL_ERRORS if len(labels) == 10_000 else ()


def load(scale, folder=None):
    from common.support import download

    if scale == "quick":
        return *load_sample(), download.SAMPLE_SOURCE
    folder, source = download.find(folder)
    return *_load_folder(folder), source


def _load_folder(folder):
    """Read the whole data set from the six binary files in `folder`: (train of 50,000, test of 10,000).

    Raises:
        UserError: a file is missing, of the wrong length, or not byte for byte the official one.
    """
    parts = [_read(Path(folder) / name, md5) for name, md5 in FILES.items()]
    return _join(parts[:5]), _join(parts[5:])


def load_sample():
    """Read the embedded sample: (train of 1,400, test of 500) real images, the classes equally many."""
    train, test = (_read(SAMPLE / name, md5) for name, md5 in SAMPLE_FILES.items())
    return _join([train]), _join([test])


def _read(path, md5):
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; put it back, or name another folder with --data") from error
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(
            f"{path} is damaged: its MD5 is {found}, not {md5}; delete all six files to have them downloaded again"
        )
    return raw


def decode(raw):
    """Split binary records into images uint8 (N, 3, 32, 32) and labels int64 (N,), as numpy arrays.

    Raises:
        UserError: the bytes are not a whole number of records, or a label is not 0-9.
    """
    if not raw or len(raw) % RECORD:
        raise UserError(
            f"{len(raw)} bytes are not a whole number of CIFAR-10 records of {RECORD} bytes; download the file again"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise UserError(f"label {labels.max()} in record {labels.argmax()} is out of range 0-9; this is not CIFAR-10")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def _join(parts):
    images, labels = zip(*map(decode, parts))
    return Dataset(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)))


def train_val_split(labels, seed=0, validation=0.1):
    """Split at random into training and validation indices, class by class: 45,000 and 5,000 of CIFAR-10 (project 3, section 1.1).

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


def normalize(images, stats):
    """uint8 (..., 3, H, W) -> float32, (x / 255 - mean) / std per channel: torchvision's ToTensor and Normalize, to the bit."""
    mean, std = _constants(stats, images.device)
    return images.float().div_(255).sub_(mean).div_(std)


def black(stats, device):
    """Return what `normalize` makes of a black pixel, float32 (3, 1, 1) on `device`."""
    return normalize(torch.zeros(3, 1, 1, dtype=torch.uint8, device=device), stats)


@functools.cache
def _constants(stats, device):
    """Mean and std (3, 1, 1) on the device: copied there once, as a copy makes the host wait for a GPU."""
    return tuple(torch.tensor(values, device=device).view(3, 1, 1) for values in stats)


class Batches:
    """One pass after another over `data`, shuffled anew each time by its own generator, every example once a pass.

    Iterating yields (images float32 (B, 3, 32, 32), labels (B,)) on the data's device; the last batch may be short.

    policy: a function of uint8 images (n, 3, 32, 32), applied before normalisation.
    augment: a tuple of functions (images, generator) -> images, applied to normalized images.
    mix: a tuple of functions (images, labels, generator) -> (images, labels), applied to each batch; they may turn labels into
        probabilities (B, 10).
    weights: (N,), to draw with replacement by them. Then an example may come twice in a pass, and another not.
    """

    BLOCK = 512  # images prepared at once: a batch of 4 is too small to keep a vector unit busy

    def __init__(self, data, batch_size, *, seed, stats, policy=None, augment=(), mix=(), weights=None):
        self.data = data
        self.batch_size = batch_size
        self.stats = stats
        self.policy = policy
        self.augment = augment
        self.mix = mix
        self.weights = weights
        self.generator = torch.Generator(data.images.device).manual_seed(seed)

    def __len__(self):
        return -(-len(self.data) // self.batch_size)

    def __iter__(self):
        for block in self._order().split(max(1, self.BLOCK // self.batch_size) * self.batch_size):
            x = normalize(self.prepare(block), self.stats)
            for augment in self.augment:
                x = augment(x, self.generator)
            for batch in zip(x.split(self.batch_size), self.data.labels[block].split(self.batch_size)):
                for mix in self.mix:
                    batch = mix(*batch, self.generator)
                yield batch

    def example(self):
        """(images, labels) of a batch's shape, neither drawn nor augmented: for compiling."""
        first = self.data[slice(self.batch_size)]
        return normalize(first.images, self.stats), first.labels

    def _order(self):
        if self.weights is not None:
            return torch.multinomial(self.weights, len(self.data), replacement=True, generator=self.generator)
        return torch.randperm(len(self.data), generator=self.generator, device=self.data.images.device)

    def prepare(self, indices):
        """The uint8 images of these indices, as they are to be augmented."""
        images = self.data.images[indices]
        return self.policy(images) if self.policy else images

    def state_dict(self):
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])
