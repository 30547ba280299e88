"""What a CUDA run needs, as far as a CPU can show it.

A step never waits for the device, every full batch is one graph of static shapes, and out of memory is one line.
"""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common import cli, cuda_graph, data
from common.learners import StackedBatches, StackedLearner
from common.models import MODELS
from project3_wrn.method.recipes import RECIPES, Recipe
from project3_wrn.method.train import Backend, build
from tests.conftest import run_python

EAGER = Backend()
# operations whose result the host has to see: a value, or how many values there are
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


class Waits(TorchDispatchMode):
    """Collect the operations that make the host wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        name = operation.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1]
        )
        if name.startswith(WAITS) or by_mask:
            self.seen.append(name)
        return operation(*arguments, **(named or {}))


def test_waits_are_seen():
    x = torch.arange(4.0)
    for wait in (
        lambda: x.sum().item(),
        lambda: bool(x.any()),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: float(x[0]),
    ):
        with Waits() as waits:
            wait()
        assert waits.seen


def reports(change, images, backend=EAGER):
    return build("lenet", dataclasses.replace(Recipe(batch_size=20), **change), 0, images, backend)[:2]


def quick(name, images, backend=EAGER):
    return build("fast_small", dataclasses.replace(RECIPES[name], batch_size=20, epochs=3), 0, images, backend)[:2]


def stack(images, **options):
    models = [[MODELS["lenet"](dropout=p) for p in (0.0, 0.5)] for _ in range(2)]
    learner = StackedLearner(
        models, lr=[0.01] * 2, momentum=[0.9] * 2, weight_decay=[0.0, 0.01], batch_size=20, **options
    )
    return learner, StackedBatches(
        [data.Batches(images, 20, seed=seed, stats=data.TUTORIAL_STATS) for seed in range(2)]
    )


@pytest.mark.parametrize(
    "made",
    [
        stack,
        *(lambda images, name=name: quick(name, images) for name in ("fast94", "fast95", "fast96")),
        *(
            lambda images, change=change: reports(change, images)
            for change in (
                {},
                {"mixing": "mixup"},
                {"mixing": "cutmix"},
                {"loss": "focal"},
                {"loss": "ohem"},
                {"loss": "contrastive"},
                {"targeted_augmentation": True},
                {"class_weighted_sampling": True},
                {"ema": 0.9},
                {"optimizer": "adamw"},
            )
        ),
    ],
)
def test_no_step_waits_for_the_device(sample, made):
    """Neither batches nor steps read anything back, except at the start of a pass: steps run ahead of a GPU."""
    learner, batches = made(sample[0][:100])
    for x, y in batches:  # constants are copied to the device once
        learner.step(x, y)
    with Waits() as waits:
        for x, y in batches:
            learner.set_lr(0.5)
            learner.step(x, y)
    assert waits.seen == []


def test_every_full_batch_is_one_graph(sample, monkeypatch):
    """There are no graph breaks, and one compilation per size: none for another learning rate or later epochs."""
    torch._dynamo.reset()
    graphs, compiler = [], torch.compile

    def counted(graph, inputs):
        graphs.append(len(inputs))
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda what, **_: compiler(what, dynamic=False, fullgraph=True, backend=counted)
    )
    monkeypatch.setattr(cuda_graph, "WORTH_COMPILING", 0)
    images = sample[0][:90]  # the last batch is short, and not compiled
    compiled = Backend(compiled=True)
    trainings = (reports({}, images, compiled), quick("fast94", images, compiled), stack(images, compiled=True))
    for count, (learner, batches) in zip((1, 3, 4), trainings):
        for epoch in range(5):
            learner.set_lr(1 - epoch / 5)
            for x, y in batches:
                learner.step(x, y)
        assert len(graphs) == count


def test_out_of_memory_is_one_line(capsys):
    def main():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")

    with pytest.raises(SystemExit) as left:
        cli.entry_point(main)
    error = capsys.readouterr().err
    assert left.value.code == 1 and error.count("\n") == 1 and "--batch-size" in error and "checkpoint is kept" in error


def test_deterministic_is_set_before_cuda_starts():
    script = "import sys; sys.argv = ['x', '--deterministic', '--device', 'cpu', '--scale', 'quick']\n"
    script += "from pathlib import Path; from common import cli\n"
    script += "cli.resolve_options(cli.make_parser('').parse_args(), Path())\n"
    script += (
        "import os, torch; print(torch.are_deterministic_algorithms_enabled(), os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    assert run_python("-c", script).stdout.split() == ["True", ":4096:8"]
