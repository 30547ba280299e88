"""Task 4, third question. What do batch norm and shortcuts contribute? (assignment, section 4.3.2)

    python task4_architectures/ablations.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

The report attributes LightweightResNet's fast start to batch norm and its fast rise to shortcuts, and tests neither.
Here each is taken out of the network, which is trained for as many epochs as these attributions are about. The learning
rate is constant, so the whole network's first epochs, by main.py, are those of a training as short.

Writes to task4_architectures/outputs/ablations/, pages and figures in Chinese too (x.zh.md, x.zh.png):
    loss_history.npz          LightweightResNet without batch norm, and without shortcuts
    ablations.png             test accuracy over the epochs, and its differences from the whole network's
    ablations.md              the start, the slope and the end of each, and whether the report's attributions hold
    results.csv, summary.csv, run.json
The whole network's runs are read from the outputs of main.py, one folder up.
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, plots, run_plots, sweep, tables
from common.support.translations import label, text
from task4_architectures import main as task4
from task4_architectures.main import BASE, SEEDS

WHOLE = "lightweight_resnet"
EPOCHS = task4.THIRD
CONFIGS = {
    "without_batch_norm": {"model": "lightweight_resnet_no_batch_norm", "epochs": EPOCHS},
    "without_shortcuts": {"model": "lightweight_resnet_no_shortcuts", "epochs": EPOCHS},
}
START, SLOPE, END = "Accuracy after epoch 1, %", "Slope, points per epoch", "Accuracy after the last epoch, %"
# the quantity to which, by the report, the part contributes that a configuration lacks
ATTRIBUTIONS = {"without_batch_norm": START, "without_shortcuts": SLOPE}
FIGURE = "The residual network without batch norm, and without shortcuts"
STYLES = {name: plots.style(position) for position, name in enumerate((WHOLE, *CONFIGS))}  # of the figure


def main():
    cli.run_task(__doc__, TASK, train, write_results, seeds=SEEDS, name="ablations")


def train(options):
    """Train both reduced networks with every seed."""
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz", evaluate_train=True, stacked=False)


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`, and those of main.py above it."""
    run_json = cli.read_json(source / "run.json")
    scale = run_json["scale"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history.npz", CONFIGS)
    tables.write_results(out, histories, scale)

    histories = whole_network(source.parent, run_json["configs"]) | histories
    measured = {name: measure(histories, name) for name in dict.fromkeys(name for name, _ in histories)}
    differences = compare(measured)
    batch_size = run_json["configs"]["without_shortcuts"]["batch_size"]
    page = [
        finding(differences),
        tables.figure("ablations.png", FIGURE, caption(histories, differences)),
        text("## Start, slope and end"),
        notes(len({seed for _, seed in histories}), run_json["configs"]["without_shortcuts"]),
        ablation_table(measured, differences),
        attributions(differences),
    ]
    tables.write_markdown(out / "ablations.md", text("Task 4: batch norm and shortcuts taken out"), page, scale)
    draw_ablations(out / "ablations.png", histories, differences, batch_size, scale)


def whole_network(folder, configs):
    """Return the first epochs of main.py's runs in `folder`, as many as the reduced networks have.

    {} where main.py has not run with these settings, or for fewer epochs.
    """
    path = folder / "loss_history.npz"
    if not path.exists():
        return {}
    whole = cli.read_json(folder / "run.json")["configs"][WHOLE]
    epochs = max(config["epochs"] for config in configs.values())
    if any({**config, "model": WHOLE, "epochs": whole["epochs"]} != whole for config in configs.values()):
        return {}
    if whole["epochs"] < epochs:
        return {}
    runs = tables.load_histories(path, [WHOLE]).items()
    return {run: first_epochs(history, epochs) for run, history in runs if run[0] == WHOLE}


def first_epochs(history, epochs):
    """Return a history cut after `epochs`."""
    length = len(history["epoch_losses"])
    return {name: values[:epochs] if values.shape == (length,) else values for name, values in history.items()}


def measure(histories, name):
    """Return start, slope and end of a configuration's test accuracy, {quantity: {seed: value}}."""
    measured = {START: {}, SLOPE: {}, END: {}}
    for (config, seed), history in histories.items():
        if config == name:
            accuracy = history["test_accuracy"].astype(float)
            measured[START][seed] = accuracy[0]
            measured[SLOPE][seed] = (accuracy[-1] - accuracy[0]) / max(1, len(accuracy) - 1)
            measured[END][seed] = accuracy[-1]
    return measured


def compare(measured):
    """Return each reduced network's differences from the whole one, {configuration: {quantity: (seeds,)}}."""
    return {
        name: {
            quantity: np.array([values[seed] - measured[WHOLE][quantity][seed] for seed in values])
            for quantity, values in measured[name].items()
        }
        for name in CONFIGS
        if WHOLE in measured and measured[name][START].keys() <= measured[WHOLE][START].keys()
    }


def interval(differences):
    """Format the mean of differences and half of its 95% interval; only the mean where that rounds to 0."""
    mean, half = tables.signed(differences.mean()), tables.fixed(tables.half_width(differences) or 0)
    return f"{mean} ± {half}" if half.strip("0.") else mean


def holds(differences, name):
    """Return whether the report's attribution to the part that `name` lacks holds; None where it is undecided."""
    values = differences[name][ATTRIBUTIONS[name]]
    return bool(values.mean() < 0) if tables.excludes_zero(values) else None


def finding(differences):
    """Return what was found, computed, so that it stays true."""
    if not differences:
        return text(
            "**The whole network has not been trained with these settings: run `python task4_architectures/main.py`.**"
        )
    start, rise = (holds(differences, name) for name in CONFIGS)
    return tables.paragraph(
        text(
            "**The fast start is due to batch norm, as the report says.**"
            if start
            else "**Whether the fast start is due to batch norm, as the report says, cannot be decided with these "
            "seeds.**"
            if start is None
            else "**Batch norm does not make the fast start; the report says that it does.**"
        ),
        text(
            "Shortcuts make the fast rise, as the report says."
            if rise
            else "Whether shortcuts make the fast rise, as the report says, cannot be decided with these seeds."
            if rise is None
            else "Shortcuts do not make the fast rise; the report says that they do."
        ),
    )


def caption(histories, differences):
    """Return what the figure shows: how much accuracy each part is worth at the end."""
    seeds = run_plots.spread(len({seed for _, seed in histories}))
    if not differences:
        return text("Test accuracy of both reduced networks ({spread}).", spread=seeds)
    norm, shortcuts = (interval(differences[name][END]) for name in CONFIGS)
    return text(
        "Compared with the whole network after the last epoch, test accuracy changes by {norm} points without batch "
        "norm and by {shortcuts} points without shortcuts (right: 95% intervals; left: {spread}).",
        norm=norm,
        shortcuts=shortcuts,
        spread=seeds,
    )


def notes(seeds, config):
    """Return how the values of the table were measured."""
    return tables.paragraph(
        tables.spread_note(seeds),
        text(
            "Every network was trained at batch size {batch_size}; number of epochs: {epochs}. The slope is the rise "
            "of test accuracy per epoch after the first one. Differences from the whole network are taken seed by seed "
            "(same batches), and their ± is half of the 95% interval of the mean.",
            batch_size=config["batch_size"],
            epochs=config["epochs"],
        ),
    )


def ablation_table(measured, differences):
    """Return one row per network: start, slope and end, and their differences from the whole network's."""
    rows = []
    for name in measured:
        row = {"network": text("the whole network") if name == WHOLE else label(name)}
        for quantity, values in measured[name].items():
            row[quantity] = tables.mean_std(list(values.values()))
            row[f"{quantity.split(',')[0]}, difference"] = (
                interval(differences[name][quantity]) if name in differences else tables.DASH
            )
        rows.append(row)
    return rows


def attributions(differences):
    """Return what each of the report's attributions rests on, and what the other part does to the same quantity."""
    if not differences:
        return ""
    norm, shortcuts = (
        {quantity: interval(values) for quantity, values in differences[name].items()} for name in CONFIGS
    )
    return tables.paragraph(
        text(
            "Start: accuracy after epoch 1 changes by {norm} points without batch norm and by {shortcuts} without "
            "shortcuts.",
            norm=norm[START],
            shortcuts=shortcuts[START],
        ),
        text(
            "Rise: the slope changes by {shortcuts} points per epoch without shortcuts and by {norm} without batch "
            "norm.",
            norm=norm[SLOPE],
            shortcuts=shortcuts[SLOPE],
        ),
    )


def draw_ablations(path, histories, differences, batch_size, scale):
    """Draw test accuracy over the epochs, and the differences from the whole network with their 95% intervals."""
    figure, (curves, changes) = plots.plt.subplots(1, 2, figsize=(13, 5), layout="constrained", width_ratios=(3, 2))
    run_plots.curves(curves, histories, "test_accuracy", "Test accuracy, %", STYLES)
    reported = {epoch: value for epoch, value in task4.REPORTED[WHOLE].items() if 0 < epoch <= EPOCHS}
    task4.mark_reported(curves, histories, {WHOLE: reported})
    curves.set_title("Test accuracy after each epoch")
    quantities = (START, SLOPE, END)
    for position, name in enumerate(differences):
        rows = np.arange(len(quantities)) + 0.2 * (2 * position - 1)
        means = [differences[name][quantity].mean() for quantity in quantities]
        halves = [tables.half_width(differences[name][quantity]) or 0 for quantity in quantities]
        changes.errorbar(means, rows, xerr=halves, fmt=STYLES[name]["marker"], color=STYLES[name]["color"], capsize=3)
    changes.axvline(0, color="black", linewidth=1)
    changes.set_yticks(range(len(quantities)), quantities)
    changes.invert_yaxis()
    changes.set(xlabel="Difference from the whole network, points (95% interval)", title="Change when it is taken out")
    plots.legend(figure)
    facts = run_plots.facts(histories, scale, f"batch size {batch_size}", "mean ± standard deviation")
    plots.about(figure, FIGURE, *facts)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
