"""Files from strangers: checkpoints, weights and results are read as they were written, or refused in one line."""

import contextlib
import copy
import io
import json
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from common import cli, data, plots, tables, training
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS
from common.support import checkpoints
from common.support.checkpoints import Checkpoint
from common.support.errors import UserError
from grading import build, outputs
from project3_wrn import ensemble, improvements, label_audit, result_files
from project3_wrn import main as project3
from project3_wrn.method import weights as weights_module
from project3_wrn.method.weights import FACTS, load_network, load_shipped, shipped_path
from project3_wrn.runner import make_runs
from task1_loss_curves import main as task1
from task2_regularization import main as task2
from task3_hparams import main as task3
from task4_architectures import ablations, batch_size
from task4_architectures import main as task4
from tests.conftest import ROOT, assert_single_error_line

# --- checkpoints ---


def learner_of(kind):
    """Return a small learner and its early stopping: one network that has some, or a stack of two."""
    torch.manual_seed(0)
    if kind == "stack":
        models = [[MODELS["lenet"]()], [MODELS["lenet"]()]]
        return StackedLearner(models, lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20), None
    model = MODELS["lenet"](dropout=0.0)
    return Learner(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)), training.EarlyStopping()


def fit(path, kind, sample, epochs=2):
    """Train, or resume from the checkpoint `path`; return the losses of all batches."""
    learner, stopping = learner_of(kind)
    batches = [data.Batches(sample[0][:40], 20, seed=seed, stats=data.TUTORIAL_STATS) for seed in (0, 1)]
    parts = StackedBatches(batches) if kind == "stack" else batches[0]
    history = training.fit(
        learner,
        parts,
        epochs,
        evaluate=lambda: {"val_accuracy": torch.full(learner.shape, 50.0)},
        early_stopping=stopping,
        checkpoint=Checkpoint(path, {"lr": 0.01}),
    )
    return history["batch_losses"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sample):
    """Return {kind: (checkpoint after one epoch, losses of two epochs that nothing stopped)}."""
    folder, found = tmp_path_factory.mktemp("checkpoints"), {}
    for kind in ("network", "stack"):
        fit(folder / f"{kind}.pt", kind, sample, 1)
        found[kind] = folder / f"{kind}.pt", fit(folder / "straight" / f"{kind}.pt", kind, sample)
    return found


def equal(one, other):
    """Return whether two documents of tensors and plain values are the same to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return same and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, (dict, list, tuple)) and type(one) is type(other):
        pairs = zip(one.items(), other.items()) if isinstance(one, dict) else zip(one, other)
        return len(one) == len(other) and all(equal(*pair) for pair in pairs)
    return type(one) is type(other) and one == other


def damage(whole, generator, cut=False):
    """Return a file's bytes with one bit flipped, or cut off; in half of the cases near its end."""
    start = len(whole) - min(len(whole), 6000) if generator.integers(2) else 0
    place = int(generator.integers(start, len(whole)))
    if cut:
        return whole[:place]
    changed = bytearray(whole)
    changed[place] ^= 1 << generator.integers(8)
    return bytes(changed)


@pytest.mark.attack("a checkpoint with one bit flipped or its end cut off", short=1, whole=10)
def test_damaged_checkpoints(attempt, trained, tmp_path, record_property):
    generator, path, tries = np.random.default_rng(attempt), tmp_path / "run.pt", 200
    whole = trained["network"][0].read_bytes()
    original, refused = checkpoints.load(trained["network"][0], "checkpoint", ""), 0
    for number in range(tries):
        path.write_bytes(damage(whole, generator, cut=number % 2))
        try:
            assert equal(checkpoints.load(path, "checkpoint", "start over"), original)
        except checkpoints.Damaged as problem:
            refused += 1
            assert "\n" not in str(problem) and "run.pt" in str(problem) and "start over" in str(problem)
    assert refused > 0.6 * tries  # all that are cut off
    record_property("tried", tries)


def places(document, where=()):
    """Yield the place of everything in a document of dicts and lists, as a tuple of keys."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        yield (*where, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*where, key))


def crafted(document, place, value):
    """Return a copy of a document with `value` at a place, or without it where `value` is ..."""
    changed = copy.deepcopy(document)
    *above, key = place
    parent = changed
    for name in above:
        parent = parent[name]
    if value is ...:
        del parent[key]
    else:
        parent[key] = value
    return changed


def resume(document, kind, sample, path, losses):
    """Resume from a document; return whether it was refused, in one line. Accepted, it must end as `losses`."""
    checkpoints.discard(path)
    torch.save(document, path)
    try:
        found = fit(path, kind, sample)
    except UserError as error:
        assert "\n" not in str(error) and "run.pt" in str(error) and "--fresh" in str(error)
        return True
    assert np.array_equal(found, losses)
    return False


BAD = []
VALUES = (..., None, "text", [], {}, True, 7, -5, 2.5, torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), [None])


@pytest.mark.attack("a checkpoint without one of its keys, or with a value of another type or shape", short=1, whole=1)
@pytest.mark.parametrize("kind", ["network", "stack"])
def test_crafted_checkpoints(attempt, kind, trained, sample, tmp_path, record_property):
    """Everything in the document that a training writes is replaced by everything that it is not."""
    path, losses = trained[kind]
    original, refused, tried = checkpoints.load(path, "checkpoint", ""), 0, 0
    generator = np.random.default_rng(attempt)
    for place in places(original):
        values = VALUES if len(place) == 1 else [VALUES[number] for number in generator.choice(len(VALUES), 3)]
        for value in values:
            old = value_at(original, place)
            if value is not ... and equal(value, old) or is_number(value) and is_number(old) and len(place) > 1:
                continue  # a number of the right kind in a file that is whole is what was written
            try:
                refused += resume(crafted(original, place, value), kind, sample, tmp_path / "run.pt", losses)
            except BaseException as error:
                BAD.append((place, value, repr(error)[:150]))
            tried += 1
    record_property("tried", tried)
    print(tried, refused)
    for b in BAD: print(b)
    assert refused > 0.9 * tried and not BAD


def is_number(value):
    return isinstance(value, (int, float))


def value_at(document, place):
    for key in place:
        document = document[key]
    return document
