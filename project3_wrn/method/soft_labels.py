"""Soft labels for ambiguous images (project 3's report, section 2.6): the probabilities that label_audit.py saves.

Each training image has those of a network that was not trained on it. No test image and no test label is used. These
networks have seen the validation labels of the 9:1 split, so with soft labels validation accuracy may be a little high.
"""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F

from common import tables
from common.data import CLASSES
from common.support.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
FILE = "label_audit/probabilities.npz"
# in this order: by the report's network, by the small one of a CPU, of the sample
FOLDERS = ("outputs", "outputs_short", "outputs_quick")


def add_targets(train_set, share):
    """Return the whole training set with targets (N, 10): `share` of the saved probabilities, the rest of its labels.

    Raises:
        UserError: there are no probabilities of this training set.
    """
    probabilities = load(len(train_set))
    one_hot = F.one_hot(train_set.labels, len(CLASSES)).float()
    return dataclasses.replace(train_set, targets=torch.lerp(one_hot, probabilities.to(one_hot.device), share))


def load(count):
    """Return the out-of-fold probabilities (count, 10) of the training images, from the first folder that has them.

    Print which file it is: its networks depend on the device that label_audit.py had.
    """
    for folder in FOLDERS:
        path = PROJECT / folder / FILE
        if path.exists():
            probabilities = torch.from_numpy(tables.load_arrays(path)["train"]).float()
            if probabilities.shape == (count, len(CLASSES)):
                print(f"soft labels: {path}", flush=True)
                return probabilities / probabilities.sum(1, keepdim=True)
    raise UserError(
        f"--soft-labels needs the probabilities of {count:,} training images in {FOLDERS[0]}/{FILE}; run label_audit.py"
        " first"
    )
