"""Task 4, second question. Which batch size did the report use? (assignment, sections 4.2 and 4.3)

    python task4_architectures/batch_size.py [--scale quick|full] [--device cpu|cuda|mps] [--plan] [--redraw]

The report does not state it. Its LeNet reaches 54.93% after ten epochs in task 3 and 36.30% in task 4, and nothing else
that it states differs. Writes to task4_architectures/outputs/batch_size/:
    loss_history.npz          LeNet, ten epochs at each batch size
    resnet_history.npz        LightweightResNet, one epoch at each
    batch_size.png            LeNet's accuracy over the epochs
    batch_size.md             accuracies at each batch size, and which is nearest to the report's
    results.csv, summary.csv, run.json
LightweightResNet's first epoch at batch size 64 is read from the outputs of main.py, one folder up.
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

import numpy as np

from common import cli, plots, reported, sweep, tables
from common.support.errors import UsageError

BASE = dict(model="lenet", epochs=10, batch_size=64, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
SIZES = (4, 32, 64, 100, 128)
# main.py, one folder up, trains both networks with this size
MAIN_SIZE = BASE["batch_size"]
CONFIGS = {f"lenet_batch_{size}": {"batch_size": size} for size in SIZES if size != MAIN_SIZE}
# LeNet alone rules out 4 and 32. At 128 the first epoch suffices, whose accuracy the report states.
RESNETS = {
    "resnet_batch_100": {"model": "lightweight_resnet", "batch_size": 100},
    "resnet_batch_128": {"model": "lightweight_resnet", "batch_size": 128, "epochs": 1},
}
SEEDS = {"quick": 2, "full": 3}
TASK3 = reported.ACCURACY["task3_hparams"]["more_epochs"]
TASK4 = reported.ACCURACY[TASK.name]["lenet"]
# the numbers that the report states, {column: (network, index of the epoch, test accuracy)}
REPORTED = {
    "LeNet, epoch 1": ("lenet", 0, reported.TASK4_FIRST_EPOCH["lenet"]),
    "LeNet, last epoch": ("lenet", -1, TASK4),
    "ResNet, epoch 1": ("resnet", 0, reported.TASK4_FIRST_EPOCH["lightweight_resnet"]),
}


def main():
    cli.run_task(__doc__, TASK, train, write_results, seeds=SEEDS, name="batch_size")


def train(options):
    """Train LeNet at every batch size, and LightweightResNet at those that main.py does not train it with."""
    if options.batch_size:
        raise UsageError("--batch-size: the configurations of this script differ in batch size only; leave it out")
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz", batch_losses=False)
    sweep.run(RESNETS, BASE, options, save_to="resnet_history.npz", evaluate_train=True, batch_losses=False)


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`, and those of main.py above it."""
    scale = cli.read_json(source / "run.json")["scale"]
    plots.setup(scale)
    lenets = tables.load_histories(source / "loss_history.npz")
    resnets = tables.load_histories(source / "resnet_history.npz")
    tables.write_results(out, lenets | resnets, scale)

    histories = lenets | resnets | main_resnets(source.parent)
    rows, distances = size_table(histories)
    page = [caption(histories), rows, verdict(lenets, distances)]
    tables.write_markdown(out / "batch_size.md", "Task 4: the batch size that the report does not state", page, scale)
    draw_sizes(out / "batch_size.png", lenets)


def main_resnets(folder):
    """Return main.py's histories of LightweightResNet in `folder`, named as here; {} where main.py has not run."""
    path = folder / "loss_history.npz"
    if not path.exists():
        return {}
    size = cli.read_json(folder / "run.json")["configs"]["lightweight_resnet"]["batch_size"]
    histories = tables.load_histories(path).items()
    return {(f"resnet_batch_{size}", seed): history for (n, seed), history in histories if n == "lightweight_resnet"}


def caption(histories):
    """Return the number of seeds behind each mean, and what the distance is."""
    seeds = {name: sum(config == name for config, _ in histories) for name, _ in histories}
    resnets = sorted((int(name.rsplit("_", 1)[1]), count) for name, count in seeds.items() if name.startswith("resnet"))
    counts = ", ".join(f"{count} at batch size {size}" for size, count in resnets)
    return (
        "Test accuracy in per cent, mean ± standard deviation over seeds: "
        f"{seeds['lenet_batch_4']} for LeNet; for LightweightResNet {counts}. "
        f"The distance is the mean absolute difference from the report's {len(REPORTED)} numbers."
    )


def size_table(histories):
    """Return the report's row and one per batch size, and {batch size: distance} of those tried with both networks."""
    report = {column: f"{value:.2f}" for column, (_, _, value) in REPORTED.items()}
    rows, distances = [{"batch size": "the report", **report, "mean distance": ""}], {}
    for size in SIZES:
        cells, differences = {}, []
        for column, (network, epoch, value) in REPORTED.items():
            values = accuracies(histories, f"{network}_batch_{size}", epoch)
            cells[column] = tables.mean_std(values) if len(values) else ""
            differences += [abs(values.mean() - value)] if len(values) else []
        if len(differences) == len(REPORTED):
            distances[size] = sum(differences) / len(differences)
        distance = f"{distances[size]:.2f}" if size in distances else ""
        rows.append({"batch size": size, **cells, "mean distance": distance})
    return rows, distances


def accuracies(histories, name, epoch=-1):
    """Return the test accuracies (seeds,) of a configuration after an epoch, the last one by default."""
    return np.array([float(h["test_accuracy"][epoch]) for (config, _), h in histories.items() if config == name])


def verdict(lenets, distances):
    """Return which batch size is nearest to the report; computed, so that it stays true."""
    best, *others = sorted(distances, key=distances.get)
    epochs = len(next(iter(lenets.values()))["test_accuracy"])
    return (
        f"At batch size 4, that of tasks 1 to 3, LeNet reaches {accuracies(lenets, 'lenet_batch_4').mean():.2f}% "
        f"after {epochs} epochs (the report's task 3: {TASK3:.2f}%); "
        f"at batch size 100 it reaches {accuracies(lenets, 'lenet_batch_100').mean():.2f}% "
        f"(the report's task 4: {TASK4:.2f}%). Nothing else that the report states differs. "
        f"Of the sizes tried with both networks, {best} is nearest to the report: "
        f"it is {distances[best]:.2f} points from it on average "
        f"({', '.join(f'{size}: {distances[size]:.2f}' for size in others)})."
    )


def draw_sizes(path, lenets):
    """Draw LeNet's test accuracy over the epochs at each batch size, and the report's two numbers."""
    figure, axes = plots.plt.subplots(figsize=(8, 5), layout="constrained")
    plots.curves(axes, lenets, "test_accuracy", "Test accuracy, %")
    axes.axhline(TASK3, color="grey", linestyle=":", linewidth=1, label="the report's task 3")
    axes.axhline(TASK4, color="grey", linestyle="--", linewidth=1, label="the report's task 4")
    axes.set_title("LeNet at five batch sizes")
    axes.legend()
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
