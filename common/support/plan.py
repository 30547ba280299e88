"""Estimate how long and in how much memory trainings run, from parameters and FLOPs: what --plan prints.

These are orders of magnitude, for deciding what to start: expect a factor of two. The rate of the device is that of a
large matrix product, measured here; for a GPU that is not available it is that of an H100.

    python -m common.support.plan < PLANS    print the plans of several scripts and their total, as run_all.sh does
"""

import functools
import os
import re
import sys

import torch

from common import cli, tables
from common.data import VALIDATION_SHARE
from common.models import MODELS, forward_flops, parameter_count
from common.support import machine
from common.support.cifar_files import TEST_IMAGES, TRAIN_IMAGES

IMAGES = {"quick": (1400, 500), "full": (TRAIN_IMAGES, TEST_IMAGES)}  # (training images, test images)
# FLOP/s of a large bf16 matrix product. Training reaches a third of it at best: memory has 3.35 TB/s only.
H100 = 650e12
SHARE = {"cpu": 0.85, "cuda": 0.3, "mps": 0.3}  # the share of that rate that a training step reaches
# the least seconds that a step takes: on a CPU for each member of a stack
STEP = {"cpu": 1.2e-3, "cuda": 1e-3, "mps": 3e-3}
WINOGRAD = 1.8  # speed of a whole step compared with direct convolutions: benchmarks/project3.md
BACKWARD = 2  # the FLOPs of a backward pass, compared with the forward pass
STATE = 12  # bytes per parameter: weight, gradient and momentum
KEPT = 1.5  # some activations are kept in two forms
# bytes of libraries, CIFAR-10, compiling and a CUDA context; on a CPU of each process, one per core in tasks 1 to 4
BASE_MEMORY = {"cpu": 1.1e9, "cuda": 0.6e9, "mps": 1.1e9}
CPU_MATRIX = 2048  # large enough for a CPU to reach its rate
# The last line of a plan, and how `main` finds the seconds in it
TOTAL = "about {time} ({seconds:.0f} s; {source})"
TOTAL_SECONDS = re.compile(r"about .+ \((\d+) s; ")


def show(title: str, rows: list[dict], scale: str, device: str) -> None:
    """Print a table of `rows` with their estimated time and memory, and their total. Nothing is trained.

    title: what is planned, such as the script. rows: one dict per job, with
        name        what the table calls it
        model       name in common.models
        epochs, batch_size
        seeds       how many
        members     networks in all: seeds, times configurations where several are trained together; 0 where an earlier
                    row or script has them
        stacked     whether one step trains all members; otherwise they are trained one after another
        train       images per epoch
        evaluated   images per epoch that are evaluated
        passes      optional: passes over the training images, where they are not the epochs (fewer pixels, part of one)
        speed       optional: speed compared with direct convolutions, such as WINOGRAD
        seconds, memory   where nothing is trained: the estimates themselves, memory in bytes
    """
    trains = any("seconds" not in row for row in rows)
    peak, source = rate(device) if trains else (0.0, "nothing is trained")
    costs = [(row["seconds"], row["memory"]) if "seconds" in row else cost(row, device, peak) for row in rows]
    table = [
        {
            "config": row["name"],
            **{key: row[key] for key in ("model", "seeds", "epochs")},
            "batch size": row["batch_size"],
            "time": duration(seconds) if seconds else "trained above",
            "GB": f"{memory / 1e9:.1f}",
        }
        for row, (seconds, memory) in zip(rows, costs)
    ]
    total = sum(seconds for seconds, _ in costs)
    print(f"{title} at {scale} scale on {device}:\n\n{tables.markdown(table)}")
    print(TOTAL.format(time=duration(total), seconds=total, source=source) + "\n", flush=True)


def is_new(training: str) -> bool:
    """Return whether no earlier script of this plan has this training, and list it.

    training: a line of text that names it. run_all.sh --plan gives all its scripts one file, $PLANNED, for the list;
    without such a file every training is new.
    """
    if not (path := os.environ.get("PLANNED")):
        return True
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        if new := training not in file.read().splitlines():
            file.write(training + "\n")
    return new


def image_counts(scale: str, validation: bool) -> tuple[int, int, int]:
    """Return how many images a scale has for training, held out for validation, and for testing."""
    train, test = IMAGES[scale]
    held_out = round(train * VALIDATION_SHARE) if validation else 0
    return train - held_out, held_out, test


def cost(row: dict, device: str, peak: float) -> tuple[float, float]:
    """Return the seconds of training and the peak memory in bytes of a row of `show`, all its members."""
    flops, parameters, outputs = sizes(row["model"])
    steps = -(-row["train"] // row["batch_size"])
    work = flops * (row["train"] * (1 + BACKWARD) + row["evaluated"]) / (peak * SHARE[device] * row.get("speed", 1))
    if row["stacked"]:  # one step trains all members, one per core
        overhead = STEP[device] * steps * (row["members"] / machine.cores() if device == "cpu" else 1)
        seconds = row["epochs"] * (work * row["members"] + overhead)
    else:
        seconds = row.get("passes", row["epochs"]) * row["members"] * (work + STEP[device] * steps)
    bytes_per_value = 4 if device == "cpu" or row["stacked"] else 2
    activations = bytes_per_value * row["batch_size"] * outputs * KEPT
    at_once = row["members"] if row["stacked"] else 1
    return seconds, at_once * (STATE * parameters + activations) + BASE_MEMORY[device]


@functools.cache
def sizes(model: str) -> tuple[int, int, int]:
    """Return the FLOPs of a forward pass, the parameters and the activations of a network, by its name."""
    network = MODELS[model]()
    return forward_flops(network), parameter_count(network), activation_count(network)


def activation_count(network: torch.nn.Module) -> int:
    """Count the numbers that the layers of a network put out for one image."""
    counts = []

    def count(module, inputs, output):
        counts.append(output.numel() if isinstance(output, torch.Tensor) else 0)

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if not list(layer.children())]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(counts)


@functools.cache
def rate(device: str) -> tuple[float, str]:
    """Return the FLOP/s of a large matrix product, and where that number is from."""
    if not machine.available_devices()[device]:
        return H100, f"{device} is not available here: assuming an H100-class card with {H100 / 1e12:.0f} TFLOP/s"
    precision = machine.choose_precision("auto", device)
    flops = machine.matmul_flops(device, precision, *([CPU_MATRIX] if device == "cpu" else []))
    return flops, f"a {precision} matrix product reaches {flops / 1e9:,.0f} GFLOP/s here"


def duration(seconds: float) -> str:
    """Format seconds for a reader: 42 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Print the plans that come from standard input, and their total."""
    cli.plain_parser(__doc__).parse_args()
    total = 0.0
    for line in sys.stdin:
        print(line, end="", flush=True)
        if match := TOTAL_SECONDS.match(line):
            total += float(match[1])
    print(f"total: about {duration(total)}")


if __name__ == "__main__":
    cli.entry_point(main)
