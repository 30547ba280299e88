"""Do replayed steps compute what eager ones do, and how much faster are they? Run it first on a new kind of GPU.

    python benchmarks/cuda_graphs.py [--steps N]

Trains each network of MODELS four ways by the report's recipe: eager, compiled, replayed
(common/cuda_graph.py), compiled and replayed. Prints the largest difference of the first 20 losses from those of the
eager way, and the steps per second. Ends with an error where replayed losses differ by more than TOLERANCE.
"""

import dataclasses
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.measuring import describe_machine, make_parser
from common import cli, cuda_graph, data, tables
from common.support import machine
from common.support.errors import UserError
from project3_wrn.method.recipes import RECIPES
from project3_wrn.method.train import Backend, build

MODELS = {"lightweight_resnet": 64, "resnet18": 256}  # and their batch sizes
COMPARED = 20  # losses; later ones differ by rounding that has grown
TOLERANCE = 1e-2  # of a loss of about 2.3; kernels of cuDNN may add in another order in each run
WAYS = {"eager": (False, False), "compiled": (True, False), "replayed": (False, True), "both": (True, True)}


def train(model, compiled, graph, images, precision, steps):
    """Return (the first COMPARED losses, steps per second after them) of a training by the report's recipe."""
    cuda_graph.WORTH_COMPILING, cuda_graph.LONG_STEP = 0, math.inf if graph else 0
    recipe = dataclasses.replace(RECIPES["report"], batch_size=MODELS[model], validation_split=False, patience=0)
    learner, batches, _ = build(model, recipe, 0, images, Backend(precision, compiled=compiled))
    prepared = [batch for _, batch in zip(range(COMPARED), batches)]
    losses = torch.stack([learner.step(x, y) for x, y in prepared]).cpu()
    started = time.perf_counter()
    for step in range(steps):
        loss = learner.step(*prepared[step % COMPARED])
    loss.item()  # waits for the device
    return losses, steps / (time.perf_counter() - started)


def main():
    """Measure and print one table."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=cli.positive, default=500, metavar="N", help="steps per way (default: 500)")
    args = parser.parse_args()
    device = machine.choose_device("cuda")
    precision = machine.choose_precision("auto", device)
    images = data.load("full")[0].to(device)
    rows, differing = [], []
    for model in MODELS:
        eager = None
        for way, (compiled, graph) in WAYS.items():
            losses, speed = train(model, compiled, graph, images, precision, args.steps)
            eager = losses if eager is None else eager
            difference = float((losses - eager).abs().max())
            rows.append({"model": model, "way": way, "steps per s": f"{speed:.0f}", "difference": f"{difference:.1e}"})
            if way == "replayed" and not difference <= TOLERANCE:
                differing.append(model)
    print(describe_machine(device, precision), tables.markdown(rows), sep="\n\n")
    if differing:
        raise UserError(f"the replayed losses of {' and '.join(differing)} are not the eager ones: a fault in the code")


if __name__ == "__main__":
    cli.entry_point(main)
