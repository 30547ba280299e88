"""Task 1. How does LeNet's training loss fall, batch by batch and epoch by epoch? (assignment, sections 3.1 and 4.1)

    python task1_loss_curves/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Writes to task1_loss_curves/outputs/, pages and figures in Chinese too (x.zh.md, x.zh.png):
    loss_history.npz        the report's batch_losses, epoch_losses and batch_indices, of the first seed
    loss_history_seeds.npz  the histories of all seeds
    loss_curves.png         figure 1: the losses of all batches with their moving average, and the mean of every epoch
    loss_table.md           epoch losses and test accuracy compared with the report's, and what they imply
    results.csv, summary.csv, run.json
"""

import math
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, data, plots, repeated, reported, run_plots, sweep, tables
from common.support.translations import text

# The report does not state its batch size; its losses match batch size 4, as in the PyTorch tutorial.
BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {"baseline": {}}
CHANCE = math.log(len(data.CLASSES))  # the loss of equal probabilities
FIGURE = "Training loss of LeNet, the baseline"


def main():
    cli.run_task(__doc__, TASK, train, write_results)


def train(options):
    """Train the baseline with every seed, and save the first seed's losses under the report's three keys."""
    histories = sweep.run(CONFIGS, BASE, options, save_to="loss_history_seeds.npz")
    if not options.plan:
        first = histories["baseline", options.seeds[0]]
        tables.save_arrays(options.out / "loss_history.npz", {key: first[key] for key in tables.REPORT_KEYS})


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`."""
    run_json = cli.read_json(source / "run.json")
    scale = run_json["scale"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history_seeds.npz", CONFIGS)
    tables.write_results(out, histories, scale)

    # 4.1: loss per batch and per epoch
    first = tables.load_arrays(source / "loss_history.npz")
    seed, batch_size = run_json["seeds"][0], run_json["configs"]["baseline"]["batch_size"]
    about = (f"batch size {batch_size}", f"seed {seed}", f"{scale} scale")
    run_plots.loss_figure(out / "loss_curves.png", first, FIGURE, about, reported.TASK1_LOSSES)

    train_loss, test_loss, accuracy = (
        run_plots.by_epoch(histories, "baseline", field) for field in ("epoch_losses", "test_loss", "test_accuracy")
    )
    page = [
        finding(train_loss, test_loss, accuracy),
        tables.figure("loss_curves.png", FIGURE, caption(first, seed)),
        text("## Epoch by epoch (section 4.1)"),
        notes(train_loss),
        loss_table(train_loss, test_loss, accuracy),
        text("## What it implies for generalization"),
        implication(train_loss, test_loss),
        text("## Test accuracy after the last epoch"),
        accuracy_table(accuracy[:, -1]),
        *repeated.section(source, repeated.BASELINE),
    ]
    tables.write_markdown(out / "loss_table.md", text("Task 1: LeNet's losses compared with the report's"), page, scale)


def finding(train_loss, test_loss, accuracy):
    """Return what was found, from arrays (seeds, epochs); computed, so that it stays true."""
    losses = [tables.is_predicted(*pair) for pair in zip(reported.TASK1_LOSSES, train_loss.T)]
    accuracies = [tables.is_predicted(report, accuracy[:, -1]) for report in reported.TASK1_ACCURACY]
    means = test_loss.mean(0)
    lowest = int(means.argmin()) + 1
    return tables.paragraph(
        text(
            "**{inside} of the report's {losses} epoch losses and {accurate} of its {accuracies} test accuracies lie "
            "in the 95% prediction interval of our seeds.**",
            inside=losses.count("yes"),
            losses=len(losses),
            accurate=accuracies.count("yes"),
            accuracies=len(accuracies),
        )
        if len(train_loss) > 1
        else text("**One seed has no prediction interval with which the report's numbers could be compared.**"),
        text(
            "The mean training loss is {first:.3f} nats in the first epoch and {last:.3f} in the last one.",
            first=train_loss[:, 0].mean(),
            last=train_loss[:, -1].mean(),
        ),
        text(
            "The test loss is lowest after the last epoch ({last:.3f}): training has not converged, and the network "
            "does not overfit yet."
            if lowest == len(means)
            else "The test loss is lowest after epoch {epoch} ({lowest:.3f}); after the last epoch it is {last:.3f}.",
            epoch=lowest,
            lowest=means.min(),
            last=means[-1],
        ),
    )


def caption(history, seed):
    """Return what the figure shows: how far batches scatter, and how near the means of the epochs are."""
    means = history["epoch_losses"]
    batches = history["batch_losses"][-(len(history["batch_losses"]) // len(means)) :]
    low, high = np.percentile(batches, run_plots.BAND)
    return text(
        "In the last epoch of seed {seed}, 90% of the batch losses lie between {low:.2f} and {high:.2f}, while no "
        "epoch's mean differs from the report's by more than {largest:.3f} nats.",
        seed=seed,
        low=low,
        high=high,
        largest=max(abs(ours - report) for ours, report in zip(means, reported.TASK1_LOSSES)),
    )


def notes(train_loss):
    """Return how the losses are measured, and what the first epoch achieves."""
    return tables.paragraph(
        tables.spread_note(len(train_loss)),
        text(
            "The training loss is the mean over the batches of an epoch, with dropout on; test loss and accuracy are "
            "measured after the epoch."
        ),
        text(
            "The first epoch's mean minus the loss of a guess, ln {classes} = {chance:.3f}, is {difference}.",
            difference=tables.signed(train_loss[:, 0].mean() - CHANCE, 3),
            classes=len(data.CLASSES),
            chance=CHANCE,
        ),
        tables.INTERVAL,
    )


def loss_table(train_loss, test_loss, accuracy):
    """Return one row per epoch: the report's loss and ours, its fall, and the test loss and accuracy."""
    means, rows = train_loss.mean(0), []
    for epoch, ours in enumerate(train_loss.T):
        report = reported.TASK1_LOSSES[epoch] if epoch < len(reported.TASK1_LOSSES) else None
        fall = 100 * (means[epoch - 1] - means[epoch]) / (means[0] - means[-1]) if epoch else None
        rows.append(
            {
                text("epoch"): epoch + 1,
                "report: training loss": tables.DASH if report is None else f"{report:.2f}",
                "ours: training loss": tables.mean_std(ours, 3),
                "difference": tables.DASH if report is None else tables.signed(ours.mean() - report, 3),
                tables.PREDICTED: tables.predicted_cell(report, ours),
                "share of the fall after epoch 1, %": tables.DASH if fall is None else tables.fixed(fall, 0),
                "test loss": tables.mean_std(test_loss[:, epoch], 3),
                "test accuracy, %": tables.mean_std(accuracy[:, epoch]),
            }
        )
    return rows


def implication(train_loss, test_loss):
    """Return how often the test loss falls from epoch to epoch, and how often it is below the training loss."""
    falls = np.diff(test_loss, axis=1) < 0
    return tables.paragraph(
        text(
            "From one epoch to the next, the test loss falls in {falls} of {all} cases (every epoch of every seed).",
            falls=int(falls.sum()),
            all=falls.size,
        ),
        text(
            "It is below the training loss in {below} of {all} cases; the training loss is measured with dropout on "
            "and while the network still learns.",
            below=int((test_loss < train_loss).sum()),
            all=test_loss.size,
        ),
    )


def accuracy_table(final):
    """Return one row per test accuracy that the report states."""
    return [
        {
            "section of the report": section,
            "report: test accuracy, %": report,
            "ours: test accuracy, %": tables.mean_std(final),
            "difference": tables.signed(final.mean() - report),
            tables.PREDICTED: tables.predicted_cell(report, final),
        }
        for report, section in zip(reported.TASK1_ACCURACY, ("4.1", "4.2.1"))
    ]


if __name__ == "__main__":
    cli.entry_point(main)
