"""Whole steps as CUDA graphs, on a CPU: a tape stands in for a graph.

Like a graph it keeps which operations were called with which tensors and numbers, and replays them on the same memory:
no line of Python runs again. So whatever a step would freeze by mistake, such as a learning rate or a number of steps,
gives other losses than the same training without a graph.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common import cuda_graph, data, training
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS
from common.support.checkpoints import Checkpoint
from project3_wrn.method import train
from project3_wrn.method.recipes import RECIPES
from project3_wrn.method.train import build
from tests.test_cuda_ready import WAITS


class Tape(TorchDispatchMode):
    """Records operations; `replay` computes them again, into the tensors that they returned."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        assert not operation.overloadpacket.__name__.startswith(WAITS), f"{operation} cannot be captured"
        result = operation(*arguments, **(named or {}))
        self.operations.append((operation, arguments, named or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        for operation, arguments, named, result in self.operations:
            if any(returned.alias_info and not returned.alias_info.is_write for returned in operation._schema.returns):
                continue  # a view stays one
            again = operation(*arguments, **named)
            for old, new in zip(tree_leaves(result), tree_leaves(again)):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Device:
    """The GPU that `cuda_graph.capture` needs, as a tape: what it computes while capturing is undone."""

    def __init__(self):
        self.tapes = []

    def capture(self, function, arguments):
        tape = Tape()
        with tape:
            result = function(*arguments)
        self.tapes.append(tape)
        # A capture computes nothing. The tape has, once: its first replay is that computation.
        pending = [True]

        def replay():
            if not pending:
                tape.replay()
            pending.clear()

        return replay, result


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(cuda_graph, "capture", device.capture)
    return device


BATCH = 10


def of_recipe(model="lenet", recipe="report", **change):
    def make(images, graph, monkeypatch):
        monkeypatch.setattr(
            train, "Learner", lambda *arguments, **options: Learner(*arguments, **{**options, "graph": graph})
        )
        changed = dataclasses.replace(RECIPES[recipe], batch_size=BATCH, epochs=3, **change)
        learner, batches, schedule = build(model, changed, 0, images)
        for group in learner.optimizer.param_groups:  # as on CUDA: the others read a learning rate on the host
            group["fused"] = True
        return learner, batches, schedule

    return make


def stack(images, graph, monkeypatch):
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append([MODELS["lenet"](dropout=p) for p in (0.0, 0.5)])
    learner = StackedLearner(
        models, lr=[0.01, 0.02], momentum=[0.9] * 2, weight_decay=[0.0, 0.01], batch_size=BATCH, graph=graph
    )
    torch.manual_seed(7)  # of the dropout
    batches = [data.Batches(images, BATCH, seed=seed, stats=data.TUTORIAL_STATS) for seed in range(2)]
    return learner, StackedBatches(batches), training.cosine


TRAININGS = {
    "stack": stack,
    "report": of_recipe(),
    "batch norm": of_recipe("lightweight_resnet"),
    "warmup": of_recipe(warmup=1),
    "adamw": of_recipe(optimizer="adamw", lr=0.001),
    "ema, mixup, focal": of_recipe(ema=0.9, mixing="mixup", loss="focal"),
    "cutmix": of_recipe(mixing="cutmix"),
    "ohem": of_recipe(loss="ohem"),
    "contrastive": of_recipe("resnet18", loss="contrastive"),
    "fast94": of_recipe("fast_small", "fast94", low_res_epochs=1.5),  # small images first, then whole ones: two graphs
    "fast95": of_recipe("fast_small", "fast95"),
}
GRAPHS = {"fast94": 2}
ROUNDED = ("adamw", "fast94")  # their optimizers compute with a learning rate of more digits than a tensor's


@pytest.mark.parametrize("name", TRAININGS)
def test_a_replayed_training_is_an_eager_one(sample, device, monkeypatch, name):
    """All losses and all weights are the same to the bit, except in ROUNDED; the last batch of a pass is short."""
    images, histories, learners = sample[0][:87], [], []
    for graph in (False, True):
        learner, batches, schedule = TRAININGS[name](images, graph, monkeypatch)
        histories.append(training.fit(learner, batches, 3, schedule=schedule))
        learners.append(learner)
    assert len(device.tapes) == GRAPHS.get(name, 1)  # nothing is captured twice, nothing without need
    exact = {"rtol": 0, "atol": 0} if name not in ROUNDED else {"rtol": 1e-4, "atol": 1e-5}
    for field in histories[0].keys() - {"seconds", "compile_seconds"}:
        torch.testing.assert_close(*(torch.as_tensor(history[field]) for history in histories), **exact)
    assert histories[1]["compile_seconds"][0] > 0
    for one, other in zip(*(tree_leaves(learner.state_dict()) for learner in learners), strict=True):
        if isinstance(one, (torch.Tensor, float)):
            numbers = (torch.as_tensor(value, dtype=torch.float32) for value in (one, other))
            torch.testing.assert_close(*numbers, **exact)


def test_a_frozen_number_is_seen(sample, device, monkeypatch):
    """The tape is no better than what it finds: a learning rate that is a number gives other losses."""
    losses = []
    for graph in (False, True):
        learner, batches, schedule = TRAININGS["report"](sample[0][:80], graph, monkeypatch)
        learner._rates = None
        losses.append(training.fit(learner, batches, 3, schedule=schedule)["batch_losses"])
    assert np.array_equal(losses[0][:8], losses[1][:8]) and not np.array_equal(losses[0], losses[1])


@pytest.mark.parametrize("name", ["stack", "ema, mixup, focal", "fast94"])
def test_a_replayed_training_is_resumed(sample, device, monkeypatch, tmp_path, name):
    losses = []
    for epochs in ((3,), (2, 3)):
        for until in epochs:
            learner, batches, schedule = TRAININGS[name](sample[0][:87], True, monkeypatch)
            path = tmp_path / f"{len(epochs)}.pt"

            def fixed(epoch, _, schedule=schedule):
                return schedule(epoch, 3)

            history = training.fit(learner, batches, until, schedule=fixed, checkpoint=Checkpoint(path))
        losses.append(history["batch_losses"])
    assert np.array_equal(*losses)


def test_three_eager_steps_one_capture_then_replays(device):
    calls, graphs = [], cuda_graph.StepGraphs()
    total = torch.zeros(())

    def function(x):
        calls.append(len(x))
        total.add_(x.sum())
        return total * 2

    results = [graphs(function, torch.full((3,), float(number))) for number in range(8)]
    assert len(calls) == 4 and len(device.tapes) == 1
    assert [float(result) for result in results] == [3.0 * number * (number + 1) for number in range(8)]
    graphs(function, torch.ones(2))  # other shapes are another graph
    assert len(calls) == 5
    assert graphs.take_seconds() > 0 and graphs.take_seconds() == 0


def test_a_capture_that_fails_is_one_line_and_training_goes_on_without(sample, monkeypatch, device, capsys):
    losses = []
    for graph in (False, True):
        learner, batches, schedule = TRAININGS["report"](sample[0][:80], graph, monkeypatch)
        monkeypatch.setattr(cuda_graph, "capture", lambda *_: 1 / 0)
        losses.append(training.fit(learner, batches, 2, schedule=schedule)["batch_losses"])
    assert np.array_equal(*losses)
    assert capsys.readouterr().err.splitlines() == ["steps are launched kernel by kernel, so slower: division by zero"]


def test_long_steps_have_no_graph_and_short_ones_no_compiler():
    """A graph reserves its memory again, and only many short kernels gain by it; compiling takes a minute."""
    work = {name: train.step_flops(name, 256) for name in ("resnet18", "wrn28_10", "vit", "dla34")}
    assert work["wrn28_10"] > cuda_graph.LONG_STEP > work["resnet18"] > cuda_graph.WORTH_COMPILING
    assert max(work["vit"], work["dla34"], train.step_flops("lightweight_resnet", 256)) < cuda_graph.WORTH_COMPILING


def test_a_scaled_training_skips_what_overflows_and_is_resumed(sample):
    """In fp16 the loss is scaled. Where a gradient overflows, the step is skipped and the scale is halved."""

    def learner():
        torch.manual_seed(0)
        model = MODELS["lenet"](dropout=0.0)
        return Learner(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), precision="fp16")

    mine = learner()
    batches = data.Batches(sample[0][:80], BATCH, seed=0, stats=data.TUTORIAL_STATS)
    x, y = next(iter(batches))
    before = mine.weights()
    mine.scaler.scale(torch.zeros(()))  # it begins with its first use
    mine.scaler.update(2.0**40)  # fp16 ends at 65504
    assert mine.step(x, y).isfinite()
    assert mine.scaler.get_scale() == 2.0**39
    assert all(torch.equal(value, before[name]) for name, value in mine.weights().items())
    mine.scaler.update(1024.0)
    mine.step(x, y)
    assert not all(torch.equal(value, before[name]) for name, value in mine.weights().items())
    again = learner()
    again.load_state_dict(copy.deepcopy(mine.state_dict()))  # as from a file
    assert again.scaler.state_dict() == mine.scaler.state_dict()
    for _ in range(2):
        assert torch.equal(again.step(x, y), mine.step(x, y))
