"""Where do Winograd's convolutions pay? One layer at a time, output and both gradients together, next to direct convolutions.

    python benchmarks/convolutions.py [--rounds N] [--instructions native|avx2]

Writes benchmarks/convolutions.md. common/winograd.py takes its threshold from here.
"""

import argparse
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measuring import AVX2, described, in_a_process, restrict
from common import cli, learners, tables, winograd
from common.support import machine

SHAPES = (  # batch, channels in, channels out, pixels
    *((256, channels, channels, 32) for channels in (16, 32, 64)),
    *((256, channels, channels, 16) for channels in (32, 64, 128)),
    *((256, channels, channels, 8) for channels in (64, 128, 256)),
    *((256, channels, channels, 4) for channels in (128, 256, 512)),
    *((512, 24, 64, 31), (512, 24, 128, 31), (512, 64, 64, 15), (512, 64, 256, 15), (512, 256, 256, 7)),
)


def measure(shape, rounds, instructions):
    """Return {"direct": s, "winograd": s, "errors": [..]}: medians of turns, and relative errors against float64's direct."""
    restrict(instructions)
    torch.set_num_threads(machine.cores())
    learners.keep_freed_memory()
    batch, channels, out, size = shape
    torch.manual_seed(0)
    x, weight, dy = (
        torch.randn(batch, channels, size, size),
        torch.randn(out, channels, 3, 3),
        torch.randn(batch, out, size, size),
    )
    weight /= (9 * channels) ** 0.5

    def step(convolution, *tensors):
        x, weight, dy = (tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors)
        inputs = x.requires_grad_(), weight.requires_grad_()
        started = time.perf_counter()
        y = convolution(*inputs)
        return y.detach(), *torch.autograd.grad(y, inputs, dy), time.perf_counter() - started

    ways = {"direct": lambda x, weight: F.conv2d(x, weight, padding=1), "winograd": winograd.conv2d}
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            *found, spent = step(way, x, weight, dy)
            seconds[name].append(spent)
    *right, _ = step(
        ways["direct"], *(tensor[: 16 if tensor is not weight else None].double() for tensor in (x, weight, dy))
    )
    *found, _ = step(ways["winograd"], x[:16], weight, dy[:16])
    errors = [float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(found, right)]
    return {name: float(np.median(values)) for name, values in seconds.items()} | {"errors": errors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=cli.positive, default=5)
    parser.add_argument("--instructions", choices=("native", "avx2"), default="native")
    options = parser.parse_args()
    if options.instructions == "avx2":
        os.environ.update(AVX2)
    machine, rows = described("cpu", "fp32"), []
    for shape in SHAPES:
        result = in_a_process(measure, shape, options.rounds, options.instructions)
        batch, channels, out, size = shape
        flops = 3 * 2 * batch * size**2 * channels * out * 9
        rows.append(
            {
                "batch x channels x pixels": f"{batch} x {channels} to {out} x {size}",
                "direct, ms": f"{result['direct'] * 1e3:.0f}",
                "winograd, ms": f"{result['winograd'] * 1e3:.0f}",
                "ratio": f"{result['direct'] / result['winograd']:.2f}",
                "winograd, GFLOP/s counted as direct": f"{flops / result['winograd'] / 1e9:.0f}",
                "relative errors (output, image, filter)": ", ".join(f"{error:.0e}" for error in result["errors"]),
            }
        )
        print(tables.markdown(rows[-1:]).splitlines()[-1], flush=True)
    kept = ", kept to AVX2" if options.instructions == "avx2" else ""
    note = (
        f"{machine['machine']}{kept}, {machine['cores']} cores, torch {machine['torch']}, fp32; medians of {options.rounds}"
        " turns of output and both gradients. Errors are against float64."
    )
    tables.write_markdown(HERE / "convolutions.md", "Winograd's convolutions next to direct ones", [note, rows], "full")


if __name__ == "__main__":
    cli.entry_point(main)
