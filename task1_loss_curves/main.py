"""Task 1. How does LeNet's training loss fall, batch by batch and epoch by epoch? (assignment, sections 3.1 and 4.1)

    python task1_loss_curves/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Writes to task1_loss_curves/outputs/:
    loss_history.npz        the report's batch_losses, epoch_losses and batch_indices, of the first seed
    loss_history_seeds.npz  the histories of all seeds
    loss_curves.png         the loss of every batch with its moving average, and the mean loss of every epoch
    loss_table.md           epoch losses and test accuracy compared with the report's
    results.csv, summary.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, reported, sweep, tables

# The report does not state its batch size; its losses match batch size 4, as in the PyTorch tutorial.
BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {"baseline": {}}


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
    scale = cli.read_json(source / "run.json")["scale"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history_seeds.npz")
    tables.write_results(out, histories, scale)

    # 4.1: loss per batch and per epoch
    plots.loss_figure(out / "loss_curves.png", tables.load_arrays(source / "loss_history.npz"), "LeNet, the baseline")
    caption = f"Mean training loss of each epoch; mean ± standard deviation over {len(histories)} seeds."
    page = [caption, loss_table(histories)]
    tables.write_markdown(out / "loss_table.md", "Task 1: LeNet's losses compared with the report's", page, scale)


def loss_table(histories):
    """Return one row per epoch, and a last one with the test accuracy."""
    rows = []
    for epoch, ours in enumerate(zip(*(history["epoch_losses"] for history in histories.values()))):
        known = epoch < len(reported.TASK1_LOSSES)
        report = reported.TASK1_LOSSES[epoch] if known else None
        rows.append(
            {
                "epoch": epoch + 1,
                "report": f"{report:.2f}" if known else "",
                "ours": tables.mean_std(ours, 3),
                "difference": f"{sum(ours) / len(ours) - report:+.3f}" if known else "",
            }
        )
    report = "{} (section 4.1), {} (section 4.2.1)".format(*reported.TASK1_ACCURACY)
    accuracy = tables.mean_std(tables.final_values(histories, "test_accuracy")["baseline"])
    return [*rows, {"epoch": "test accuracy, %", "report": report, "ours": accuracy, "difference": ""}]


if __name__ == "__main__":
    cli.entry_point(main)
