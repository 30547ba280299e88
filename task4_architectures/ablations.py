"""Task 4, third question. What do batch norm and shortcuts contribute? (assignment, section 4.3.2)

    python task4_architectures/ablations.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

The report attributes LightweightResNet's fast start to batch norm and its fast rise to shortcuts, and tests neither.
Here each is taken out of the network, which is trained for as many epochs as these attributions are about. The learning
rate is constant, so the whole network's first epochs, by main.py, are those of a training as short.

Writes to task4_architectures/outputs/ablations/:
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

import numpy as np

from common import cli, plots, run_plots, sweep, tables
from task4_architectures import main as task4
from task4_architectures.main import BASE, SEEDS

WHOLE = "lightweight_resnet"
EPOCHS = task4.THIRD
CONFIGS = {
    "without_batch_norm": {"model": "lightweight_resnet_no_batch_norm", "epochs": EPOCHS},
    "without_shortcuts": {"model": "lightweight_resnet_no_shortcuts", "epochs": EPOCHS},
}
NAMES = {
    WHOLE: "the whole network",
    "without_batch_norm": "without batch norm",
    "without_shortcuts": "without shortcuts",
}
START, SLOPE, END = "Accuracy after epoch 1, %", "Slope, points per epoch", "Accuracy after the last epoch, %"
# what the report says that a part does, {configuration: (part, quantity)}
ATTRIBUTIONS = {"without_batch_norm": ("batch norm", START), "without_shortcuts": ("shortcuts", SLOPE)}
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
    config = run_json["configs"]["without_shortcuts"]
    batch_size, epochs = config["batch_size"], plots.count(config["epochs"], "epoch")
    page = [
        finding(differences),
        f"Mean ± standard deviation over {len({seed for _, seed in histories})} seeds, after {epochs} at batch size "
        f"{batch_size}. The slope is the rise of test accuracy per epoch after the first one. Differences from the "
        "whole network are taken seed by seed (same batches); ± is half of the 95% interval of their mean.",
        ablation_table(measured, differences),
        attributions(differences),
    ]
    tables.write_markdown(out / "ablations.md", "Task 4: batch norm and shortcuts taken out", page, scale)
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
    """Format the mean of differences and half of its 95% interval."""
    half = tables.half_width(differences)
    return tables.signed(differences.mean()) + ("" if half is None else f" ± {half:.2f}")


def judge(differences, name):
    """Return whether the report's attribution to the part that `name` lacks holds."""
    values = differences[name][ATTRIBUTIONS[name][1]]
    if not tables.excludes_zero(values):
        return "cannot be decided with these seeds"
    return "holds" if values.mean() < 0 else "does not hold"


def finding(differences):
    """Return what was found, computed, so that it stays true."""
    if not differences:
        return "The whole network has not been trained with these settings: run `python task4_architectures/main.py`."
    parts = [
        f"that of the fast {'start' if quantity == START else 'rise'} to {part} {judge(differences, name)}"
        for name, (part, quantity) in ATTRIBUTIONS.items()
    ]
    ends = " and ".join(f"{interval(differences[name][END])} points {NAMES[name]}" for name in CONFIGS)
    return f"**Of the report's attributions, {', and '.join(parts)}.** After the last epoch accuracy differs by {ends}."


def ablation_table(measured, differences):
    """Return one row per network: start, slope and end, and their differences from the whole network's."""
    rows = []
    for name in measured:
        row = {"network": NAMES[name]}
        for quantity, values in measured[name].items():
            row[quantity] = tables.mean_std(list(values.values()))
            row[f"{quantity.split(',')[0]}, difference"] = (
                interval(differences[name][quantity]) if name in differences else tables.DASH
            )
        rows.append(row)
    return rows


def attributions(differences):
    """Return what each of the report's attributions rests on, and what the other part does to the same quantity."""
    sentences = []
    for name, (part, quantity) in ATTRIBUTIONS.items() if differences else ():
        (other,) = set(CONFIGS) - {name}
        sentences.append(
            f"The report attributes the {'accuracy after epoch 1' if quantity == START else 'slope'} to {part}: "
            f"{NAMES[name]} it changes by {interval(differences[name][quantity])}, so this {judge(differences, name)}; "
            f"{NAMES[other]} it changes by {interval(differences[other][quantity])}."
        )
    return " ".join(sentences)


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
    plots.about(figure, "The residual network without batch norm, and without shortcuts", *facts)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
