"""Task 2. Do L2 and dropout help LeNet on CIFAR-10, and at what strength? (assignment, sections 3.2 and 4.2.4)

    python task2_regularization/main.py [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N] [--lang en|zh] [--redraw]

Writes to task2_regularization/outputs/:
    loss_history.npz          every run and seed: running loss; loss and accuracy on training and test images; weight norms
    comparison.md             the report's comparison of L2 and dropout (3.2.3) and its table 2, with measured columns
    cost.json                 milliseconds a step without, with one and with both of them
    curves.png                loss and accuracy of training and test over the epochs
    strength.png              accuracy against the strength of each
    results.csv, summary.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, figures, tables

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

COST_STEPS, COST_ROUNDS = {"quick": 30, "full": 300}, 5

WORDS = """Running training loss is the mean over the epoch while training, dropout on; clean is measured in evaluation mode
after the epoch, on 10,000 training images. The gap is clean training accuracy less test accuracy. Seconds are a run's share of
its stack's (common/learners.py), so they are the same for all; what L2 and dropout cost by themselves is in the next table."""
CLAIMS_WORDS = """The report's comparison of the two (section 3.2.3), with what was measured. A step's cost is of one network
trained alone on this machine, the four kinds in turns."""
TABLE2_WORDS = "The report's table 2. Its fourth row, ten epochs of the baseline, is task 3's run `more_epochs`."


def main():
    options = cli.settle(cli.flags(__doc__).parse_args(), TASK)
    with cli.alone(options.out):
        if not options.redraw:
            train(options)
        report(options.out, options.out, options.lang)
        cli.finish(options)
    print(f"results: {options.out}")


def train(options):
    from common import study

    runs = study.configure(RUNS, BASE, options)
    histories = study.study(runs, options, evaluate_train=True)
    tables.save_histories(options.out / "loss_history.npz", histories)
    cli.write_json(options.out / "cost.json", step_costs(runs, options))
    study.write_provenance(runs, options)


def step_costs(runs, options):
    """{run: milliseconds of one training step of one network, the median of rounds in turns}."""
    import statistics
    import time

    import torch

    from common import data, study

    torch.set_num_threads(1)
    device = torch.device(options.device)
    train = data.load_sample()[0].to(device)
    trained = {}
    for run in COMPARED:
        batches = data.Batches(train, runs[run]["batch_size"], seed=0, normalisation=data.HALF)
        job = {"runs": [runs[run]], "seeds": [0]}
        trained[run] = study.network(job, [batches], device, "fp32")
    milliseconds = {run: [] for run in COMPARED}
    for _ in range(COST_ROUNDS):
        for run, (learner, batches) in trained.items():
            some = [batch for _, batch in zip(range(COST_STEPS[options.scale]), batches)]
            started = time.perf_counter()
            for x, y in some:
                loss = learner.step(x, y)
            loss.item()  # wait for the device
            milliseconds[run].append((time.perf_counter() - started) / len(some) * 1000)
    return {run: statistics.median(times) for run, times in milliseconds.items()}


def report(source, out, lang="en"):
    """Draw tables and figures into `out` from the histories saved in `source`."""

    scale = cli.read_json(source / "run.json")["scale"]
    style = figures.Style(lang, scale)
    histories = tables.load_histories(source / "loss_history.npz")
    tables.write_csv(out / "results.csv", tables.result_rows(histories, scale))
    tables.write_csv(out / "summary.csv", tables.summary_rows(histories, scale))

    at_end = {field: tables.final(histories, field) for field in MEASURED}
    at_end["gap"] = {run: at_end["clean_train_accuracy"][run] - at_end["test_accuracy"][run] for run in RUNS}
    at_end["seconds"] = tables.per_run(histories, lambda history: history["seconds"].astype(float).mean())
    sections = [
        f"Mean ± standard deviation over {len(at_end['gap']['none'])} seeds, each run's last epoch. {WORDS}",
        measured_table(at_end),
        verdict(at_end),
        "## L2 and dropout compared",
        CLAIMS_WORDS,
        claims_table(at_end, cli.read_json(source / "cost.json")),
        "## Table 2",
        TABLE2_WORDS,
        table2(at_end),
    ]
    tables.write_markdown(out / "comparison.md", "Task 2: L2 and dropout", sections, scale)
    draw_curves(out / "curves.png", histories, style)
    draw_strengths(out / "strength.png", at_end, style)


def measured_table(at_end):
    rows = []
    for run, change in RUNS.items():
        row = {"run": run, "L2": (BASE | change)["weight_decay"], "dropout": (BASE | change)["dropout"]}
        row |= {"running training loss": tables.pm(at_end["epoch_losses"][run], 3)}
        row |= {"clean training loss": tables.pm(at_end["clean_train_loss"][run], 3)}
        row |= {"test loss": tables.pm(at_end["test_loss"][run], 3)}
        row |= {"training accuracy, %": tables.pm(at_end["clean_train_accuracy"][run])}
        row |= {
            "test accuracy, %": tables.pm(at_end["test_accuracy"][run]),
            "gap, points": tables.pm(at_end["gap"][run]),
        }
        row |= {
            "weight norm": tables.pm(at_end["weight_norm"][run], 1),
            "s an epoch": tables.pm(at_end["seconds"][run], 1),
        }
        rows.append(row)
    return rows


def claims_table(at_end, cost):
    """The report's six properties, the last three with what was measured of none, L2 0.01 and dropout 0.5."""

    def row(words, l2, dropout, measure):
        return {"property": words, "report: L2": l2, "report: dropout": dropout} | {
            f"measured: {run}": measure(run) for run in COMPARED[:3]
        }

    tried = {run: STRENGTHS[name] for run, name in (("l2", "weight_decay"), ("dropout", "dropout"))}
    mean = lambda run: at_end["test_accuracy"][run].mean()
    best = {run: max(strengths, key=lambda strength: mean(strengths[strength])) for run, strengths in tried.items()}
    shift = lambda run: tables.pm(at_end["epoch_losses"][run] - at_end["clean_train_loss"][run], 3)
    return [
        row("acts on", "weights", "activations", lambda run: ""),
        row("where", "optimiser", "network", lambda run: ""),
        row("training against testing (running less clean loss)", "the same", "on, off", shift),
        row(
            "typical strength (best of those tried)",
            "0.001 to 0.1",
            "0.3 to 0.5",
            lambda run: f"{best[run]:g}" if run in best else "",
        ),
        row(
            "effect (weight norm)",
            "smaller weights",
            "less co-adaptation",
            lambda run: tables.pm(at_end["weight_norm"][run], 1),
        ),
        row("effect (gap, points)", "", "", lambda run: tables.pm(at_end["gap"][run])),
        row("cost (ms a step)", "low", "medium", lambda run: f"{cost[run]:.2f}"),
    ]


def table2(at_end):
    rows = []
    for run, (loss, accuracy) in TABLE2.items():
        row = {
            "run": run,
            "report: training loss": loss,
            "ours: training loss": tables.pm(at_end["epoch_losses"][run], 4),
        }
        row |= {
            "report: test accuracy, %": f"{accuracy:.2f}",
            "ours: test accuracy, %": tables.pm(at_end["test_accuracy"][run]),
        }
        rows.append(row)
    return rows


def verdict(at_end):
    """Sentences computed from the numbers, so that they stay true. A run beats `none` if it does by two standard errors, seed by seed."""
    accuracy, gap = at_end["test_accuracy"], at_end["gap"]
    best = max(accuracy, key=lambda run: accuracy[run].mean())
    differences = {run: accuracy[run] - accuracy["none"] for run in RUNS if run != "none"}
    error = lambda values: tables.std(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    better = [run for run, values in differences.items() if values.mean() > 2 * error(values)]
    worse = [run for run, values in differences.items() if values.mean() < -2 * error(values)]
    holds = "does not hold" if better else "holds" if len(worse) == len(differences) else "is neither shown nor refuted"
    listed = lambda runs: ", ".join(f"`{run}` ({differences[run].mean():+.2f})" for run in runs) or "none"
    return (
        f"Highest: `{best}` with {accuracy[best].mean():.2f}%; without regularisation {accuracy['none'].mean():.2f}%. Seed by seed, in points, "
        f"and by more than two standard errors: better than no regularisation: {listed(better)}; worse: {listed(worse)}. "
        f"The gap is {gap['none'].mean():.2f} points without regularisation and {gap['both'].mean():.2f} with the report's baseline of both. "
        f"That regularisation only hurts here (section 4.2.4) {holds} for these strengths and five epochs."
    )


def draw_curves(path, histories, style):
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


def draw_strengths(path, at_end, style):
    figure, axes = figures.plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for panel, (name, label) in zip(axes, (("weight_decay", "L2 (weight decay)"), ("dropout", "Dropout"))):
        strengths = STRENGTHS[name]
        for field, words in (("test_accuracy", "Test accuracy, %"), ("clean_train_accuracy", "Training accuracy, %")):
            values = [at_end[field][run] for run in strengths.values()]
            spread = [tables.std(value) for value in values]
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
