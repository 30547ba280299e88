"""What all benchmarks need of the machine: its name, its practical ceiling, and waiting for it."""

import multiprocessing
import time

import torch

from common import cli
from common.models import MODELS, forward_flops
from common.support import machine, native

MATRIX = 4096
# What keeps PyTorch's libraries to AVX2, as most laptops have it; read by a process as it starts.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def described(device, precision):
    """What the numbers of a benchmark were measured on and with, for its JSON file."""
    return {
        "machine": machine.device_name(device),
        "cores": machine.cores(),
        "torch": torch.__version__,
        "precision": precision,
        "git_commit": cli.git_commit(),
    }


def matmul_flops(device, precision):
    """Floating-point operations a second of a large square matrix product: the machine's practical ceiling."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best


def training_flops(model):
    """Floating-point operations that training a network by one image takes: backward is twice forward."""
    return 3 * forward_flops(MODELS[model]())


def wait(device):
    if device != "cpu":
        torch.accelerator.synchronize()


def endless(batches):
    while True:
        yield from batches


def restrict(instructions):
    """Compile our own C code for AVX2 only, where `instructions` is "avx2"."""
    if instructions == "avx2":
        native.FLAGS = tuple("-march=x86-64-v3" if flag == "-march=native" else flag for flag in native.FLAGS)


def in_a_process(function, *arguments):
    """Return what a function of a module returns, called in a process that starts with the environment of this moment."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
