"""Task 3. How do learning rate, number of epochs, momentum and regularization affect LeNet?

Assignment, sections 3.3 and 4.2.

    python task3_hparams/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Trains the report's seven configurations, and the eighth that it recommends, on all 50,000 training images, and compares
them on the test set as the report does; then again on the 9:1 split, where validation accuracy chooses the best.
Writes to task3_hparams/outputs/:
    loss_history.npz          every run on all training images
    alone_history.npz         one seed of every configuration trained outside a stack, for its time
    split_history.npz         every run on 45,000, with validation loss and accuracy; split.npz: which images those are
    losses.png                the training losses of all configurations on common axes (figure 2)
    comparison.png            the four panels of figure 3
    hyperparameters.md        tables 1 and 2 compared with the report's, the four metrics of section 3.3.2, and what
                              validation chooses
    results.csv, summary.csv, split_results.csv, run.json
"""

import math
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

import numpy as np

from common import cli, data, metrics, plots, repeated, reported, run_plots, sweep, tables

BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {  # the first seven by their numbers in the report, 1 to 7
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
DASHED = ("more_epochs", "no_momentum", "no_regularization_more_epochs")
LARGE, SMALL = 40, 14  # marks, points squared; a small one on a large one leaves both visible
TABLE2 = ("strong_regularization", "baseline", "more_epochs", "no_regularization")
SPLIT_SEEDS = 3  # configurations differ by far more than seeds do
SAME = 1  # points of accuracy within which two configurations, or one and a guess, count as equal
TARGETS = (35, 50)  # test accuracies, %
CHANCE, CHANCE_LOSS = 100 / len(data.CLASSES), math.log(len(data.CLASSES))
NUMBERS = {name: number for number, name in enumerate(CONFIGS, start=1)}
# of the figures; a configuration that coincides with another one is drawn dashed over it, which is solid
STYLES = {
    name: plots.style(position) | {"linestyle": "--" if name in DASHED else "-"}
    for position, name in enumerate(CONFIGS)
}
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
    alone = source / "alone_history.npz"
    measured = measure(histories, tables.load_histories(alone, CONFIGS) if alone.exists() else {})
    tables.write_results(out, histories, scale, measured)
    accuracy = tables.final_values(histories, "test_accuracy")
    loss = tables.final_values(histories, "epoch_losses")

    page = [
        finding(accuracy),
        f"Mean ± standard deviation over {len(accuracy['baseline'])} seeds, after the last epoch. The numbers are the "
        "report's; the last configuration is the one that it recommends to try next.",
        "## Table 1: the configurations",
        f"The batch size is {configs['baseline']['batch_size']}, which the report does not state. "
        "A further training of ours would lie in the prediction interval with a probability of 95%.",
        table1(configs, accuracy, loss),
        explanation(histories, accuracy),
        repeated.compare(source, repeated.BASELINE),
        repeated.compare(source, repeated.TEN_EPOCHS),
        "## Section 3.3.2: the four metrics",
        f"Roughness: mean absolute difference of the means of the training loss over consecutive {metrics.WINDOW} "
        "batches (the lower, the smoother). Epochs: the first one after which test accuracy reaches the target; median "
        "over seeds and, in parentheses, their range. Seconds: the whole training of one seed, outside a stack.",
        table_metrics(accuracy, measured),
        timing(measured, run_json),
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

    batch_size = f"batch size {configs['baseline']['batch_size']}"
    draw_losses(out / "losses.png", histories, batch_size, scale)  # figure 2
    draw_comparison(out / "comparison.png", histories, accuracy, loss, batch_size, scale)  # figure 3


def measure(histories, alone):
    """Return three of the metrics of section 3.3.2, {column: {(configuration, seed): value}}.

    roughness: metrics.roughness of the training loss, nats. epochs_to_35, epochs_to_50: epochs until test accuracy
    reaches 35% and 50%, infinite where it never does. seconds_alone: of training outside a stack, without compiling.
    The fourth metric is the final test accuracy. alone: histories of runs that were trained outside a stack, or {}.
    """
    return {
        "roughness": {run: float(history["roughness"]) for run, history in histories.items() if "roughness" in history},
        **{
            f"epochs_to_{target}": {
                run: metrics.epochs_to_reach(history["test_accuracy"], target) for run, history in histories.items()
            }
            for target in TARGETS
        },
        "seconds_alone": {run: tables.training_seconds(history) for run, history in alone.items()},
    }


def finding(accuracy):
    """Return what was found: what changes accuracy most, and whether the report's numbers are reproduced."""
    inside = [name for name, report in ACCURACY.items() if tables.is_predicted(report, accuracy[name]) == "yes"]
    baseline = accuracy["baseline"].mean()
    changes = {name: accuracy[name].mean() - baseline for name in ACCURACY if name != "baseline"}
    best, worst = max(changes, key=changes.get), min(changes, key=changes.get)
    return (
        f"**{len(inside)} of the report's {len(ACCURACY)} test accuracies lie in the 95% prediction interval of our "
        f"seeds.** Of the report's changes to the baseline ({baseline:.2f}%), `{best}` gains most, "
        f"{tables.signed(changes[best])} points, and `{worst}` loses most, {tables.signed(changes[worst])}; "
        f"the recommended next step, `no_regularization_more_epochs`, reaches "
        f"{accuracy['no_regularization_more_epochs'].mean():.2f}%."
    )


def table1(configs, accuracy, loss):
    """Return one row per configuration: its number and hyperparameters, the report's values and ours."""
    rows = []
    for name in CONFIGS:
        config, known = configs[name], name in ACCURACY
        difference = accuracy[name].mean() - ACCURACY.get(name, 0)
        rows.append(
            {
                "no.": number(name),
                "config": name,
                "lr": config["lr"],
                "epochs": config["epochs"],
                "momentum": config["momentum"],
                "L2": config["weight_decay"],
                "dropout": config["dropout"],
                "report: accuracy, %": f"{ACCURACY[name]:.2f}" if known else tables.DASH,
                "ours: accuracy, %": tables.mean_std(accuracy[name]),
                "difference": tables.signed(difference) if known else tables.DASH,
                tables.PREDICTED: tables.is_predicted(ACCURACY.get(name), accuracy[name]),
                "report: training loss": LOSS.get(name, tables.DASH),
                "ours: training loss": tables.mean_std(loss[name], 4),
            }
        )
    return rows


def number(name):
    """Return the report's number of an experiment; the last one is ours."""
    return str(NUMBERS[name]) if name in ACCURACY else f"{NUMBERS[name]} (ours)"


def table_metrics(accuracy, measured):
    """Return one row per configuration with the four metrics of section 3.3.2."""
    columns = {column: tables.map_histories(values, float) for column, values in measured.items()}
    rows = []
    for name in CONFIGS:
        roughness, seconds = columns["roughness"].get(name), columns["seconds_alone"].get(name)
        rows.append(
            {
                "no.": number(name),
                "config": name,
                "final test accuracy, %": tables.mean_std(accuracy[name]),
                "loss roughness, nats": tables.DASH if roughness is None else tables.mean_std(roughness, 4),
                **{f"epochs to {target}%": epochs_text(columns[f"epochs_to_{target}"][name]) for target in TARGETS},
                "seconds, trained alone": tables.DASH if seconds is None else f"{seconds.mean():.0f}",
            }
        )
    return rows


def epochs_text(values):
    """Format numbers of epochs (seeds,), where infinity is never: 4 (3 to 5)."""
    low, median, high = ("never" if np.isinf(x) else f"{x:g}" for x in (min(values), np.median(values), max(values)))
    return low if low == high else f"{median} ({low} to {high})"


def timing(measured, run_json):
    """Return how the seconds were measured, and how many times longer twice the epochs take."""
    seconds = measured["seconds_alone"]
    if not seconds:
        return "The runs have not been timed outside a stack yet: `python task3_hparams/main.py --scale full` does it."
    ratio = np.mean(
        [
            seconds[longer, seed] / seconds[shorter, seed]
            for longer, shorter in (("more_epochs", "baseline"), ("no_regularization_more_epochs", "no_regularization"))
            for seed in {seed for _, seed in seconds}
        ]
    )
    return (
        f"Twice the epochs take {ratio:.2f} times as long. The seconds are those of {run_json['device']}, without "
        "evaluation and compilation; on a CPU each run has one core, and one run per core is trained at a time."
    )


def table2(configs, accuracy, loss):
    """Return the report's five columns with our values; the conclusions are computed from them."""
    return [
        {
            "config": f"{name} ({number(name)})",
            "L2": configs[name]["weight_decay"],
            "dropout": configs[name]["dropout"],
            "training loss": tables.mean_std(loss[name], 4),
            "test accuracy, %": tables.mean_std(accuracy[name]),
            "conclusion": conclusion(name, accuracy, loss),
        }
        for name in TABLE2
    ]


def conclusion(name, accuracy, loss):
    """Return what a row of table 2 shows, compared with the most accurate row."""
    accuracies, losses = ({row: values[row].mean() for row in TABLE2} for values in (accuracy, loss))
    best = max(accuracies, key=accuracies.get)
    lower, higher = accuracies[best] - accuracies[name], losses[name] - losses[best]
    if accuracies[name] - CHANCE < SAME:
        return f"learns nothing: its loss is that of a guess, ln {len(data.CLASSES)} = {CHANCE_LOSS:.4f}"
    if name == best:
        lowest = " and the lowest training loss" if losses[name] == min(losses.values()) else ""
        return f"the highest accuracy{lowest}"
    verdict = "underfits" if higher > 0 else "overfits"
    return (
        f"{verdict}: {lower:.2f} points less than `{best}`, at a training loss {abs(higher):.3f} "
        f"{'higher' if higher > 0 else 'lower'}"
    )


def explanation(histories, accuracy):
    """Return what the numbers say about configurations that differ from the report, and two that are equivalent."""
    sentences = []
    for name, report in ACCURACY.items():
        difference = accuracy[name].mean() - report
        if tables.is_predicted(report, accuracy[name]) == "no":
            runs = [history["test_accuracy"] for (config, _), history in histories.items() if config == name]
            lowest, highest = min(map(min, runs)), max(map(max, runs))
            inside = "inside" if lowest <= report <= highest else "outside"
            sentences.append(
                f"`{name}` differs by {difference:+.2f} points from the report's {report:.2f}%, which is outside the "
                "prediction interval of our seeds. "
                f"Over all epochs and seeds its accuracy ranges from {lowest:.2f}% to {highest:.2f}%, "
                f"and the report's number is {inside} that range."
            )
    low_lr, no_momentum = accuracy["low_lr"], accuracy["no_momentum"]
    config = {**BASE, **CONFIGS["low_lr"]}
    difference = (low_lr - no_momentum).mean()
    spread = math.hypot(tables.std(low_lr), tables.std(no_momentum))
    same = ": in effect they are one training" if abs(difference) < SAME else ""
    sentences.append(
        "The steps of `low_lr` and `no_momentum` have the same long-run size, "
        f"lr / (1 - momentum) = {config['lr'] / (1 - config['momentum']):g}. "
        f"Seed by seed their accuracies differ by {tables.signed(difference)} points on average{same}. "
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


def draw_losses(path, histories, batch_size, scale):
    """Draw the losses of all batches of every configuration's first seed, on common axes."""
    seed = min(seed for _, seed in histories)
    figure, axes = plots.plt.subplots(2, 4, figsize=(15, 7), sharex=True, sharey=True, layout="constrained")
    for panel, name in zip(axes.flat, CONFIGS):
        history = histories[name, seed]
        means = history["epoch_losses"]
        batches_per_epoch = len(history["batch_losses"]) / len(means)
        run_plots.batch_losses(panel, history["batch_indices"] / batches_per_epoch, history["batch_losses"])
        ends = np.arange(1, len(means) + 1)
        panel.hlines(means, ends - 1, ends, color="C1", linewidth=2, label="Mean of the epoch", zorder=4)
        if name in LOSS:
            run_plots.mark_report(panel, ends[-1] - 0.5, LOSS[name])
        panel.set_title(name)
    for panel in axes[-1]:
        panel.set_xlabel("Epoch")
    for panel in axes[:, 0]:
        panel.set_ylabel("Training loss")
    plots.legend(figure)
    plots.about(
        figure, "Training losses of eight configurations", "LeNet", batch_size, f"seed {seed}", f"{scale} scale"
    )
    plots.save(figure, path)


def draw_comparison(path, histories, accuracy, loss, batch_size, scale):
    """Draw the report's four panels: losses, accuracies, final accuracies, and final loss against final accuracy."""
    figure, ((losses, accuracies), (final, related)) = plots.plt.subplots(2, 2, figsize=(14, 11), layout="constrained")
    run_plots.curves(losses, histories, "epoch_losses", "Mean training loss", STYLES)
    losses.set_title("Training loss of each epoch")
    run_plots.curves(accuracies, histories, "test_accuracy", "Test accuracy, %", STYLES)
    accuracies.set_title("Test accuracy after each epoch")
    for panel, report, field in ((losses, LOSS, "epoch_losses"), (accuracies, ACCURACY, "test_accuracy")):
        for name, value in report.items():
            epoch = run_plots.by_epoch(histories, name, field).shape[1]
            run_plots.mark_report(panel, epoch, value, STYLES[name]["color"], label=None)
    run_plots.final_dots(final, accuracy, ACCURACY, "Test accuracy, %", STYLES)
    final.set_title("Final test accuracy")
    for name, style in STYLES.items():
        related.scatter(
            loss[name],
            accuracy[name],
            color=style["color"],
            marker=style["marker"],
            s=SMALL if name in DASHED else LARGE,
        )
        if name in ACCURACY:
            run_plots.mark_report(related, LOSS[name], ACCURACY[name], label=None)
    related.set_title("Final loss and final accuracy, one point per run")
    related.set(xlabel="Final training loss", ylabel="Test accuracy, %")
    plots.legend(figure)
    facts = run_plots.facts(histories, scale, "LeNet", batch_size, "mean ± standard deviation")
    note = "low_lr and no_momentum coincide: they have the same effective learning rate"
    plots.about(figure, "Eight configurations compared", *facts, note)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
