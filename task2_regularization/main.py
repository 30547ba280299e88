"""Task 2. Do L2 and dropout help LeNet on CIFAR-10, and at what strength? (assignment, sections 3.2 and 4.2.4)

    python task2_regularization/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Writes to task2_regularization/outputs/, pages and figures in Chinese too (x.zh.md, x.zh.png):
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

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np
from matplotlib.ticker import MultipleLocator

from common import cli, plots, repeated, reported, run_plots, sweep, tables
from common.support.translations import label, text

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
REPORT_SETTING = {"weight_decay": 0.01, "dropout": 0.5}
FITTED = {"test_accuracy": "Test accuracy, %", "clean_train_accuracy": "Training accuracy, %"}
FIELDS = ("epoch_losses", "clean_train_loss", "clean_train_accuracy", "test_loss", "test_accuracy", "weight_norm")
CURVES, STRENGTHS = (
    "What L2 and dropout change",
    "Accuracy at each strength of L2 and of dropout",
)  # titles of the figures
LOWEST = 15  # per cent; accuracies below it are those of guessing, and have a panel of their own


def main():
    cli.run_task(__doc__, TASK, train, write_results)


def train(options):
    """Train every configuration with every seed; evaluate training images too, with dropout off."""
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz", evaluate_train=True)


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`."""
    run_json = cli.read_json(source / "run.json")
    scale = run_json["scale"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history.npz", CONFIGS)
    tables.write_results(out, histories, scale)
    final = {field: tables.final_values(histories, field) for field in FIELDS}
    final["gap"] = {name: final["clean_train_accuracy"][name] - final["test_accuracy"][name] for name in CONFIGS}
    cost = cli.read_json(source / "cost.json") if (source / "cost.json").exists() else {}

    page = [
        finding(final),
        *captioned_figures(final),
        text("## All strengths"),
        notes(final),
        all_strengths(final),
        verdict(final, run_json["configs"]["baseline"]["epochs"]),
        text("## L2 and dropout compared (section 3.2.3)"),
        text(
            "This is the report's comparison, with our values where they can be measured. "
            "The time of a step is that of one network trained alone (benchmarks/step_cost.py)."
        ),
        comparison(final, cost),
        text("## Table 2"),
        text("The fourth row of the report's table 2, ten epochs of the baseline, is part of task 3."),
        tables.INTERVAL,
        table2(final),
        *repeated.section(source, repeated.BASELINE),
    ]
    tables.write_markdown(out / "comparison.md", text("Task 2: L2 and dropout"), page, scale)
    batch_size = f"batch size {run_json['configs']['baseline']['batch_size']}"
    facts = run_plots.facts(histories, scale, "LeNet", batch_size, "mean ± standard deviation")
    draw_curves(out / "curves.png", histories, facts)
    draw_strengths(out / "strength.png", final, facts)


def finding(final):
    """Return what was found: whether any strength helps, and what both together cost; computed, so it stays true."""
    better, worse, undecided = classified(final["test_accuracy"])
    none, both = (
        {field: final[field][name].mean() for field in ("gap", "test_accuracy", "clean_train_loss")}
        for name in ("no_regularization", "baseline")
    )
    rises = both["clean_train_loss"] > none["clean_train_loss"] and both["test_accuracy"] < none["test_accuracy"]
    return tables.paragraph(
        text(
            "**Compared with no regularization, {better} of {tried} strengths of L2 and dropout are better, {worse} "
            "are worse, and {undecided} cannot be told from it.**"
            if better
            else "**None of {tried} strengths of L2 and dropout is better than no regularization: {worse} are worse, "
            "and {undecided} cannot be told from it.**",
            better=len(better),
            tried=len(better + worse + undecided),
            worse=len(worse),
            undecided=len(undecided),
        ),
        text(
            "The report's setting, L2 {weight_decay:g} with dropout {dropout:g}, changes the gap between training and "
            "test accuracy from {gap:.2f} to {gap_both:.2f} points and test accuracy by {change} points.",
            **REPORT_SETTING,
            gap=none["gap"],
            gap_both=both["gap"],
            change=tables.signed(both["test_accuracy"] - none["test_accuracy"]),
        ),
        text(
            "The network underfits: its training loss is {both:.3f} in place of {none:.3f}.",
            both=both["clean_train_loss"],
            none=none["clean_train_loss"],
        )
        if rises
        else "",
    )


def captioned_figures(final):
    """Return both figures of the page with their captions."""
    accuracy = final["test_accuracy"]
    spread = run_plots.spread(len(accuracy["baseline"]))
    best = max(accuracy, key=lambda name: accuracy[name].mean())
    change = {name: tables.signed((accuracy[name] - accuracy["no_regularization"]).mean()) for name in CONFIGS}
    return (
        tables.figure(
            "curves.png",
            CURVES,
            text(
                "After the last epoch, training accuracy minus test accuracy is {none:.2f} points without "
                "regularization, {l2:.2f} with L2, {dropout:.2f} with dropout and {both:.2f} with both ({spread}).",
                none=final["gap"]["no_regularization"].mean(),
                l2=final["gap"]["l2"].mean(),
                dropout=final["gap"]["dropout"].mean(),
                both=final["gap"]["baseline"].mean(),
                spread=spread,
            ),
        ),
        tables.figure(
            "strength.png",
            STRENGTHS,
            text(
                "The configuration with the highest mean test accuracy, {best:.2f}%, is: {name}; at the report's "
                "setting (dotted line), L2 alone changes test accuracy by {l2} points and dropout alone by {dropout} "
                "({spread}).",
                best=accuracy[best].mean(),
                name=label(best),
                l2=change["l2"],
                dropout=change["dropout"],
                spread=spread,
            ),
        ),
    )


def notes(final):
    """Return what the columns of the table are."""
    return tables.paragraph(
        tables.spread_note(len(final["gap"]["baseline"])),
        text(
            "They are those of the last epoch. The running training loss is the mean over the epoch while "
            "training, with dropout on. Clean values are measured after the epoch in evaluation mode, on 10,000 "
            "training images. The gap is clean training accuracy minus test accuracy."
        ),
    )


def all_strengths(final):
    """Return one row per configuration with everything that was measured."""
    return [
        {
            "configuration": tables.named(name),
            "L2": f"{(BASE | change)['weight_decay']:g}",
            "dropout rate": f"{(BASE | change)['dropout']:g}",
            "running training loss": tables.mean_std(final["epoch_losses"][name], 3),
            "clean training loss": tables.mean_std(final["clean_train_loss"][name], 3),
            "test loss": tables.mean_std(final["test_loss"][name], 3),
            "clean training accuracy, %": tables.mean_std(final["clean_train_accuracy"][name]),
            "test accuracy, %": tables.mean_std(final["test_accuracy"][name]),
            "gap, points": tables.mean_std(final["gap"][name]),
            "weight norm": tables.mean_std(final["weight_norm"][name], 1),
        }
        for name, change in CONFIGS.items()
    ]


def classified(accuracy):
    """Return the configurations that are better than no regularization, worse, and undecided.

    Seed by seed, by whether the 95% interval of the mean difference excludes 0.
    """
    better, worse, undecided = [], [], []
    for name in CONFIGS:
        if name != "no_regularization":
            differences = accuracy[name] - accuracy["no_regularization"]
            decided = tables.excludes_zero(differences)
            (undecided if not decided else better if differences.mean() > 0 else worse).append(name)
    return better, worse, undecided


def verdict(final, epochs):
    """Return sentences computed from the numbers, so that they stay true."""
    accuracy = final["test_accuracy"]
    none = accuracy["no_regularization"]
    better, worse, undecided = classified(accuracy)
    best = max(accuracy, key=lambda name: accuracy[name].mean())

    def described(names):
        changes = {name: tables.signed((accuracy[name] - none).mean()) for name in names}
        return tables.list_texts(text("{name} ({change})", name=label(name), change=changes[name]) for name in names)

    return tables.paragraph(
        text(
            "Each strength is compared with no regularization seed by seed. In parentheses: the mean difference in "
            "test accuracy, in points. It is decided where its 95% interval excludes 0."
        ),
        text("Better: {names}.", names=described(better)) if better else "",
        text("Worse: {names}.", names=described(worse)) if worse else "",
        text("Undecided: {names}.", names=described(undecided)) if undecided else "",
        text(
            "The highest mean ({name}, {mean:.2f}%) is the largest of {tried} and lies inside the noise: it does not "
            "show that this strength helps.",
            name=label(best),
            mean=accuracy[best].mean(),
            tried=len(CONFIGS) - 1,
        )
        if best in undecided
        else "",
        text(
            "The report's claim that regularization only hurts here (section 4.2.4) does not hold after {epochs} "
            "epochs."
            if better
            else "The report's claim that regularization only hurts here (section 4.2.4) holds after {epochs} epochs "
            "for every strength that can be decided."
            if undecided
            else "The report's claim that regularization only hurts here (section 4.2.4) holds after {epochs} epochs.",
            epochs=epochs,
        ),
    )


def comparison(final, cost):
    """Return the rows of the report's comparison that can be measured.

    cost: {configuration: milliseconds per step, one value or those of several rounds}, or empty.
    """
    accuracy, loss = final["test_accuracy"], final["epoch_losses"]
    shift = {name: tables.mean_std(loss[name] - final["clean_train_loss"][name], 3) for name in COMPARED}
    norms = {name: tables.mean_std(final["weight_norm"][name], 1) for name in COMPARED}
    gaps = {name: tables.mean_std(final["gap"][name]) for name in COMPARED}
    best = {}
    for name, hyperparameter in (("l2", "weight_decay"), ("dropout", "dropout")):
        strengths = by_strength(hyperparameter)
        strength = max(strengths, key=lambda strength: accuracy[strengths[strength]].mean())
        best[name] = f"{strength:g}"
        if strengths[strength] in classified(accuracy)[2]:
            best[name] = text("{strength:g} (undecided against 0)", strength=strength)
    milliseconds = {name: tables.mean_std(np.atleast_1d(value)) for name, value in cost.items()}
    rows = (
        ("training against testing (running minus clean loss)", text("the same"), text("on, off"), shift),
        ("typical strength (best of those tried)", "0.001 to 0.1", "0.3 to 0.5", best),
        ("effect (weight norm)", "smaller weights", "less co-adaptation", norms),
        ("effect (gap, points)", tables.DASH, tables.DASH, gaps),
        ("cost (ms per step)", text("low"), text("medium"), milliseconds),
    )
    return [
        {
            "property": name,
            "report: L2": l2,
            "report: dropout": dropout,
            **{f"ours: {config}": values.get(config, tables.DASH) for config in COMPARED[:3]},
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
            "configuration": label(name),
            "report: training loss": f"{reported.LOSS[TASK.name][name]:.4f}",
            "ours: training loss": tables.mean_std(final["epoch_losses"][name], 4),
            "report: test accuracy, %": f"{reported.ACCURACY[TASK.name][name]:.2f}",
            "ours: test accuracy, %": tables.mean_std(final["test_accuracy"][name]),
            tables.PREDICTED: tables.predicted_cell(reported.ACCURACY[TASK.name][name], final["test_accuracy"][name]),
        }
        for name in TABLE2
    ]


def draw_curves(path, histories, facts):
    """Draw loss and accuracy, of training on the left and of testing on the right, over the epochs."""
    compared = {key: history for key, history in histories.items() if key[0] in COMPARED}
    figure, axes = plots.plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    run_plots.curves(axes[0, 0], compared, "clean_train_loss", "Training loss (evaluation mode)")
    run_plots.curves(axes[0, 1], compared, "test_loss", "Test loss")
    run_plots.curves(axes[1, 0], compared, "clean_train_accuracy", "Training accuracy, %")
    run_plots.curves(axes[1, 1], compared, "test_accuracy", "Test accuracy, %")
    for left, right in axes:
        right.sharey(left)
        right.autoscale(axis="y")
    last = max(len(history["test_accuracy"]) for history in compared.values())
    report = [reported.ACCURACY[TASK.name][name] for name in COMPARED if name in reported.ACCURACY[TASK.name]]
    run_plots.mark_report(axes[1, 1], [last] * len(report), report)
    plots.legend(figure, columns=5)
    plots.about(figure, CURVES, *facts)
    plots.save(figure, path)


def draw_strengths(path, final, facts):
    """Draw training and test accuracy against the strength of L2 and of dropout.

    Accuracies of guessing are drawn in low panels with an axis of their own.
    """
    means = [final[field][name].mean() for field in ("test_accuracy", "clean_train_accuracy") for name in CONFIGS]
    broken = min(means) < LOWEST < max(means)
    rows = dict(nrows=2, height_ratios=(5, 1)) if broken else dict(nrows=1)
    size = dict(ncols=2, figsize=(11, 5.5), layout="constrained", squeeze=False)
    figure, axes = plots.plt.subplots(**rows, **size, sharex="col", sharey="row")
    for column, hyperparameter, axis in zip(axes.T, ("weight_decay", "dropout"), ("L2 (weight decay)", "Dropout")):
        strengths = by_strength(hyperparameter)
        places = place_strengths(hyperparameter, list(strengths))
        setting = places[list(strengths).index(REPORT_SETTING[hyperparameter])]
        for panel in column:
            for field, name in FITTED.items():
                draw_strength(panel, places, [final[field][config] for config in strengths.values()], name)
            panel.axvline(setting, color="0.4", linestyle=":", linewidth=1.2, label="The report's setting")
        report = reported.ACCURACY[TASK.name]["no_regularization"]
        run_plots.mark_report(column[0], places[0], report)
        column[-1].set_xticks(places, [f"{strength:g}" for strength in strengths])
        column[-1].set_xlabel(axis)
    axes[0, 0].set_ylabel("Accuracy after training, %")
    if broken:
        break_axis(axes, [mean for mean in means if mean > LOWEST])
    plots.legend(figure)
    plots.about(figure, STRENGTHS, *facts)
    plots.save(figure, path)


def place_strengths(hyperparameter, strengths):
    """Return where strengths are drawn: those of L2 by their logarithm and 0 one step before them, dropout as it is."""
    if hyperparameter == "dropout":
        return strengths
    logarithms = [round(float(np.log10(strength))) for strength in strengths if strength]
    return [logarithms[0] - 1.5, *logarithms]


def draw_strength(panel, places, values, name):
    """Draw one line; the way from no regularization to the weakest, which a logarithm cannot show, is dashed."""
    means, spreads = np.array([value.mean() for value in values]), [tables.std(value) for value in values]
    bars = panel.errorbar(places, means, yerr=spreads, fmt="o", capsize=3, label=name)
    color = bars[0].get_color()
    panel.plot(places[:2], means[:2], color=color, linestyle="--" if places[0] else "-", linewidth=1)
    panel.plot(places[1:], means[1:], color=color)


def break_axis(axes, means):
    """Give the upper panels the range of `means`, the lower ones that of guessing, and mark the break."""
    axes[0, 0].set_ylim(min(means) - 3, max(means) + 3)
    axes[1, 0].set_ylim(8.5, 11.5)
    axes[1, 0].yaxis.set_major_locator(MultipleLocator(1))
    slash = dict(marker=[(-1, -0.6), (1, 0.6)], markersize=9, linestyle="", color="black", clip_on=False)
    for upper, lower in axes.T:
        upper.spines.bottom.set_visible(False)
        lower.spines.top.set_visible(False)
        upper.tick_params(bottom=False)
        upper.plot([0, 1], [0, 0], transform=upper.transAxes, **slash)
        lower.plot([0, 1], [1, 1], transform=lower.transAxes, **slash)


if __name__ == "__main__":
    cli.entry_point(main)
