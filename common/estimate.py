"""After a quick run: the command for full scale, and about how long it takes on this machine.

python -m common.estimate TASK [TASK ...]
"""

import csv
import sys

from common import cli

IMAGES = 50_000 / 1_400  # full training set to embedded sample
EPOCHS = 5  # full epochs to quick epochs
COMPILED = 0.5  # a long run compiles its step, a quick one does not
SEEDS_AND_SPLIT = {
    "task1_loss_curves": 5 / 2,
    "task2_regularization": 5 / 2,
    "task3_hparams": 5 / 2 * 1.9,
    "task4_architectures": 1,
}

# project 3 on a CPU: fast94 with three seeds, then fast96, whose images cost 3.8 times fast94's
FAST94_EPOCHS, FAST94_SEEDS = 10, 3
FAST96_EPOCHS, FAST96_FLOPS = 37, 3.8


def project3():
    """Seconds of fast94 and fast96, from the one epoch of fast94 that a quick run trains."""
    path = cli.ROOT / "project3_wrn" / "outputs_quick" / "fast94" / "metrics.json"
    if not path.exists():
        return 0
    epoch = cli.read_json(path)[0]["training_seconds"] * IMAGES
    return epoch * (FAST94_EPOCHS * FAST94_SEEDS + FAST96_EPOCHS * FAST96_FLOPS)


def main(tasks):
    seconds = project3() if "project3_wrn" in tasks else 0
    for task in tasks:
        for name in ("results.csv", "batch_results.csv"):
            path = cli.ROOT / task / "outputs_quick" / name
            if path.exists():
                with open(path, encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
                trained = sum(float(row["seconds"]) * (1 if "resnet" in row["run"] else COMPILED) for row in rows)
                seconds += trained * IMAGES * EPOCHS * SEEDS_AND_SPLIT[task] / min(2, cli.cores())
    named = "" if len(tasks) == len(SEEDS_AND_SPLIT) + 1 else " " + " ".join(tasks)
    print(f"the report's own experiment: bash run_all.sh --scale full{named}")
    print(f"it takes about {seconds / 3600:.1f} hours on this machine, and goes on where it stopped if it is stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
