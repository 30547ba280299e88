"""Task 1. How does LeNet's training loss fall, batch by batch and epoch by epoch? (assignment, sections 3.1 and 4.1)

    python task1_loss_curves/main.py [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N] [--lang en|zh] [--redraw]

Writes to task1_loss_curves/outputs/:
    loss_history.npz        the report's batch_losses, epoch_losses and batch_indices, of seed 0
    loss_history_seeds.npz  epoch losses and evaluations of all seeds
    loss_curves.png         the loss of every batch with its moving average, and the mean loss of every epoch
    loss_table.md           the five epoch losses and the test accuracy, ours beside the report's
    results.csv, summary.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables

# The report does not name its batch size; its losses are those of 4, the PyTorch tutorial's.
BASE = {
    "model": "lenet",
    "epochs": 5,
    "batch_size": 4,
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "dropout": 0.5,
}
CONFIGS = {"baseline": {}}

REPORT_LOSSES = (1.90, 1.59, 1.51, 1.47, 1.43)  # section 4.1, read off its figure
REPORT_ACCURACY = "49 (section 4.1), 50.68 (section 4.2.1)"


def main():
    options = cli.resolve_options(cli.make_parser(__doc__).parse_args(), TASK)
    with cli.output_lock(options.out):
        if not options.redraw:
            train(options)
        write_results(options.out, options.out, options.lang)
        cli.finish(options)
    print(f"results: {options.out}")


def train(options):
    from common import sweep

    runs = sweep.configure(CONFIGS, BASE, options)
    histories = sweep.run(runs, options)
    first = histories["baseline", options.seeds[0]]
    tables.save_arrays(
        options.out / "loss_history.npz", {key: first[key] for key in ("batch_losses", "epoch_losses", "batch_indices")}
    )
    tables.save_histories(options.out / "loss_history_seeds.npz", histories)
    sweep.write_run_json(runs, options)


def write_results(source, out, lang="en"):
    """Draw tables and figures into `out` from the histories saved in `source`."""

    scale = cli.read_json(source / "run.json")["scale"]
    plots.setup(lang, scale)
    histories = tables.load_histories(source / "loss_history_seeds.npz")
    tables.write_csv(out / "results.csv", tables.result_rows(histories, scale))
    tables.write_csv(out / "summary.csv", tables.summary_rows(histories, scale))

    plots.loss_figure(
        out / "loss_curves.png",
        tables.load_arrays(source / "loss_history.npz"),
        "LeNet, the baseline",
    )

    losses = list(zip(*(history["epoch_losses"] for history in histories.values())))  # an epoch a row, a seed a column
    rows = []
    for epoch, ours in enumerate(losses):
        reported = REPORT_LOSSES[epoch] if epoch < len(REPORT_LOSSES) else None
        beside = ("", "") if reported is None else (f"{reported:.2f}", f"{sum(ours) / len(ours) - reported:+.3f}")
        rows.append(
            {"epoch": epoch + 1, "report": beside[0], "ours": tables.mean_std(ours, 3), "difference": beside[1]}
        )
    accuracy = tables.final_values(histories, "test_accuracy")["baseline"]
    rows.append(
        {"epoch": "test accuracy, %", "report": REPORT_ACCURACY, "ours": tables.mean_std(accuracy), "difference": ""}
    )
    seeds = f"Mean training loss of each epoch; mean ± standard deviation over {len(histories)} seeds."
    tables.write_markdown(out / "loss_table.md", "Task 1: LeNet's losses beside the report's", [seeds, rows], scale)


if __name__ == "__main__":
    cli.entry_point(main)
