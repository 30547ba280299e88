"""Task 3. How do learning rate, number of epochs, momentum and regularization affect LeNet?

Assignment, sections 3.3 and 4.2.

    python task3_hparams/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Trains the report's seven configurations, and the eighth that it recommends, on all 50,000 training images, and compares
them on the test set as the report does; then again on the 9:1 split, where validation accuracy chooses the best.
Writes to task3_hparams/outputs/, pages and figures in Chinese too (x.zh.md, x.zh.png):
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

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, data, metrics, plots, repeated, reported, run_plots, sweep, tables
from common.support.translations import label, text

BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {  # the first seven by their numbers in the report, 1 to 7
    "baseline": {},
    "high_lr": {"lr": 0.01},
    "low_lr": {"lr": 0.0001},
    "more_epochs": {"epochs": 10},
    "no_regularization": {"weight_decay": 0.0, "dropout": 0.0},
    "strong_regularization": {"weight_decay": 0.1, "dropout": 0.7},
    "no_momentum": {"momentum": 0.0},
    "no_regularization_more_epochs": {"weight_decay": 0.0, "dropout": 0.0, "epochs": 10},  # what it recommends next
}
DASHED = ("more_epochs", "no_momentum", "no_regularization_more_epochs")
LARGE, SMALL = 40, 14  # marks, points squared; a small one on a large one leaves both visible
TABLE2 = ("strong_regularization", "baseline", "more_epochs", "no_regularization")
SPLIT_SEEDS = 3  # configurations differ by far more than seeds do
SAME = 1  # points of accuracy within which two configurations, or one and a guess, count as equal
NEXT = "no_regularization_more_epochs"  # the report's recommended next step
TARGETS = (35, 50)  # test accuracies, %
CHANCE, CHANCE_LOSS = 100 / len(data.CLASSES), math.log(len(data.CLASSES))
NUMBERS = {name: number for number, name in enumerate(CONFIGS, start=1)}
# of the figures; a configuration that coincides with another one is drawn dashed over it, which is solid
STYLES = {
    name: plots.style(position) | {"linestyle": "--" if name in DASHED else "-"}
    for position, name in enumerate(CONFIGS)
}
LOSSES_TITLE, COMPARISON_TITLE = "Training losses of eight configurations", "Eight configurations compared"
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
        *captioned_figures(histories, accuracy),
        text("## Table 1: the configurations"),
        notes(accuracy, configs["baseline"]["batch_size"]),
        table1(configs, accuracy, loss),
        explanation(histories, accuracy),
        text("## Section 3.3.2: the four metrics"),
        text(
            "Roughness is the mean absolute difference of the training loss's means over consecutive {window} batches: "
            "the lower, the smoother. Epochs are counted until test accuracy first reaches the target (median over "
            "seeds, in parentheses their range). Seconds are those of one seed, trained outside a stack.",
            window=metrics.WINDOW,
        ),
        table_metrics(accuracy, measured),
        timing(measured, run_json),
        text("## Table 2: regularization and accuracy"),
        table2(configs, accuracy, loss),
        text("## What validation chooses"),
        text(
            "The report compares its configurations on the test set. Here each is trained again on 45,000 images, and "
            "accuracy on the other 5,000 chooses."
        ),
    ]
    if (source / "split_history.npz").exists():
        on_split = tables.load_histories(source / "split_history.npz")
        tables.write_csv(out / "split_results.csv", tables.result_rows(on_split, scale))
        page += selection(on_split)
    else:
        page.append(text("This part is not finished; `python task3_hparams/main.py --scale full` resumes it."))
    page += repeated.section(source, repeated.BASELINE, repeated.TEN_EPOCHS)
    title = text("Task 3: seven configurations, and the next step")
    tables.write_markdown(out / "hyperparameters.md", title, page, scale)

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
    inside = sum(tables.is_predicted(report, accuracy[name]) == "yes" for name, report in ACCURACY.items())
    baseline = accuracy["baseline"].mean()
    changes = {name: accuracy[name].mean() - baseline for name in ACCURACY if name != "baseline"}
    best, worst = max(changes, key=changes.get), min(changes, key=changes.get)
    return tables.paragraph(
        text(
            "**{inside} of the report's {all} test accuracies lie in the 95% prediction interval of our seeds.**",
            inside=inside,
            all=len(ACCURACY),
        )
        if len(accuracy["baseline"]) > 1
        else text("**One seed has no prediction interval with which the report's numbers could be compared.**"),
        text(
            "The baseline reaches {baseline:.2f}%. Of the report's changes to it, the best one ({best}) changes test "
            "accuracy by {gain} points, and the worst one ({worst}) by {loss}.",
            baseline=baseline,
            best=label(best),
            gain=tables.signed(changes[best]),
            worst=label(worst),
            loss=tables.signed(changes[worst]),
        ),
        text(
            "The report's recommended next step ({name}) reaches {mean:.2f}%.",
            name=label(NEXT),
            mean=accuracy[NEXT].mean(),
        ),
    )


def captioned_figures(histories, accuracy):
    """Return both figures of the page with their captions."""
    seed = min(seed for _, seed in histories)
    means = {name: values.mean() for name, values in accuracy.items()}
    losses = {name: float(histories[name, seed]["epoch_losses"][-1]) for name in CONFIGS}
    losses = {name: loss for name, loss in losses.items() if np.isfinite(loss)}  # a diverged run has none
    best, worst = max(means, key=means.get), min(means, key=means.get)
    low, high = min(losses, key=losses.get), max(losses, key=losses.get)
    return (
        tables.figure(
            "comparison.png",
            COMPARISON_TITLE,
            text(
                "Final test accuracy ranges from {lowest:.1f}% ({worst}) to {highest:.1f}% ({best}); hollow marks are "
                "the report's numbers ({spread}).",
                lowest=means[worst],
                worst=label(worst),
                highest=means[best],
                best=label(best),
                spread=run_plots.spread(len(accuracy["baseline"])),
            ),
        ),
        tables.figure(
            "losses.png",
            LOSSES_TITLE,
            text(
                "The mean training loss of the last epoch ranges from {lowest:.2f} ({low}) to {highest:.2f} ({high}); "
                "the band holds 90% of the batch losses (seed {seed}).",
                lowest=losses[low],
                low=label(low),
                highest=losses[high],
                high=label(high),
                seed=seed,
            ),
        ),
    )


def notes(accuracy, batch_size):
    """Return what table 1 shows."""
    return tables.paragraph(
        tables.spread_note(len(accuracy["baseline"])),
        text(
            "The numbers of the configurations are the report's; the last configuration is the one that it recommends "
            "to try next. The batch size is {batch_size}, which the report does not state.",
            batch_size=batch_size,
        ),
        tables.INTERVAL,
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
                "configuration": tables.named(name),
                "learning rate": config["lr"],
                text("epochs"): config["epochs"],
                "momentum": f"{config['momentum']:g}",
                "L2": f"{config['weight_decay']:g}",
                "dropout rate": f"{config['dropout']:g}",
                "report: test accuracy, %": f"{ACCURACY[name]:.2f}" if known else tables.DASH,
                "ours: test accuracy, %": tables.mean_std(accuracy[name]),
                "difference": tables.signed(difference) if known else tables.DASH,
                tables.PREDICTED: tables.predicted_cell(ACCURACY.get(name), accuracy[name]),
                "report: training loss": LOSS.get(name, tables.DASH),
                "ours: training loss": tables.mean_std(loss[name], 4),
            }
        )
    return rows


def number(name):
    """Return the report's number of an experiment; the last one is ours."""
    return str(NUMBERS[name]) if name in ACCURACY else text("{number} (ours)", number=NUMBERS[name])


def table_metrics(accuracy, measured):
    """Return one row per configuration with the four metrics of section 3.3.2."""
    columns = {column: tables.map_histories(values, float) for column, values in measured.items()}
    rows = []
    for name in CONFIGS:
        roughness, seconds = columns["roughness"].get(name), columns["seconds_alone"].get(name)
        rows.append(
            {
                "no.": number(name),
                "configuration": label(name),
                "final test accuracy, %": tables.mean_std(accuracy[name]),
                "loss roughness, nats": tables.DASH if roughness is None else tables.mean_std(roughness, 4),
                **{
                    text("epochs to {target}%", target=target): epochs_text(columns[f"epochs_to_{target}"][name])
                    for target in TARGETS
                },
                "seconds, trained alone": tables.DASH if seconds is None else f"{seconds.mean():.0f}",
            }
        )
    return rows


def epochs_text(values):
    """Format numbers of epochs (seeds,), where infinity is never: 4 (3 to 5)."""
    low, median, high = (
        text("never") if np.isinf(x) else f"{x:g}" for x in (min(values), np.median(values), max(values))
    )
    return low if low == high else text("{median} ({low} to {high})", median=median, low=low, high=high)


def timing(measured, run_json):
    """Return how the seconds were measured, and how many times longer twice the epochs take."""
    seconds = measured["seconds_alone"]
    if not seconds:
        return text("No run has been timed outside a stack yet: `python task3_hparams/main.py --scale full` does it.")
    ratio = np.mean(
        [
            seconds[longer, seed] / seconds[shorter, seed]
            for longer, shorter in (("more_epochs", "baseline"), (NEXT, "no_regularization"))
            for seed in {seed for _, seed in seconds}
        ]
    )
    return text(
        "Twice the epochs take {ratio:.2f} times as long. The seconds are those of {device}, without evaluation and "
        "compilation; on a CPU each run has one core, and one run per core is trained at a time.",
        ratio=ratio,
        device=run_json["device"],
    )


def table2(configs, accuracy, loss):
    """Return the report's five columns with our values; the conclusions are computed from them."""
    return [
        {
            "no.": number(name),
            "configuration": label(name),
            "L2": f"{configs[name]['weight_decay']:g}",
            "dropout rate": f"{configs[name]['dropout']:g}",
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
    if accuracies[name] - CHANCE < SAME:
        return text(
            "learns nothing: the loss of a guess is ln {classes} = {loss:.4f}",
            classes=len(data.CLASSES),
            loss=CHANCE_LOSS,
        )
    if name == best:
        lowest = losses[name] == min(losses.values())
        return text("highest accuracy and lowest training loss" if lowest else "highest accuracy")
    return text(
        "underfits: accuracy {change} points, training loss {rise} (compared with {best})"
        if losses[name] > losses[best]
        else "overfits: accuracy {change} points, training loss {rise} (compared with {best})",
        change=tables.signed(accuracies[name] - accuracies[best]),
        rise=tables.signed(losses[name] - losses[best], 3),
        best=label(best),
    )


def explanation(histories, accuracy):
    """Return what the numbers say about configurations that differ from the report, and two that are equivalent."""
    outside = [name for name, report in ACCURACY.items() if tables.is_predicted(report, accuracy[name]) == "no"]
    low_lr, no_momentum = accuracy["low_lr"], accuracy["no_momentum"]
    config = {**BASE, **CONFIGS["low_lr"]}
    difference = (low_lr - no_momentum).mean()
    return tables.paragraph(
        *(missed(name, histories, accuracy) for name in outside),
        text(
            "Steps with a low learning rate and steps without momentum have the same long-run size, "
            "learning rate / (1 - momentum) = {size:g}. Seed by seed, their accuracies differ by {difference} points "
            "on average.",
            size=config["lr"] / (1 - config["momentum"]),
            difference=tables.signed(difference),
        ),
        text("In effect they are one training.") if abs(difference) < SAME else "",
        text(
            "The report's two numbers differ by {report} points. The difference of two runs with different seeds has a "
            "standard deviation of {spread:.2f} points.",
            report=tables.signed(ACCURACY["low_lr"] - ACCURACY["no_momentum"]),
            spread=math.hypot(tables.std(low_lr), tables.std(no_momentum)),
        )
        if len(low_lr) > 1
        else "",
    )


def missed(name, histories, accuracy):
    """Return how far a configuration is from the report, and whether any of its epochs comes near."""
    runs = [history["test_accuracy"] for (config, _), history in histories.items() if config == name]
    lowest, highest = min(map(min, runs)), max(map(max, runs))
    return text(
        "{name}: the report's {report:.2f}% lies outside our prediction interval, {difference} points from our mean. "
        "Over all epochs and seeds our accuracy ranges from {lowest:.2f}% to {highest:.2f}%, which includes it."
        if lowest <= ACCURACY[name] <= highest
        else "{name}: the report's {report:.2f}% lies outside our prediction interval, {difference} points from our "
        "mean. Over all epochs and seeds our accuracy ranges from {lowest:.2f}% to {highest:.2f}%, which excludes it.",
        name=label(name),
        report=ACCURACY[name],
        difference=tables.signed(ACCURACY[name] - accuracy[name].mean()),
        lowest=lowest,
        highest=highest,
    )


def selection(on_split):
    """Return a note, a table of validation and test accuracy, and what each of them chooses."""
    validation = tables.final_values(on_split, "val_accuracy")
    test = tables.final_values(on_split, "test_accuracy")
    by_validation = sorted(validation, key=lambda name: -validation[name].mean())
    by_test = sorted(test, key=lambda name: -test[name].mean())
    best = by_validation[0]
    rows = [
        {
            "configuration": label(name),
            "validation accuracy, %": tables.mean_std(validation[name]),
            "test accuracy, %": tables.mean_std(test[name]),
        }
        for name in by_validation
    ]
    verdict = tables.paragraph(
        text(
            "Validation chooses: {best} ({validation:.2f}%; test accuracy {test:.2f}%).",
            best=label(best),
            validation=validation[best].mean(),
            test=test[best].mean(),
        ),
        text("The test set ranks all configurations in the same order.")
        if by_test == by_validation
        else text("The test set ranks the same one first, but the others in another order.")
        if by_test[0] == best
        else text("The test set would have chosen another one: {name}.", name=label(by_test[0])),
        text(
            "Validation and test accuracy of a configuration differ by {largest:.2f} points at most.",
            largest=max(abs(validation[name].mean() - test[name].mean()) for name in by_validation),
        ),
    )
    return tables.spread_note(len(validation[best])), rows, verdict


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
    plots.about(figure, LOSSES_TITLE, "LeNet", batch_size, f"seed {seed}", f"{scale} scale")
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
    plots.about(figure, COMPARISON_TITLE, *facts, note)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
