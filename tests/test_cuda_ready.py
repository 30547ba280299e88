"""What a CUDA run needs, as far as a CPU can show it.

A step never waits for the device, every full batch is one graph of static shapes, and out of memory is one line.
"""

import dataclasses
import os
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common import cli, cuda_graph, data
from common.learners import StackedBatches, StackedLearner
from common.models import MODELS
from common.support import machine, nvidia
from common.support.errors import UsageError, UserError
from project3_wrn.method import distributed
from project3_wrn.method.recipes import RECIPES, Recipe
from project3_wrn.method.train import Backend, build
from tests.conftest import ROOT, assert_single_error_line, run, run_python

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


def left_with(error, capsys):
    """Return the one line that a program prints which ends by this error."""

    def main():
        raise error

    with pytest.raises(SystemExit) as left:
        cli.entry_point(main)
    printed = capsys.readouterr().err
    assert left.value.code == 1 and printed.startswith("error: ") and printed.count("\n") == 1, printed
    return printed


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_one_line(capsys, error):
    line = left_with(error, capsys)
    assert "--batch-size" in line and "checkpoint is kept" in line and "out of memory" in line


def test_a_broken_gpu_is_one_line(capsys):
    broken = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")
    assert "illegal memory access" in (line := left_with(broken, capsys)) and "resume" in line
    line = left_with(RuntimeError("CUDA error: no kernel image is available for execution on the device"), capsys)
    assert "cu126" in line and "--device cpu" in line
    with pytest.raises(RuntimeError):  # any other error keeps its traceback
        cli.entry_point(lambda: (_ for _ in ()).throw(RuntimeError("shapes differ")).__next__())


# --- the card, the driver and the build of torch ---


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Return smi(text, status), which puts an nvidia-smi on the PATH that prints this."""

    def put(text, status=0):
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return put


posix = pytest.mark.skipif(os.name == "nt", reason="the stub is a shell script")


@posix
@pytest.mark.parametrize(
    ("text", "status", "card", "index"),
    [
        ("NVIDIA H100 80GB HBM3, 580.65.06, 9.0", 0, ("NVIDIA H100 80GB HBM3", "580.65.06", (9, 0)), "cu130"),
        ("Tesla T4, 550.54.15, 7.5", 0, ("Tesla T4", "550.54.15", (7, 5)), "cu126"),
        ("NVIDIA GeForce GTX 1080, 580.65.06, 6.1", 0, ("NVIDIA GeForce GTX 1080", "580.65.06", (6, 1)), "cu126"),
        ("Tesla T4, 470.57", 0, ("Tesla T4", "470.57", ()), "cu126"),
        ("NVIDIA-SMI has failed because it could not communicate", 9, ("", "", ()), "cu126"),
    ],
)
def test_card_and_driver_decide_which_wheels_are_installed(smi, text, status, card, index):
    smi(text, status)
    found = nvidia.find_card()
    assert (found.name, found.driver, found.capability) == card
    assert nvidia.wheel_index(found, "Linux") == nvidia.wheel_index(found, "Windows") == index
    assert run(sys.executable, "-S", ROOT / "common" / "support" / "nvidia.py").stdout.strip() == index


def test_without_a_card_linux_gets_the_small_wheels():
    assert [nvidia.wheel_index(None, system) for system in ("Linux", "Windows", "Darwin")] == ["cpu", "", ""]


@posix
def test_a_card_that_is_hidden_is_not_there(smi, monkeypatch):
    smi("Tesla T4, 550.54.15")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvidia.find_card() is None


@posix
@pytest.mark.skipif(torch.cuda.is_available(), reason="here torch can use the card")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_card_that_torch_cannot_use_stops_with_one_line(smi, device):
    """Nobody who has a GPU gets quick scale on the CPU without having asked for it."""
    smi("NVIDIA A10, 550.54.15")
    words = (ROOT / "task1_loss_curves" / "main.py", "--device", device)
    line = "NVIDIA A10, driver 550.54.15", f"torch {torch.__version__}", "--index-url", "/cu126", "--device cpu"
    assert_single_error_line(run_python(*words), *line, status=1)
    on_cpu = run_python(*words[:1], "--device", "cpu", "--scale", "quick", "--plan")
    assert on_cpu.returncode == 0, on_cpu.stderr


def test_a_card_that_is_too_old_for_this_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GeForce GTX 1080")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_120", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    for version in ("13.0", "12.8"):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(UserError, match=r"GTX 1080.* capability 6\.1.*pip install .*cu126"):
            machine.choose_device("auto")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (3, 7))
    with pytest.raises(UserError, match=r"capability 3\.7; no build of this torch has code"):
        machine.choose_device("auto")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert machine.choose_device("auto") == "cuda"


@pytest.mark.parametrize(
    ("version", "card", "remedy"),
    [
        (None, ("RTX 3060", "581.15", (8, 6)), "/cu130, or train"),  # Windows' torch of the package index
        (None, ("RTX 3060", "560.94", (8, 6)), "/cu126, or train"),
        ("13.0", ("RTX 3060", "560.94", (8, 6)), "/cu126, or train"),  # a driver that is too old for this torch
        ("13.0", ("RTX 3060", "470.57", ()), "install NVIDIA's driver 525 or newer"),  # and for any torch
        ("13.0", ("RTX 5090", "570.86", (12, 0)), "install NVIDIA's driver 580 or newer"),  # cu126 has no code for it
        (
            "13.2",
            ("RTX 3060", "581.15", (8, 6)),
            "see whether nvidia-smi finds the card",
        ),  # this torch is the right one
        (None, ("", "", ()), "see whether nvidia-smi finds the card"),
        (None, ("Tesla K80", "470.57", (3, 7)), "no build of this torch has code for that card"),
    ],
)
def test_what_mends_a_card_that_torch_does_not_see(monkeypatch, version, card, remedy):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(nvidia, "find_card", lambda: nvidia.Card(*card))
    monkeypatch.setattr(machine, "_why_unavailable", lambda: "because")
    line = machine.cuda_problem()
    assert remedy in line and line.count("because") == 1 and "--device cpu" in line and "\n" not in line
    assert all(part in line for part in card[:2])
    assert ("pip install" in line) == ("/cu1" in line)


@pytest.mark.parametrize(
    ("capability", "bf16", "precision"), [(6, False, "fp32"), (7, False, "fp16"), (9, True, "bf16")]
)
def test_precision_of_a_gpu(monkeypatch, capability, bf16, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (capability, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert machine.choose_precision("auto", "cuda") == precision
    with pytest.raises(UsageError, match="fp16"):
        machine.choose_precision("fp16", "cpu")


def test_a_cluster_that_sets_world_size_alone_is_no_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.world_size() == 1 and distributed.is_main_process()
    with distributed.process_group("cpu") as device:
        assert device == "cpu"


def test_deterministic_is_set_before_cuda_starts():
    script = "import sys; sys.argv = ['x', '--deterministic', '--device', 'cpu', '--scale', 'quick']\n"
    script += "from pathlib import Path; from common import cli\n"
    script += "cli.resolve_options(cli.make_parser('').parse_args(), Path())\n"
    script += (
        "import os, torch; print(torch.are_deterministic_algorithms_enabled(), os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    assert run_python("-c", script).stdout.split() == ["True", ":4096:8"]
