"""What would be trained, and about how long and in how much memory, from parameters and FLOPs. It trains nothing.

    bash run_all.sh [--scale full] [--device cuda] --plan [TASK ...]

Reads one start a line from standard input, as run_all.sh makes them: a task's folder and its main.py's flags. Where the device is
at hand its rate is that of a large matrix product, measured; a GPU that is not is taken for an H100-class one. Orders of magnitude,
for deciding what to start: a factor of two is to be expected.
"""

import argparse
import functools
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.measuring import matmul_flops
from common import cli, sweep, tables
from common.models import MODELS, forward_flops, parameter_count
from common.support import machine

TRAIN, HELD_OUT, TEST = {"full": 50_000, "quick": 1400}, {"full": 5000, "quick": 140}, {"full": 10_000, "quick": 500}
# FLOP/s of a large bf16 matrix product; its 3.35 TB/s of memory are why training gets a third of it at best
H100 = 650e12
SHARE = {"cpu": 0.85, "cuda": 0.3, "mps": 0.3}  # of that rate in a training step
# seconds that a step takes at the least: on a CPU each member of a stack's
STEP = {"cpu": 1.2e-3, "cuda": 1e-3, "mps": 3e-3}
WINOGRAD = 1.8  # times the speed of a whole step with direct convolutions: benchmarks/project3.md
BACKWARD = 2  # times the FLOPs of forward
CONTEXT = 0.6e9  # bytes of a CUDA context, its libraries and CIFAR-10


def main():
    lines = [line.split() for line in sys.stdin if line.strip()]
    if not lines:
        return
    rows = [row for task, *words in lines for row in rows_of(task, flags_of(words))]
    options = flags_of(lines[0][1:])
    peak, how = rate(options.device)
    table, total = [], 0.0
    for row in rows:
        seconds, memory = cost(row, options.device, peak)
        total += seconds
        table.append(
            {
                "task": row["task"],
                "config": row["name"],
                "model": row["model"],
                "seeds": row["seeds"],
                "epochs": row["epochs"],
                "batch": row["batch_size"],
                "about": duration(seconds),
                "GB": f"{memory / 1e9:.1f}",
            }
        )
    print(tables.markdown(table), end="")
    print(f"{options.scale} scale on {options.device}: about {duration(total)} in all ({how})")


def flags_of(words):
    """Those flags of a start that matter here."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--scale", default="full")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model")
    parser.add_argument("--recipe")
    parser.add_argument("--seeds", type=int)
    return parser.parse_known_args(words)[0]


def rows_of(task, options):
    """One dict a run: task, name, model, seeds, epochs, batch_size, members trained at once, images and evaluated images an epoch."""
    main = importlib.import_module(f"{task}.main")
    if task == "project3_wrn":
        return [project3_row(main, options)]
    seeds = options.seeds or getattr(main, "SEEDS", cli.SEEDS)[options.scale]
    studies = [(main.CONFIGS, seeds, False, task == "task4_architectures")]  # whose seconds are compared
    if hasattr(main, "SPLIT_SEEDS"):
        studies.append((main.CONFIGS, min(seeds, main.SPLIT_SEEDS), True, False))
    if hasattr(main, "LENET_BATCHES"):
        full = options.scale == "full"
        studies.append((main.LENET_BATCHES, len(main.LENET_BATCH_SEEDS) if full else seeds, False, False))
        studies.append((main.RESNET_BATCHES, len(main.RESNET_BATCH_SEEDS), False, False))
    rows = []
    settings = argparse.Namespace(epochs=None, batch_size=None, scale=options.scale)
    for changes, count, on_split, apart in studies:
        runs = sweep.configure(changes, main.BASE, settings)
        train, held_out = TRAIN[options.scale], HELD_OUT[options.scale] if on_split else 0
        evaluated = TEST[options.scale] + held_out
        if task == "task2_regularization":  # measures training images too
            evaluated += min(train, sweep.EVALUATE_TRAIN)
        for job in sweep.make_jobs(runs, range(count), 1, apart):
            run, others = job["configs"][0], len(job["names"]) - 1
            row = {key: run[key] for key in ("model", "epochs", "batch_size")} | {
                "task": task,
                "seeds": len(job["seeds"]),
            }
            name = job["names"][0] + (f" and {others} more" if others else "") + (" (9:1)" if on_split else "")
            row |= {
                "name": name,
                "members": len(job["names"]) * len(job["seeds"]),
                "stacked": sweep.stackable(run["model"]),
            }
            rows.append(row | {"train": train - held_out, "evaluated": evaluated})
    return rows


def project3_row(main, options):
    main.choose(options)
    recipe = main.settings_of(options, {})
    train, held_out = TRAIN[options.scale], HELD_OUT[options.scale] if recipe.validation_split else 0
    seeds = options.seeds or (main.SEEDS.get(options.recipe, 1) if options.scale == "full" else 1)
    row = {"task": "project3_wrn", "name": f"recipe {options.recipe}", "model": options.model, "seeds": seeds}
    # the last pass may end early, and an image of fewer pixels costs less
    passes = recipe.epochs - 1 + recipe.last_epoch_fraction
    row["passes"] = passes - min(recipe.low_res_epochs, passes) * (1 - (recipe.low_res_size / 32) ** 2)
    row["speed"] = WINOGRAD if convolutions(options.device) == "winograd" else 1
    row |= {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "members": seeds, "stacked": False}
    return row | {"train": train - held_out, "evaluated": held_out}


def cost(row, device, peak):
    """(seconds of training, bytes of memory at its highest) of a row, all its seeds."""
    network = MODELS[row["model"]]()
    flops = forward_flops(network)
    steps = -(-row["train"] // row["batch_size"])
    work = flops * (row["train"] * (1 + BACKWARD) + row["evaluated"]) / (peak * SHARE[device] * row.get("speed", 1))
    if row["stacked"]:  # one step trains all members, a core each
        floor = STEP[device] * steps * (row["members"] / machine.cores() if device == "cpu" else 1)
        seconds = row["epochs"] * (work * row["members"] + floor)
    else:
        seconds = row.get("passes", row["epochs"]) * row["members"] * (work + STEP[device] * steps)
    at_once = row["members"] if row["stacked"] else 1
    precision = 4 if device == "cpu" or row["stacked"] else 2  # bytes
    weights = 12 * parameter_count(network)  # themselves, gradients, momentum
    activations = precision * row["batch_size"] * activation_count(network) * 1.5  # some are kept in two forms
    return seconds, at_once * (weights + activations) + (CONTEXT if device == "cuda" else 0.4e9)


def activation_count(network):
    """Numbers that the layers of a network put out for one image."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() if isinstance(output, torch.Tensor) else 0

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if not list(layer.children())]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return total


@functools.cache
def convolutions(device):
    """Return how a start without --convolutions computes them: "direct" or "winograd"."""
    return machine.choose_convolutions("auto", device, machine.choose_precision("auto", device))


def rate(device):
    """(FLOP/s of a large matrix product, how that is known)."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device]
    if not there:
        return H100, f"no {device} here: an H100-class card is assumed, {H100 / 1e12:.0f} TFLOP/s"
    precision = machine.choose_precision("auto", device)
    flops = matmul_flops(device, precision)
    return flops, f"a {precision} matrix product reaches {flops / 1e9:,.0f} GFLOP/s here"


def duration(seconds):
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    cli.entry_point(main)
