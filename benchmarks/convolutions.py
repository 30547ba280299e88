"""Where do Winograd's convolutions pay? One layer at a time, output and both gradients, next to direct convolutions.

    python benchmarks/convolutions.py [--rounds N] [--instructions native|avx2]

Writes benchmarks/convolutions.md, from which common/winograd.py takes its threshold.
"""

import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measuring import AVX2, describe_machine, make_parser, restrict_instructions, run_in_new_process
from common import cli, learners, tables, winograd
from common.support import machine
from common.support.plan import BACKWARD

SHAPES = (  # batch, channels in, channels out, pixels
    *((256, channels, channels, 32) for channels in (16, 32, 64)),
    *((256, channels, channels, 16) for channels in (32, 64, 128)),
    *((256, channels, channels, 8) for channels in (64, 128, 256)),
    *((256, channels, channels, 4) for channels in (128, 256, 512)),
    *((512, 24, 64, 31), (512, 24, 128, 31), (512, 64, 64, 15), (512, 64, 256, 15), (512, 256, 256, 7)),
)
CHECKED = 16  # images whose results are compared with float64's


def direct(x, weight):
    """Convolve as PyTorch does."""
    return F.conv2d(x, weight, padding=1)


METHODS = {"direct": direct, "winograd": winograd.conv2d}


def measure(shape, rounds, instructions):
    """Return the median seconds of each method and Winograd's errors relative to float64, a dict."""
    restrict_instructions(instructions)
    torch.set_num_threads(machine.cores())
    learners.keep_freed_memory()
    batch, channels, out, size = shape
    torch.manual_seed(0)
    x = torch.randn(batch, channels, size, size)
    weight = torch.randn(out, channels, 3, 3) / (9 * channels) ** 0.5
    dy = torch.randn(batch, out, size, size)

    seconds = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, convolution in METHODS.items():
            seconds[name].append(forward_backward(convolution, x, weight, dy)[1])
    exact, _ = forward_backward(direct, x[:CHECKED].double(), weight.double(), dy[:CHECKED].double())
    results, _ = forward_backward(winograd.conv2d, x[:CHECKED], weight, dy[:CHECKED])
    errors = [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(results, exact)]
    return {**{name: float(np.median(values)) for name, values in seconds.items()}, "errors": errors}


def forward_backward(convolution, *tensors):
    """Return ((output, gradient of the image, gradient of the filter), seconds) for tensors x, weight, dy."""
    x, weight, dy = (tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors)
    inputs = x.requires_grad_(), weight.requires_grad_()
    started = time.perf_counter()
    y = convolution(*inputs)
    gradients = torch.autograd.grad(y, inputs, dy)
    return (y.detach(), *gradients), time.perf_counter() - started


def table_row(shape, result):
    """Return the table's row of a shape and what `measure` returned for it."""
    batch, channels, out, size = shape
    flops = (1 + BACKWARD) * 2 * batch * size**2 * channels * out * 9
    return {
        "batch x channels x pixels": f"{batch} x {channels} to {out} x {size}",
        "direct, ms": f"{result['direct'] * 1e3:.0f}",
        "winograd, ms": f"{result['winograd'] * 1e3:.0f}",
        "ratio": f"{result['direct'] / result['winograd']:.2f}",
        "winograd, GFLOP/s counted as direct": f"{flops / result['winograd'] / 1e9:.0f}",
        "relative errors (output, image, filter)": ", ".join(f"{error:.0e}" for error in result["errors"]),
    }


def main():
    """Measure every shape and write the page."""
    parser = make_parser(__doc__, "rounds", "instructions")
    parser.set_defaults(rounds=5)
    args = parser.parse_args()
    if args.instructions == "avx2":
        os.environ.update(AVX2)
    facts, rows = describe_machine("cpu", "fp32"), []
    for shape in SHAPES:
        rows.append(table_row(shape, run_in_new_process(measure, shape, args.rounds, args.instructions)))
        print(tables.markdown(rows[-1:]).splitlines()[-1], flush=True)
    limit = ", kept to AVX2" if args.instructions == "avx2" else ""
    note = (
        f"{facts['machine']}{limit}, {facts['cores']} cores, torch {facts['torch']}, fp32; medians of {args.rounds}"
        " turns of output and both gradients. Errors are relative to float64."
    )
    tables.write_markdown(
        HERE / "convolutions.md", "Winograd's convolutions next to direct ones", [note, rows], "full", ("en",)
    )


if __name__ == "__main__":
    cli.entry_point(main)
