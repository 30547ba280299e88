"""A loss that is not finite: the last good state stays, the step is named, and the same command resumes."""

import random

import numpy as np
import pytest
import torch

from common import training
from common.learners import Learner
from common.support import checkpoints
from common.support.checkpoints import Checkpoint
from common.support.errors import UserError
from project3_wrn.method import train
from project3_wrn.method.recipes import Recipe
from tests.test_training import batches, network

EPOCHS, STEPS = 5, 20  # the 1,260 images of the sample's split in batches of 64


@pytest.fixture(scope="module")
def straight():
    """Return {(): (learner, history)}, filled by the first test: the training whose gradients are all finite."""
    return {}


@pytest.mark.parametrize("loss", ["infinite", "not a number"])
@pytest.mark.attack("a gradient that is not finite at a random step of project 3", short=1, whole=10)
def test_a_gradient_that_is_not_finite(sample, tmp_path, monkeypatch, straight, loss, attempt):
    splits, recipe = train.make_splits(Recipe(), sample[0]), Recipe(lr=0.05, epochs=EPOCHS, batch_size=64)
    if not straight:
        straight[()] = train.train("lenet", recipe, 0, splits)
    step = random.Random(f"{loss} {attempt}").randint(2, EPOCHS * STEPS)
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)
    taken, real = [], Learner.backward_and_step

    def broken(self, value):
        taken.append(1)
        factor = float("inf" if loss == "infinite" else "nan")
        real(self, value * (factor if len(taken) == step else 1))

    monkeypatch.setattr(Learner, "backward_and_step", broken)
    path = tmp_path / "0.pt"
    with pytest.raises(UserError) as failure:
        train.train("lenet", recipe, 0, splits, checkpoint=Checkpoint(path))
    line, epoch = str(failure.value), -(-step // STEPS)
    assert len(taken) == epoch * STEPS and "\n" not in line
    noticed = min(step + 1, epoch * STEPS)  # the loss before the step is finite, and in an epoch's last one the next's
    for text in (f"step {noticed}, in epoch {epoch}", f"kept in {path}", "rerun the same command", "--fresh"):
        assert text in line, line
    document = checkpoints.load(path, "checkpoint", "")
    done = document["epoch"] * STEPS + (len(document["partial"]["losses"]) if document["partial"] else 0)
    assert done == step - 1
    weights = (*document["learner"]["model"].values(), *(document["best_weights"] or {}).values())
    assert all(value.isfinite().all() for value in weights)

    monkeypatch.setattr(Learner, "backward_and_step", real)
    learner, history = train.train("lenet", recipe, 0, splits, checkpoint=Checkpoint(path))
    expected, expected_history = straight[()]
    assert np.array_equal(history["batch_losses"], expected_history["batch_losses"])
    assert all(torch.equal(value, expected.weights()[name]) for name, value in learner.weights().items())


@pytest.mark.attack("a network of tasks 1 to 4 whose weights become infinite", short=1, whole=4)
def test_a_network_of_the_assignment(sample, tmp_path, monkeypatch, attempt):
    """It stops at the end of that epoch; what is written is the state before it."""
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)
    learner, epoch = network(), 1 + attempt

    def diverge(epochs_done, history):
        if epochs_done == epoch:
            learner.set_lr(float("nan"))
            learner.set_lr = lambda factor: None

    path = tmp_path / "run.pt"
    history = training.fit(learner, batches(sample), 6, checkpoint=Checkpoint(path), on_epoch=diverge)
    assert len(history["epoch_losses"]) == epoch + 1
    assert history["diverged_step"] == 5 * epoch + 2  # its first step's loss was computed before the update
    document = checkpoints.load(path, "", "")
    assert document["epoch"] == epoch and document["partial"] is None
    assert all(value.isfinite().all() for value in document["learner"]["model"].values())
