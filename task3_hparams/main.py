"""Task 3. How do learning rate, number of epochs, momentum and regularization affect LeNet?

Assignment, sections 3.3 and 4.2.

    python task3_hparams/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Trains the report's seven configurations, and the eighth that it recommends, on all 50,000 training images, and compares
them on the test set as the report does; then again on the 9:1 split, where validation accuracy chooses the best.
Writes to task3_hparams/outputs/:
    loss_history.npz          every run on all training images
    alone_history.npz         one seed of every configuration trained outside a stack, for its time
    split_history.npz         every run on 45,000, with validation loss and accuracy; split.npz: which images those are
    losses_<config>.png       the two-panel loss figure of each configuration (figure 2)
    comparison.png            the four panels of figure 3
    hyperparameters.md        tables 1 and 2 compared with the report's, and what validation chooses
    results.csv, summary.csv, split_results.csv, run.json
"""

import math
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, reported, sweep, tables

BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {
    "baseline": {},
    "high_lr": {"lr": 0.01},
    "low_lr": {"lr": 0.0001},
    "more_epochs": {"epochs": 10},
    "no_regularization": {"weight_decay": 0.0, "dropout": 0.0},
    "strong_regularization": {"weight_decay": 0.1, "dropout": 0.7},
    "no_momentum": {"momentum": 0.0},
    # the report's recommended next step
    "no_regularization_more_epochs": {"weight_decay": 0.0, "dropout": 0.0, "epochs": 10},
}
TABLE2 = ("strong_regularization", "baseline", "more_epochs", "no_regularization")
SPLIT_SEEDS = 3  # configurations differ by far more than seeds do
TOLERANCE = 3  # points of accuracy within which a configuration counts as reproduced
SAME = 1  # points of accuracy within which two configurations count as equal
ACCURACY, LOSS = reported.ACCURACY[TASK.name], reported.LOSS[TASK.name]


def main():
    cli.run_task(__doc__, TASK, train, write_results)


def train(options):
    """Train every configuration on all training images, then alone, for its time, then on the 9:1 split."""
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz")
    first = options.seeds[:1]
    sweep.run(CONFIGS, BASE, options, save_to="alone_history.npz", seeds=first, stacked=False, batch_losses=False)
    seeds = options.seeds[:SPLIT_SEEDS]
    sweep.run(CONFIGS, BASE, options, save_to="split_history.npz", seeds=seeds, validation=True, batch_losses=False)


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`."""
    run_json = cli.read_json(source / "run.json")
    scale, configs = run_json["scale"], run_json["configs"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history.npz", CONFIGS)
    tables.write_results(out, histories, scale)
    accuracy = tables.final_values(histories, "test_accuracy")
    loss = tables.final_values(histories, "epoch_losses")

    page = [
        f"Mean ± standard deviation over {len(accuracy['baseline'])} seeds, after the last epoch.",
        "## Table 1: the configurations",
        table1(configs, accuracy, loss),
        explanation(histories, accuracy),
        "## Table 2: regularization and accuracy",
        table2(configs, accuracy, loss),
        "## What validation chooses",
        "The report compares its configurations on the test set. "
        "Here each is trained again on 45,000 images, and accuracy on the other 5,000 chooses.",
    ]
    if (source / "split_history.npz").exists():
        on_split = tables.load_histories(source / "split_history.npz")
        tables.write_csv(out / "split_results.csv", tables.result_rows(on_split, scale))
        page += selection(on_split)
    else:
        page.append("This part is not finished; resume it with `python task3_hparams/main.py --scale full`.")
    tables.write_markdown(out / "hyperparameters.md", "Task 3: seven configurations, and the next step", page, scale)

    first_seed = min(seed for _, seed in histories)
    for name in CONFIGS:
        plots.loss_figure(out / f"losses_{name}.png", histories[name, first_seed], name)  # figure 2
    draw_comparison(out / "comparison.png", histories, accuracy, loss)  # figure 3


def table1(configs, accuracy, loss):
    """Return one row per configuration: its hyperparameters, the report's values and ours."""
    rows = []
    for name, config in configs.items():
        known = name in ACCURACY
        difference = accuracy[name].mean() - ACCURACY.get(name, 0)
        reproduced = "yes" if abs(difference) <= TOLERANCE else "no"
        rows.append(
            {
                "config": name,
                "lr": config["lr"],
                "epochs": config["epochs"],
                "batch size": config["batch_size"],
                "momentum": config["momentum"],
                "L2": config["weight_decay"],
                "dropout": config["dropout"],
                "report: accuracy, %": f"{ACCURACY[name]:.2f}" if known else "",
                "ours: accuracy, %": tables.mean_std(accuracy[name]),
                "difference": f"{difference:+.2f}" if known else "",
                "report: training loss": LOSS.get(name, ""),
                "ours: training loss": tables.mean_std(loss[name], 4),
                f"within {TOLERANCE} points": reproduced if known else "",
            }
        )
    return rows


def table2(configs, accuracy, loss):
    """Return the report's four columns with our values."""
    return [
        {
            "config": name,
            "L2": configs[name]["weight_decay"],
            "dropout": configs[name]["dropout"],
            "training loss": tables.mean_std(loss[name], 4),
            "test accuracy, %": tables.mean_std(accuracy[name]),
        }
        for name in TABLE2
    ]


def explanation(histories, accuracy):
    """Return what the numbers say about configurations that differ from the report, and two that are equivalent."""
    sentences = []
    for name, report in ACCURACY.items():
        difference = accuracy[name].mean() - report
        if abs(difference) > TOLERANCE:
            runs = [history["test_accuracy"] for (config, _), history in histories.items() if config == name]
            lowest, highest = min(map(min, runs)), max(map(max, runs))
            inside = "inside" if lowest <= report <= highest else "outside"
            sentences.append(
                f"`{name}` differs by {difference:+.2f} points from the report's {report:.2f}%; "
                f"the standard deviation of our seeds is {tables.std(accuracy[name]):.2f}. "
                f"Over all epochs and seeds its accuracy ranges from {lowest:.2f}% to {highest:.2f}%, "
                f"and the report's number lies {inside} that range."
            )
    low_lr, no_momentum = accuracy["low_lr"], accuracy["no_momentum"]
    config = {**BASE, **CONFIGS["low_lr"]}
    difference = (low_lr - no_momentum).mean()
    spread = math.hypot(tables.std(low_lr), tables.std(no_momentum))
    same = ": in effect they are one training" if abs(difference) < SAME else ""
    sentences.append(
        "The steps of `low_lr` and `no_momentum` have the same long-run size, "
        f"lr / (1 - momentum) = {config['lr'] / (1 - config['momentum']):g}. "
        f"Seed by seed their accuracies differ by {difference:+.2f} points on average{same}. "
        f"The report's two numbers differ by {ACCURACY['low_lr'] - ACCURACY['no_momentum']:+.2f} points; "
        f"between two runs with different seeds, the difference has a standard deviation of {spread:.2f} points."
    )
    return " ".join(sentences)


def selection(on_split):
    """Return a caption, a table of validation and test accuracy, and a sentence on what each of them chooses."""
    validation = tables.final_values(on_split, "val_accuracy")
    test = tables.final_values(on_split, "test_accuracy")
    by_validation = sorted(validation, key=lambda name: -validation[name].mean())
    by_test = sorted(test, key=lambda name: -test[name].mean())
    best = by_validation[0]
    rows = [
        {
            "config": name,
            "validation accuracy, %": tables.mean_std(validation[name]),
            "test accuracy, %": tables.mean_std(test[name]),
        }
        for name in by_validation
    ]
    agreement = "the test set ranks the same configuration first"
    if by_test[0] != best:
        agreement = f"the test set would have chosen `{by_test[0]}`"
    order = "and all of them in the same order" if by_test == by_validation else "but not all of them in the same order"
    largest = max(abs(validation[name].mean() - test[name].mean()) for name in by_validation)
    return (
        f"Mean ± standard deviation over {len(validation[best])} seeds.",
        rows,
        f"Validation chooses `{best}` ({validation[best].mean():.2f}%), whose test accuracy is "
        f"{test[best].mean():.2f}%; {agreement}, {order}. "
        f"Validation and test accuracy of a configuration differ by {largest:.2f} points at most.",
    )


def draw_comparison(path, histories, accuracy, loss):
    """Draw the report's four panels: losses, accuracies, final accuracies, and final loss against final accuracy."""
    figure, ((losses, accuracies), (final, related)) = plots.plt.subplots(2, 2, figsize=(14, 10), layout="constrained")
    plots.curves(losses, histories, "epoch_losses", "Mean training loss")
    losses.set_title("Training loss of each epoch")
    losses.legend(fontsize=8)
    plots.curves(accuracies, histories, "test_accuracy", "Test accuracy, %")
    accuracies.set_title("Test accuracy after each epoch")
    plots.bars(final, accuracy, "Test accuracy, %")
    final.set_title("Final test accuracy")
    for position, name in enumerate(CONFIGS):
        related.scatter(
            loss[name],
            accuracy[name],
            color=f"C{position % 10}",
            marker=plots.MARKERS[position % len(plots.MARKERS)],
            s=25,
        )
    related.set_title("Final loss and final accuracy, one point per run")
    related.set(xlabel="Final training loss", ylabel="Test accuracy, %")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
