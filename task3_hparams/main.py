"""Task 3. What do learning rate, length, momentum and regularisation do to LeNet? (assignment, sections 3.3 and 4.2)

    python task3_hparams/main.py [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N] [--lang en|zh] [--redraw]

The report's seven runs and the eighth that it recommends, on all 50,000 training images and compared on the test set, as the
report does; then again on the 9:1 split, where the winner is chosen by validation accuracy. Writes to task3_hparams/outputs/:
    loss_history.npz          every run and seed on all training images
    split_history.npz         the same on 45,000, with validation loss and accuracy; split.npz: which images those are
    losses_<run>.png          the two-panel loss figure of each run (figure 2)
    comparison.png            the four panels of figure 3
    hyperparameters.md        tables 1 and 2, ours beside the report's, and what validation would have chosen
    results.csv, summary.csv, split_results.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables

BASE = {
    "model": "lenet",
    "epochs": 5,
    "batch_size": 4,
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "dropout": 0.5,
}
CONFIGS = {
    "baseline": {},
    "high_lr": {"lr": 0.01},
    "low_lr": {"lr": 0.0001},
    "more_epochs": {"epochs": 10},
    "no_regularization": {"weight_decay": 0.0, "dropout": 0.0},
    "strong_regularization": {"weight_decay": 0.1, "dropout": 0.7},
    "no_momentum": {"momentum": 0.0},
    "no_regularization_more_epochs": {
        "weight_decay": 0.0,
        "dropout": 0.0,
        "epochs": 10,
    },  # the report's recommended next step
}
REPORT_ACCURACY = {
    "baseline": 50.68,
    "high_lr": 22.29,
    "low_lr": 40.21,
    "more_epochs": 54.93,
    "no_regularization": 61.35,
    "strong_regularization": 10.00,
    "no_momentum": 36.51,
}
REPORT_LOSS = {  # the last epoch's, sections 4.2.2 to 4.2.4
    "baseline": 1.4336,
    "high_lr": 2.06,
    "low_lr": 1.692,
    "more_epochs": 1.3792,
    "no_regularization": 1.0241,
    "strong_regularization": 2.3029,
    "no_momentum": 1.745,
}
TABLE2 = ("strong_regularization", "baseline", "more_epochs", "no_regularization")
SPLIT_SEEDS = 3  # the runs differ by far more than seeds do
CLOSE = 3.0  # points of accuracy within which a run counts as the report's


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
    histories = sweep.run(runs, options, name="all images")
    tables.save_histories(options.out / "loss_history.npz", histories)
    sweep.write_run_json(runs, options)  # half of the task is half of the report: --redraw shows it already
    on_split = sweep.run(runs, options, seeds=options.seeds[:SPLIT_SEEDS], on_split=True, name="9:1 split")
    tables.save_histories(options.out / "split_history.npz", on_split, batches_of=None)
    tables.save_arrays(options.out / "split.npz", sweep.split_indices(options))
    sweep.write_run_json(runs, options)


def write_results(source, out, lang="en"):
    """Draw tables and figures into `out` from the histories saved in `source`."""

    run_json = cli.read_json(source / "run.json")
    scale, runs = run_json["scale"], run_json["configs"]
    plots.setup(lang, scale)
    histories = tables.load_histories(source / "loss_history.npz")
    tables.write_csv(out / "results.csv", tables.result_rows(histories, scale))
    tables.write_csv(out / "summary.csv", tables.summary_rows(histories, scale))

    accuracy = tables.final_values(histories, "test_accuracy")
    loss = tables.final_values(histories, "epoch_losses")
    sections = [
        f"Mean ± standard deviation over {len(accuracy['baseline'])} seeds, each run's last epoch.",
        "## Table 1: the runs",
        table1(runs, accuracy, loss),
        explanation(histories, accuracy),
        "## Table 2: regularisation and accuracy",
        sorted(
            (row for row in table1(runs, accuracy, loss) if row["config"] in TABLE2),
            key=lambda row: TABLE2.index(row["config"]),
        ),
        "## What validation would have chosen",
        "The report compares its runs on the test set. Here each is trained again on 45,000 images, and 5,000 held-out ones choose.",
    ]
    if (source / "split_history.npz").exists():
        on_split = tables.load_histories(source / "split_history.npz")
        tables.write_csv(out / "split_results.csv", tables.result_rows(on_split, scale))
        sections += selection(on_split)
    else:
        sections.append("Not yet run to its end: `python task3_hparams/main.py --scale full` goes on with it.")
    tables.write_markdown(out / "hyperparameters.md", "Task 3: seven runs, and the next step", sections, scale)

    first = min(seed for _, seed in histories)
    for run in CONFIGS:
        plots.loss_figure(out / f"losses_{run}.png", histories[run, first], run)
    draw_comparison(out / "comparison.png", histories, accuracy, loss)


def table1(runs, accuracy, loss):
    rows = []
    for name, run in runs.items():
        row = {
            "config": name,
            "lr": run["lr"],
            "epochs": run["epochs"],
            "momentum": run["momentum"],
            "L2": run["weight_decay"],
            "dropout": run["dropout"],
        }
        reported = REPORT_ACCURACY.get(name)
        row |= {
            "report: accuracy, %": f"{reported:.2f}" if reported else "",
            "ours: accuracy, %": tables.mean_std(accuracy[name]),
        }
        row |= {"difference": f"{accuracy[name].mean() - reported:+.2f}" if reported else ""}
        row |= {
            "report: training loss": REPORT_LOSS.get(name, ""),
            "ours: training loss": tables.mean_std(loss[name], 4),
        }
        rows.append(
            row
            | {
                "within 3 points": ("yes" if abs(accuracy[name].mean() - reported) <= CLOSE else "no")
                if reported
                else ""
            }
        )
    return rows


def explanation(histories, accuracy):
    """What the numbers say of the runs that are not within 3 points, and of two runs that are one."""
    sentences = []
    for run, reported in REPORT_ACCURACY.items():
        if abs(accuracy[run].mean() - reported) > CLOSE:
            seen = [
                value for (name, _), history in histories.items() if name == run for value in history["test_accuracy"]
            ]
            between = f"between {min(seen):.2f}% and {max(seen):.2f}% over all epochs and seeds"
            inside = "inside" if min(seen) <= reported <= max(seen) else "outside"
            sentences.append(
                f"`{run}` is {accuracy[run].mean() - reported:+.2f} points from the report's {reported:.2f}%, and {tables.std(accuracy[run]):.2f} is the standard deviation of our seeds; "
                f"its accuracy is {between}, and the report's number lies {inside} that range."
            )
    alike = (accuracy["low_lr"] - accuracy["no_momentum"]).mean()
    return " ".join(
        [
            *sentences,
            "`low_lr` and `no_momentum` take steps of the same long-run size, lr / (1 - momentum) = 0.001: "
            f"seed by seed their accuracies differ by {alike:+.2f} points on average, the report's two numbers by {REPORT_ACCURACY['low_lr'] - REPORT_ACCURACY['no_momentum']:+.2f}"
            + (": in effect one training, with two draws of chance." if abs(alike) < 1 else "."),
        ]
    )


def selection(on_split):
    """A table of validation and test accuracy on the split, and whether they choose the same run."""
    validation = tables.final_values(on_split, "val_accuracy")
    test = tables.final_values(on_split, "test_accuracy")
    ranked = sorted(validation, key=lambda run: -validation[run].mean())
    rows = [
        {
            "config": run,
            "validation accuracy, %": tables.mean_std(validation[run]),
            "test accuracy, %": tables.mean_std(test[run]),
        }
        for run in ranked
    ]
    by_test = sorted(test, key=lambda run: -test[run].mean())
    agree = (
        "the test set ranks the same run first"
        if by_test[0] == ranked[0]
        else f"the test set would have chosen `{by_test[0]}`"
    )
    order = "and all runs in the same order" if by_test == ranked else "though not all runs in the same order"
    seeds = len(validation[ranked[0]])
    return (
        f"Mean ± standard deviation over {seeds} seeds.",
        rows,
        (
            f"Validation chooses `{ranked[0]}` ({validation[ranked[0]].mean():.2f}%), whose test accuracy is {test[ranked[0]].mean():.2f}%; {agree}, {order}. "
            f"Over the runs, validation and test accuracy differ by {max(abs(validation[run].mean() - test[run].mean()) for run in ranked):.2f} points at most."
        ),
    )


def draw_comparison(path, histories, accuracy, loss):
    figure, ((losses, accuracies), (final, related)) = plots.plt.subplots(2, 2, figsize=(14, 10), layout="constrained")
    plots.curves(losses, histories, "epoch_losses", "Mean training loss")
    losses.set_title("Training loss of each epoch")
    losses.legend(fontsize=8)
    plots.curves(accuracies, histories, "test_accuracy", "Test accuracy, %")
    accuracies.set_title("Test accuracy after each epoch")
    plots.bars(final, accuracy, "Test accuracy, %")
    final.set_title("Final test accuracy")
    for position, run in enumerate(CONFIGS):
        related.scatter(loss[run], accuracy[run], color=f"C{position % 10}", label=run, s=25)
    related.set(
        xlabel="Final training loss",
        ylabel="Test accuracy, %",
        title="Final loss and final accuracy, one point a seed",
    )
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
