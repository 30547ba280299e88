"""Task 4, second question. Which batch size did the report use? (assignment, sections 4.2 and 4.3)

    python task4_architectures/batch_size.py [--scale quick|full] [--device cpu|cuda|mps] [--plan] [--redraw]

The report does not state it. Its LeNet reaches 54.93% after ten epochs in task 3 and 36.30% in task 4, and nothing else
that it states differs. Writes to task4_architectures/outputs/batch_size/, in Chinese too (x.zh.md,
x.zh.png):
    loss_history.npz          LeNet, ten epochs at each batch size but that of main.py
    resnet_history.npz        LightweightResNet, ten epochs at 100 and one at 128
    batch_size.png            test accuracy of both networks over the epochs
    batch_size.md             the report's numbers of both networks at each batch size, and which size is nearest
    results.csv, summary.csv, run.json
Both networks at batch size 64 are read from the outputs of main.py, one folder up.
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, plots, repeated, reported, run_plots, sweep, tables
from common.support.errors import UsageError
from common.support.translations import label, text
from task4_architectures import main as task4

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
NETWORKS = {"lenet": "LeNet", "resnet": "LightweightResNet"}
MAIN_CONFIGS = dict(zip(NETWORKS, task4.CONFIGS))
FIGURE = "Test accuracy at different batch sizes"
SHADES = (0.35, 0.95)  # of the color map: light for the smallest batch size, dark for the largest
LABEL_GAP = 2.2  # points of accuracy between the labels of two lines
# the report's numbers, {column: (network, field, epoch, -1 for the last; number)}
ACCURACIES = {
    f"{NETWORKS[network]}, {'last epoch' if epoch == -1 else f'epoch {epoch}'}": (
        network,
        "test_accuracy",
        epoch,
        value,
    )
    for network, config in MAIN_CONFIGS.items()
    for epoch, value in task4.REPORTED[config].items()
}
LOSSES = {
    f"{NETWORKS[network]}, training loss": (network, "epoch_losses", -1, reported.LOSS[TASK.name][config])
    for network, config in MAIN_CONFIGS.items()
}
REPORTED = ACCURACIES | LOSSES
LAST = f"{NETWORKS['lenet']}, last epoch"


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
    own = tables.load_histories(source / "loss_history.npz", CONFIGS)
    own = {run: history for run, history in own.items() if run[0] in CONFIGS}
    own |= tables.load_histories(source / "resnet_history.npz", RESNETS)
    tables.write_results(out, own, scale)

    histories = own | main_histories(source.parent)
    measured = {size: numbers_at(histories, size) for size in SIZES}
    distances = {
        size: {"points": distance(values, ACCURACIES), "nats": distance(values, LOSSES)}
        for size, values in measured.items()
        if all(len(numbers) for numbers in values.values())
    }
    page = [
        finding(measured, distances),
        tables.figure("batch_size.png", FIGURE, caption(histories, measured)),
        text("## The report's numbers at each batch size"),
        notes(histories),
        size_table(measured, distances),
        text("## Which batch size is nearest"),
        nearest(measured, distances),
        *repeated.section(source.parent, repeated.TEN_EPOCHS),
    ]
    title = text("Task 4: the batch size that the report does not state")
    tables.write_markdown(out / "batch_size.md", title, page, scale)
    draw_sizes(out / "batch_size.png", histories, scale)


def main_histories(folder):
    """Return main.py's histories in `folder`, named as here; {} where main.py has not run."""
    path = folder / "loss_history.npz"
    if not path.exists():
        return {}
    configs = cli.read_json(folder / "run.json")["configs"]
    loaded = tables.load_histories(path, MAIN_CONFIGS.values())
    return {
        (f"{network}_batch_{configs[config]['batch_size']}", seed): history
        for network, config in MAIN_CONFIGS.items()
        for (name, seed), history in loaded.items()
        if name == config
    }


def numbers_at(histories, size):
    """Return our values of the report's numbers at one batch size, {column: (seeds,)}; empty where not trained."""
    return {
        column: after_epoch(histories, f"{network}_batch_{size}", field, epoch)
        for column, (network, field, epoch, _) in REPORTED.items()
    }


def after_epoch(histories, name, field, epoch):
    """Return a field after an epoch (seeds,), -1 for the last one of the longest training; empty where not trained."""
    longest = max(len(history[field]) for history in histories.values())
    index = (longest if epoch == -1 else min(epoch, longest)) - 1
    runs = [history[field] for (config, _), history in histories.items() if config == name]
    return np.array([float(values[index]) for values in runs if index < len(values)])


def distance(values, columns):
    """Return each seed's mean absolute difference from the report's numbers in `columns`, (seeds,)."""
    seeds = min(len(values[column]) for column in columns)
    differences = [np.abs(values[column][:seeds] - number) for column, (*_, number) in columns.items()]
    return np.mean(differences, axis=0)


def count_inside(values):
    """Return how many of the report's numbers lie in the prediction intervals of our values."""
    return sum(tables.is_predicted(number, values[column]) == "yes" for column, (*_, number) in REPORTED.items())


def finding(measured, distances):
    """Return what was found, computed, so that it stays true."""
    small, large = (measured[size][LAST].mean() for size in (4, 100))
    several = all(len(values) > 1 for size in distances for values in measured[size].values())
    counts = [text("{count} at {size}", count=count_inside(measured[size]), size=size) for size in distances]
    return tables.paragraph(
        text(
            "**LeNet's accuracy depends on the batch size: {small:.2f}% at 4 (the report's task 3: {task3:.2f}%) and "
            "{large:.2f}% at 100 (the report's task 4: {task4:.2f}%).**",
            small=small,
            task3=TASK3,
            large=large,
            task4=ACCURACIES[LAST][-1],
        ),
        text("Nothing else that the report states differs between these two."),
        text(
            "Of the report's {all} numbers of task 4, our 95% prediction intervals contain {counts}.",
            all=len(REPORTED),
            counts=tables.list_texts(counts),
        )
        if distances and several
        else "",
    )


def caption(histories, measured):
    """Return what the figure shows: LeNet's accuracy at the smallest and at the largest batch size."""
    smallest, largest = SIZES[0], SIZES[-1]
    return text(
        "After the last epoch LeNet reaches {small:.2f}% at batch size {smallest} and {large:.2f}% at {largest}; the "
        "report's {task3:.2f}% and {task4:.2f}% are among the hollow marks ({spread}).",
        small=measured[smallest][LAST].mean(),
        smallest=smallest,
        large=measured[largest][LAST].mean(),
        largest=largest,
        task3=TASK3,
        task4=ACCURACIES[LAST][-1],
        spread=run_plots.spread(max(count_seeds(histories))),
    )


def count_seeds(histories):
    """Return the numbers of seeds that configurations have, sorted."""
    return sorted({sum(config == name for config, _ in histories) for name, _ in histories})


def notes(histories):
    """Return the number of seeds behind each mean, and what the distances are."""
    return tables.paragraph(
        tables.spread_note(max(count_seeds(histories))),
        text("Some configurations have only {fewest}.", fewest=label(plots.count(count_seeds(histories)[0], "seed")))
        if len(count_seeds(histories)) > 1
        else "",
        text(
            "Accuracies are in per cent, losses in nats. In parentheses: whether the report's number lies in our "
            "95% interval. A distance is the mean absolute difference from the report's {accuracies} accuracies, or "
            "from its {losses} losses, seed by seed. Batch size {main_size} is that of main.py, one folder up.",
            accuracies=len(ACCURACIES),
            losses=len(LOSSES),
            main_size=MAIN_SIZE,
        ),
        tables.INTERVAL,
    )


def size_table(measured, distances):
    """Return the report's row and one per batch size."""
    digits = {column: 3 if column in LOSSES else 2 for column in REPORTED}
    report = {column: f"{number:.{digits[column]}f}" for column, (*_, number) in REPORTED.items()}
    empty = {"distance, points": tables.DASH, "distance, nats": tables.DASH}
    rows = [{"batch size": text("the report"), **report, **empty}]
    for size, values in measured.items():
        cells = {}
        for column, (*_, number) in REPORTED.items():
            mean = tables.mean_std(values[column], digits[column]) if len(values[column]) else tables.DASH
            inside = tables.predicted_cell(number, values[column])
            judged = text("{mean} ({answer})", mean=mean, answer=inside)
            cells[column] = mean if inside == tables.DASH else judged
        near = dict(empty)
        if size in distances:
            near["distance, points"] = tables.mean_std(distances[size]["points"])
            near["distance, nats"] = tables.mean_std(distances[size]["nats"], 3)
        rows.append({"batch size": size, **cells, **near})
    return rows


def nearest(measured, distances):
    """Return which batch size is nearest to the report, and whether the seeds can tell it from the others; computed."""
    if not distances:
        return text("No batch size has been tried with both networks for all epochs: run main.py and this script.")
    sentences = [
        text(
            "Only sizes that both networks were trained with for all epochs are compared, seed by seed. One is farther "
            "than the nearest where the 95% interval of the mean difference excludes 0."
        )
    ]
    for unit, digits in (("points", 2), ("nats", 3)):
        means = {size: values[unit].mean() for size, values in distances.items()}
        best, *others = sorted(means, key=means.get)
        sentences.append(
            text(
                "By the report's accuracies, {size} is nearest ({distance} points)."
                if unit == "points"
                else "By the report's training losses, {size} is nearest ({distance} nats).",
                size=best,
                distance=tables.fixed(means[best], digits),
            )
        )
        for other in others:
            pair = distances[other][unit], distances[best][unit]
            seeds = min(map(len, pair))
            differences = pair[0][:seeds] - pair[1][:seeds]
            sentences.append(
                text(
                    "{size} ({distance}) is farther."
                    if tables.excludes_zero(differences) and differences.mean() > 0
                    else "{size} ({distance}) cannot be told from it.",
                    size=other,
                    distance=tables.fixed(means[other], digits),
                )
            )
    return tables.paragraph(*sentences)


def draw_sizes(path, histories, scale):
    """Draw the test accuracy of both networks over the epochs at each batch size, and the report's numbers."""
    figure, axes = plots.plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained", sharey=True)
    shades = plots.plt.colormaps["viridis_r"](np.linspace(*SHADES, len(SIZES)))
    last = max(len(history["test_accuracy"]) for history in histories.values())
    for panel, (network, title) in zip(axes, NETWORKS.items()):
        ends = []
        for size, color in zip(SIZES, shades):
            name = f"{network}_batch_{size}"
            runs = {run: history for run, history in histories.items() if run[0] == name}
            if runs:
                style = {name: {"color": color, "marker": "o", "linestyle": "-", "linewidth": 1.8}}
                run_plots.curves(panel, runs, "test_accuracy", "Test accuracy, %", style)
                means = run_plots.by_epoch(runs, name, "test_accuracy").mean(0)
                ends.append((means[-1], len(means), str(size), color))
        label_ends(panel, ends)
        points = [(epoch, value) for net, _, epoch, value in ACCURACIES.values() if net == network]
        points = [(last if epoch == -1 else epoch, value) for epoch, value in points if epoch <= last]
        run_plots.mark_report(panel, *zip(*points), label="The report's task 4")
        if network == "lenet":
            panel.scatter(
                last, TASK3, marker="s", **run_plots.REPORT_MARK, edgecolors="black", label="The report's task 3"
            )
        panel.set_title(title)
        panel.set_xlim(0.5, last + 1)
    handles, labels = axes[0].get_legend_handles_labels()
    marks = {label: handle for handle, label in zip(handles, labels) if label.startswith("The report")}
    figure.legend(marks.values(), marks, loc="outside lower center", ncols=len(marks))
    facts = run_plots.facts(histories, scale, "batch size at the end of each line", "mean ± standard deviation")
    plots.about(figure, FIGURE, *facts)
    plots.save(figure, path)


def label_ends(panel, ends):
    """Write names right of the ends of lines, from (height, epoch, name, color), none on another."""
    lowest = {}
    for height, epoch, name, color in sorted(ends):
        height = max(height, lowest.get(epoch, height))
        lowest[epoch] = height + LABEL_GAP
        panel.annotate(name, (epoch, height), xytext=(9, 0), textcoords="offset points", va="center", color=color)


if __name__ == "__main__":
    cli.entry_point(main)
