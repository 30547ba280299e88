"""What all benchmarks share: flags, the student's dataset, facts about the machine, and how to wait for the device."""

import multiprocessing
from pathlib import Path

import torch

from common import cli
from common.models import MODELS, forward_flops
from common.support import machine, native
from common.support.plan import BACKWARD

FLAGS = {
    "data": dict(type=Path, metavar="DIR", help="folder with CIFAR-10 (default: data/)"),
    "device": dict(choices=machine.DEVICES, default="auto", help="where to train (default: auto)"),
    "rounds": dict(type=cli.positive, default=3, metavar="N", help="turns of each way (default: %(default)s)"),
    "instructions": dict(
        choices=("native", "avx2"),
        default="native",
        help="CPU instructions to use: all that this CPU has, or AVX2 at most, as on most laptops (default: native)",
    ),
    "redraw": dict(action="store_true", help="write the page again from the saved measurements, without measuring"),
}
# These keep PyTorch's libraries to AVX2, as most laptops have it; a process reads them as it starts.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def in_memory_cifar(dataset, transform):
    """Return torchvision's dataset with its own code for each item, on images that are in memory already."""
    from torchvision.datasets import CIFAR10  # not at the top: --help would wait for it

    cifar = CIFAR10.__new__(CIFAR10)  # its constructor reads files
    cifar.data = dataset.images.permute(0, 2, 3, 1).numpy()
    cifar.targets = dataset.labels.tolist()
    cifar.transform = transform
    cifar.target_transform = None
    return cifar


def make_parser(description, *flags):
    """Return a parser with these of the FLAGS that benchmarks share."""
    parser = cli.plain_parser(description)
    for name in flags:
        parser.add_argument(f"--{name}", **FLAGS[name])
    return parser


def describe_machine(device, precision):
    """Return the machine and the versions that a benchmark's numbers depend on, for its JSON file."""
    return {
        "machine": machine.device_name(device),
        "cores": machine.cores(),
        "torch": torch.__version__,
        "precision": precision,
        "git_commit": cli.git_commit(),
    }


def training_flops(model):
    """Return the floating-point operations of one training step, per image, of a network of common.models."""
    return (1 + BACKWARD) * forward_flops(MODELS[model]())


def synchronize(device):
    """Wait until the device, "cpu" or a GPU, has finished its work."""
    if device != "cpu":
        torch.accelerator.synchronize()


def repeat(batches):
    """Yield batches without end, one pass after another."""
    while True:
        yield from batches


def restrict_instructions(instructions):
    """Compile our own C code for AVX2 only, where `instructions` is "avx2"."""
    if instructions == "avx2":
        native.FLAGS = tuple("-march=x86-64-v3" if flag == "-march=native" else flag for flag in native.FLAGS)


def run_in_new_process(function, *arguments):
    """Return what a module's function returns, called in a new process, which starts with the current environment."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
