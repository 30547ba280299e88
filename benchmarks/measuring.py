"""What all benchmarks share: a description of the machine, its practical ceiling, and how to wait for the device."""

import multiprocessing

import torch

from common import cli
from common.models import MODELS, forward_flops
from common.support import machine, native

BACKWARD = 2  # FLOPs compared with the forward pass
# These keep PyTorch's libraries to AVX2, as most laptops have it; a process reads them as it starts.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


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
    """Yield batches for ever, one pass after another."""
    while True:
        yield from batches


def restrict_instructions(instructions):
    """Compile our own C code for AVX2 only, where `instructions` is "avx2"."""
    if instructions == "avx2":
        native.FLAGS = tuple("-march=x86-64-v3" if flag == "-march=native" else flag for flag in native.FLAGS)


def run_in_process(function, *arguments):
    """Return what a module's function returns, called in a new process, which starts with the current environment."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
