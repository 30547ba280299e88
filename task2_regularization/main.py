"""Task 2. Do L2 and dropout help LeNet on CIFAR-10, and at what strength? (assignment, sections 3.2 and 4.2.4)

    python task2_regularization/main.py [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N] [--lang en|zh] [--redraw]

Writes to task2_regularization/outputs/:
    loss_history.npz          every run and seed: running loss; loss and accuracy on training and test images; weight norms
    comparison.md             the report's comparison of L2 and dropout (3.2.3) and its table 2, with measured columns
    curves.png                loss and accuracy of training and test over the epochs
    strength.png              accuracy against the strength of each
    results.csv, summary.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli

BASE = {
    "model": "lenet",
    "epochs": 5,
    "batch_size": 4,
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "dropout": 0.0,
}
RUNS = {
    "none": {},
    "l2": {"weight_decay": 0.01},
    "dropout": {"dropout": 0.5},
    "both": {"weight_decay": 0.01, "dropout": 0.5},
    "l2_0.0001": {"weight_decay": 0.0001},
    "l2_0.001": {"weight_decay": 0.001},
    "l2_0.1": {"weight_decay": 0.1},
    "dropout_0.3": {"dropout": 0.3},
    "dropout_0.7": {"dropout": 0.7},
    "strong": {"weight_decay": 0.1, "dropout": 0.7},
}
COMPARED = ("none", "l2", "dropout", "both")
STRENGTHS = {
    "weight_decay": {0.0: "none", 0.0001: "l2_0.0001", 0.001: "l2_0.001", 0.01: "l2", 0.1: "l2_0.1"},
    "dropout": {0.0: "none", 0.3: "dropout_0.3", 0.5: "dropout", 0.7: "dropout_0.7"},
}
TABLE2 = {
    "strong": (2.3029, 10.00),
    "both": (1.4336, 50.68),
    "none": (1.0241, 61.35),
}  # final training loss, test accuracy
MEASURED = ("epoch_losses", "clean_train_loss", "clean_train_accuracy", "test_loss", "test_accuracy", "weight_norm")

WORDS = """What the report says in section 3.2.3 and what was measured here. L2 acts on weights through the optimiser and is the
same in training and testing; dropout acts on activations and is off in testing. The norm is that of all parameters after
training; `clean` is measured in evaluation mode on 10,000 training images; the gap is clean training accuracy less test
accuracy."""
TABLE2_WORDS = "The report's table 2. Its fourth row, ten epochs of the baseline, is task 3's run `more_epochs`."


def main():
    options = cli.settle(cli.flags(__doc__).parse_args(), TASK)
    with cli.alone(options.out):
        if not options.redraw:
            train(options)
        report(options.out, options.out, options.lang)
    print(f"results: {options.out}")


def train(options):
    from common import study, tables

    runs = study.configure(RUNS, BASE, options)
    histories = study.study(runs, options, evaluate_train=True)
    tables.save_histories(options.out / "loss_history.npz", histories)
    study.finish(runs, options)


def report(source, out, lang="en"):
    """Draw tables and figures into `out` from the histories saved in `source`."""
    from common import cli, figures, tables

    scale = cli.read_json(source / "run.json")["scale"]
    style = figures.Style(lang, scale)
    histories = tables.load_histories(source / "loss_history.npz")
    tables.write_csv(out / "results.csv", tables.result_rows(histories, scale))
    tables.write_csv(out / "summary.csv", tables.summary_rows(histories, scale))

    at_end = {field: tables.final(histories, field) for field in MEASURED}
    gap = {run: at_end["clean_train_accuracy"][run] - at_end["test_accuracy"][run] for run in RUNS}
    seconds = tables.per_run(histories, lambda history: history["seconds"].mean())
    rows = [
        {
            "run": run,
            "L2": (BASE | change)["weight_decay"],
            "dropout": (BASE | change)["dropout"],
            "running training loss": tables.pm(at_end["epoch_losses"][run], 3),
            "clean training loss": tables.pm(at_end["clean_train_loss"][run], 3),
            "test loss": tables.pm(at_end["test_loss"][run], 3),
            "test accuracy, %": tables.pm(at_end["test_accuracy"][run]),
            "gap, points": tables.pm(gap[run]),
            "weight norm": tables.pm(at_end["weight_norm"][run], 1),
            "s an epoch": tables.pm(seconds[run], 1),
        }
        for run, change in RUNS.items()
    ]
    table2 = [
        {
            "run": run,
            "report: training loss": loss,
            "ours: training loss": tables.pm(at_end["epoch_losses"][run], 4),
            "report: test accuracy, %": f"{accuracy:.2f}",
            "ours: test accuracy, %": tables.pm(at_end["test_accuracy"][run]),
        }
        for run, (loss, accuracy) in TABLE2.items()
    ]
    seeds = len({seed for _, seed in histories})
    sections = [
        WORDS,
        f"Mean ± standard deviation over {seeds} seeds.",
        rows,
        "## Table 2",
        TABLE2_WORDS,
        table2,
        "## What it shows",
        verdict(at_end, gap),
    ]
    tables.write_markdown(out / "comparison.md", "Task 2: L2 and dropout", sections, scale)
    draw_curves(out / "curves.png", histories, figures, style)
    draw_strengths(out / "strength.png", at_end, figures, style)


def verdict(at_end, gap):
    """Sentences computed from the numbers, so that they stay true."""
    accuracy = {run: values.mean() for run, values in at_end["test_accuracy"].items()}
    best = max(accuracy, key=accuracy.get)
    better = [run for run in RUNS if accuracy[run] > accuracy["none"]]
    return (
        f"The best run is `{best}` with {accuracy[best]:.2f}%; without any regularisation it is {accuracy['none']:.2f}%. "
        + (
            f"Better than none: {', '.join(f'`{run}`' for run in better)}. "
            if better
            else "No strength of either beats none. "
        )
        + f"The generalisation gap is {gap['none'].mean():.2f} points without regularisation and {gap['both'].mean():.2f} with the report's baseline of both. "
        f"The report's conclusion, that regularisation only hurts here, {'does not hold' if better else 'holds'} at these strengths and this length of training."
    )


def draw_curves(path, histories, figures, style):
    compared = {key: history for key, history in histories.items() if key[0] in COMPARED}
    figure, axes = figures.plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    panels = (
        ("clean_train_loss", "Training loss (evaluation mode)"),
        ("test_loss", "Test loss"),
        ("clean_train_accuracy", "Training accuracy, %"),
        ("test_accuracy", "Test accuracy, %"),
    )
    for panel, (field, label) in zip(axes.flat, panels):
        figures.curves(panel, compared, field, style, label)
    for left, right in axes:
        right.sharey(left)
        right.autoscale(axis="y")
    axes[0, 0].legend()
    style.save(figure, path)


def draw_strengths(path, at_end, figures, style):
    figure, axes = figures.plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for panel, (name, label) in zip(axes, (("weight_decay", "L2 (weight decay)"), ("dropout", "Dropout"))):
        strengths = STRENGTHS[name]
        for field, words in (("test_accuracy", "Test accuracy, %"), ("clean_train_accuracy", "Training accuracy, %")):
            values = [at_end[field][run] for run in strengths.values()]
            spread = [value.std(ddof=1) if len(value) > 1 else 0 for value in values]
            panel.errorbar(
                range(len(strengths)),
                [value.mean() for value in values],
                yerr=spread,
                marker="o",
                capsize=3,
                label=style.text(words),
            )
        panel.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        panel.set(xlabel=style.text(label), ylabel=style.text("Accuracy after training, %"))
    axes[0].legend()
    style.save(figure, path)


if __name__ == "__main__":
    cli.run(main)
