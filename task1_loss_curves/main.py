"""Task 1. How does LeNet's training loss fall, batch by batch and epoch by epoch? (assignment, sections 3.1 and 4.1)

    python task1_loss_curves/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Writes to task1_loss_curves/outputs/:
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

import numpy as np

from common import cli, data, plots, repeated, reported, run_plots, sweep, tables

# The report does not state its batch size; its losses match batch size 4, as in the PyTorch tutorial.
BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {"baseline": {}}
CHANCE = math.log(len(data.CLASSES))  # the loss of equal probabilities


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
    about = (f"batch size {run_json['configs']['baseline']['batch_size']}", f"seed {run_json['seeds'][0]}")
    run_plots.loss_figure(
        out / "loss_curves.png",
        tables.load_arrays(source / "loss_history.npz"),
        "Training loss of LeNet, the baseline",
        [*about, f"{scale} scale"],
        reported.TASK1_LOSSES,
    )
    train_loss, test_loss, accuracy = (
        run_plots.by_epoch(histories, "baseline", field) for field in ("epoch_losses", "test_loss", "test_accuracy")
    )
    page = [
        finding(train_loss, test_loss, accuracy),
        f"Mean ± standard deviation over {len(histories)} seeds. The training loss is the mean over the batches of an "
        "epoch, with dropout on, while the network learns; test loss and accuracy are measured after the epoch. "
        "A further training of ours would lie in the prediction interval with a probability of 95%.",
        loss_table(train_loss, test_loss, accuracy),
        repeated.compare(source, repeated.BASELINE),
    ]
    tables.write_markdown(out / "loss_table.md", "Task 1: LeNet's losses compared with the report's", page, scale)


def finding(train_loss, test_loss, accuracy):
    """Return what was found, from arrays (seeds, epochs); computed, so that it stays true."""
    losses = [tables.is_predicted(*pair) for pair in zip(reported.TASK1_LOSSES, train_loss.T)]
    accuracies = [tables.is_predicted(report, accuracy[:, -1]) for report in reported.TASK1_ACCURACY]
    means, epochs = test_loss.mean(0), train_loss.shape[1]
    lowest = int(means.argmin()) + 1
    course = f"falls until the last epoch, {means[-1]:.3f}: training has not converged, and nothing is overfitted yet"
    if lowest < epochs:
        course = f"is lowest after epoch {lowest} ({means[lowest - 1]:.3f}) and {means[-1]:.3f} after the last one"
    return (
        f"**{losses.count('yes')} of the report's {len(losses)} epoch losses and {accuracies.count('yes')} of its "
        f"{len(accuracies)} test accuracies lie in the 95% prediction interval of our seeds.** "
        f"The training loss falls from {train_loss[:, 0].mean():.3f} to {train_loss[:, -1].mean():.3f} nats; "
        f"the test loss {course}."
    )


def loss_table(train_loss, test_loss, accuracy):
    """Return one row per epoch, and one per test accuracy that the report states."""
    rows = []
    for epoch, ours in enumerate(train_loss.T):
        report = reported.TASK1_LOSSES[epoch] if epoch < len(reported.TASK1_LOSSES) else None
        rows.append(
            {
                "epoch": epoch + 1,
                "report": tables.DASH if report is None else f"{report:.2f}",
                "ours": tables.mean_std(ours, 3),
                "difference": tables.DASH if report is None else tables.signed(ours.mean() - report, 3),
                tables.PREDICTED: tables.is_predicted(report, ours),
                "explanation": explanation(train_loss, epoch),
                "what it implies for generalization": implication(train_loss, test_loss, accuracy, epoch),
            }
        )
    final = accuracy[:, -1]
    for report, section in zip(reported.TASK1_ACCURACY, ("4.1", "4.2.1")):
        rows.append(
            {
                "epoch": f"test accuracy, % (section {section})",
                "report": report,
                "ours": tables.mean_std(final),
                "difference": tables.signed(final.mean() - report),
                tables.PREDICTED: tables.is_predicted(report, final),
                "explanation": tables.DASH,
                "what it implies for generalization": tables.DASH,
            }
        )
    return rows


def explanation(train_loss, epoch):
    """Return what happens to the training loss in an epoch: its fall, and the share of the whole fall."""
    means = train_loss.mean(0)
    if epoch == 0:
        return f"{CHANCE - means[0]:.3f} below that of a guess, ln {len(data.CLASSES)} = {CHANCE:.3f}"
    fall, whole = means[epoch - 1] - means[epoch], means[0] - means[-1]
    return f"falls by {fall:.3f}, {100 * fall / whole:.0f}% of the fall from epoch 1 to {len(means)}"


def implication(train_loss, test_loss, accuracy, epoch):
    """Return how test loss and accuracy change in an epoch, and whether the test loss exceeds the training loss."""
    seeds = len(test_loss)
    below = int((test_loss[:, epoch] < train_loss[:, epoch]).sum())
    text = f"test accuracy {accuracy[:, epoch].mean():.1f}%, test loss {test_loss[:, epoch].mean():.3f}"
    if epoch:
        fell = int((test_loss[:, epoch] < test_loss[:, epoch - 1]).sum())
        change = np.mean(test_loss[:, epoch] - test_loss[:, epoch - 1])
        text += f" ({tables.signed(change, 3)}; it falls in {fell} of {seeds} seeds)"
    return f"{text}, below the training loss in {below} of {seeds}"


if __name__ == "__main__":
    cli.entry_point(main)
