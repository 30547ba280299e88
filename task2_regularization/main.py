"""Task 2. Do L2 and dropout help LeNet on CIFAR-10, and at what strength? (assignment, sections 3.2 and 4.2.4)

    python task2_regularization/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Writes to task2_regularization/outputs/:
    loss_history.npz          every run: running loss; loss and accuracy on training and test images; weight norms
    comparison.md             every strength; the report's comparison of L2 and dropout, and its table 2
    curves.png                loss and accuracy of training and test over the epochs
    strength.png              accuracy against the strength of each
    results.csv, summary.csv, run.json
benchmarks/step_cost.py writes cost.json there: milliseconds per step without, with one and with both of them.
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, reported, sweep, tables

BASE = dict(model="lenet", epochs=5, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.0, dropout=0.0)
CONFIGS = {
    "no_regularization": {},
    "l2": {"weight_decay": 0.01},
    "dropout": {"dropout": 0.5},
    "baseline": {"weight_decay": 0.01, "dropout": 0.5},
    "l2_0.0001": {"weight_decay": 0.0001},
    "l2_0.001": {"weight_decay": 0.001},
    "l2_0.1": {"weight_decay": 0.1},
    "dropout_0.3": {"dropout": 0.3},
    "dropout_0.7": {"dropout": 0.7},
    "strong_regularization": {"weight_decay": 0.1, "dropout": 0.7},
}
COMPARED = ("no_regularization", "l2", "dropout", "baseline")
TABLE2 = ("strong_regularization", "baseline", "no_regularization")
FIELDS = ("epoch_losses", "clean_train_loss", "clean_train_accuracy", "test_loss", "test_accuracy", "weight_norm")
ERRORS = 2  # standard errors by which one configuration must differ from another to be called better or worse


def main():
    cli.run_task(__doc__, TASK, train, write_results)


def train(options):
    """Train every configuration with every seed; evaluate training images too, with dropout off."""
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz", evaluate_train=True)


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`."""
    scale = cli.read_json(source / "run.json")["scale"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history.npz", CONFIGS)
    tables.write_results(out, histories, scale)
    final = {field: tables.final_values(histories, field) for field in FIELDS}
    final["gap"] = {name: final["clean_train_accuracy"][name] - final["test_accuracy"][name] for name in CONFIGS}
    cost = cli.read_json(source / "cost.json") if (source / "cost.json").exists() else {}

    page = [
        f"Mean ± standard deviation over {len(final['gap']['baseline'])} seeds, after the last epoch. "
        "The running training loss is the mean over the epoch while training, with dropout on. "
        "Clean values are measured after the epoch in evaluation mode, on 10,000 training images. "
        "The gap is clean training accuracy minus test accuracy.",
        all_strengths(final),
        verdict(final),
        "## 3.2.3: L2 and dropout compared",
        "The report's comparison, with our values where they can be measured. The time of a step is that of one network"
        " trained alone (benchmarks/step_cost.py).",
        comparison(final, cost),
        "## Table 2",
        "The fourth row of the report's table 2, ten epochs of the baseline, is `more_epochs` of task 3.",
        table2(final),
    ]
    tables.write_markdown(out / "comparison.md", "Task 2: L2 and dropout", page, scale)
    draw_curves(out / "curves.png", histories)
    draw_strengths(out / "strength.png", final)


def all_strengths(final):
    """Return one row per configuration with everything that was measured."""
    return [
        {
            "config": name,
            "L2": {**BASE, **change}["weight_decay"],
            "dropout": {**BASE, **change}["dropout"],
            "running training loss": tables.mean_std(final["epoch_losses"][name], 3),
            "clean training loss": tables.mean_std(final["clean_train_loss"][name], 3),
            "test loss": tables.mean_std(final["test_loss"][name], 3),
            "training accuracy, %": tables.mean_std(final["clean_train_accuracy"][name]),
            "test accuracy, %": tables.mean_std(final["test_accuracy"][name]),
            "gap, points": tables.mean_std(final["gap"][name]),
            "weight norm": tables.mean_std(final["weight_norm"][name], 1),
        }
        for name, change in CONFIGS.items()
    ]


def verdict(final):
    """Return sentences computed from the numbers, so that they stay true.

    A configuration is better or worse where it differs, seed by seed, by more than two standard errors.
    """
    accuracy, gap = final["test_accuracy"], final["gap"]
    none = accuracy["no_regularization"]
    best = max(accuracy, key=lambda name: accuracy[name].mean())
    differences = {name: accuracy[name] - none for name in CONFIGS if name != "no_regularization"}
    better = [name for name, values in differences.items() if values.mean() > ERRORS * standard_error(values)]
    worse = [name for name, values in differences.items() if values.mean() < -ERRORS * standard_error(values)]
    holds = "does not hold" if better else "holds" if len(worse) == len(differences) else "is neither shown nor refuted"
    lists = [
        ", ".join(f"`{name}` ({differences[name].mean():+.2f})" for name in names) or "no configuration"
        for names in (better, worse)
    ]
    return (
        f"The highest accuracy is that of `{best}`, {accuracy[best].mean():.2f}%; "
        f"without regularization it is {none.mean():.2f}%. "
        f"Compared with `no_regularization` seed by seed (difference in points), by more than {ERRORS} standard errors "
        f"better: {lists[0]}; worse: {lists[1]}. "
        f"The gap is {gap['no_regularization'].mean():.2f} points without regularization "
        f"and {gap['baseline'].mean():.2f} with the baseline, which has both. "
        f"The claim that regularization only hurts here (section 4.2.4) {holds} for these strengths and five epochs."
    )


def standard_error(values):
    """Return the standard error of the mean; infinite of a single value."""
    return tables.std(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")


def comparison(final, cost):
    """Return the rows of the report's comparison that can be measured. cost: {configuration: ms per step}, or empty."""
    accuracy, loss = final["test_accuracy"], final["epoch_losses"]
    shift = {name: tables.mean_std(loss[name] - final["clean_train_loss"][name], 3) for name in COMPARED}
    norms = {name: tables.mean_std(final["weight_norm"][name], 1) for name in COMPARED}
    gaps = {name: tables.mean_std(final["gap"][name]) for name in COMPARED}
    best = {}
    for name, hyperparameter in (("l2", "weight_decay"), ("dropout", "dropout")):
        strengths = by_strength(hyperparameter)
        best[name] = f"{max(strengths, key=lambda strength: accuracy[strengths[strength]].mean()):g}"
    milliseconds = {name: f"{value:.2f}" for name, value in cost.items()}
    rows = (
        ("training against testing (running minus clean loss)", "the same", "on, off", shift),
        ("typical strength (best of those tried)", "0.001 to 0.1", "0.3 to 0.5", best),
        ("effect (weight norm)", "smaller weights", "less co-adaptation", norms),
        ("effect (gap, points)", "", "", gaps),
        ("cost (ms per step)", "low", "medium", milliseconds),
    )
    return [
        {
            "property": name,
            "report: L2": l2,
            "report: dropout": dropout,
            **{f"measured: {config}": values.get(config, "") for config in COMPARED[:3]},
        }
        for name, l2, dropout, values in rows
        if values
    ]


def by_strength(hyperparameter):
    """Return {strength: configuration} of the configurations that change nothing else, the weakest first."""
    changes = {name: change for name, change in CONFIGS.items() if change.keys() <= {hyperparameter}}
    return dict(sorted((change.get(hyperparameter, 0.0), name) for name, change in changes.items()))


def table2(final):
    """Return the report's rows next to ours."""
    return [
        {
            "config": name,
            "report: training loss": reported.LOSS[TASK.name][name],
            "ours: training loss": tables.mean_std(final["epoch_losses"][name], 4),
            "report: test accuracy, %": f"{reported.ACCURACY[TASK.name][name]:.2f}",
            "ours: test accuracy, %": tables.mean_std(final["test_accuracy"][name]),
        }
        for name in TABLE2
    ]


def draw_curves(path, histories):
    """Draw loss and accuracy, of training on the left and of testing on the right, over the epochs."""
    compared = {key: history for key, history in histories.items() if key[0] in COMPARED}
    figure, axes = plots.plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    plots.curves(axes[0, 0], compared, "clean_train_loss", "Training loss (evaluation mode)")
    plots.curves(axes[0, 1], compared, "test_loss", "Test loss")
    plots.curves(axes[1, 0], compared, "clean_train_accuracy", "Training accuracy, %")
    plots.curves(axes[1, 1], compared, "test_accuracy", "Test accuracy, %")
    for left, right in axes:
        right.sharey(left)
        right.autoscale(axis="y")
    axes[0, 0].legend()
    plots.save(figure, path)


def draw_strengths(path, final):
    """Draw training and test accuracy against the strength of L2 and of dropout."""
    figure, axes = plots.plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for panel, hyperparameter, label in zip(axes, ("weight_decay", "dropout"), ("L2 (weight decay)", "Dropout")):
        strengths = by_strength(hyperparameter)
        for field, name in (("test_accuracy", "Test accuracy, %"), ("clean_train_accuracy", "Training accuracy, %")):
            values = [final[field][config] for config in strengths.values()]
            means, spreads = [value.mean() for value in values], [tables.std(value) for value in values]
            panel.errorbar(range(len(strengths)), means, yerr=spreads, marker="o", capsize=3, label=name)
        panel.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        panel.set(xlabel=label, ylabel="Accuracy after training, %")
    axes[0].legend()
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
