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

from common import cli, plots, tables

BASE = {
    "model": "lenet",
    "epochs": 5,
    "batch_size": 4,
    "lr": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "dropout": 0.0,
}
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
STRENGTHS = {
    "weight_decay": {0.0: "no_regularization", 0.0001: "l2_0.0001", 0.001: "l2_0.001", 0.01: "l2", 0.1: "l2_0.1"},
    "dropout": {0.0: "no_regularization", 0.3: "dropout_0.3", 0.5: "dropout", 0.7: "dropout_0.7"},
}
TABLE2 = {
    "strong_regularization": (2.3029, 10.00),
    "baseline": (1.4336, 50.68),
    "no_regularization": (1.0241, 61.35),
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
    options = cli.resolve_options(cli.make_parser(__doc__).parse_args(), TASK)
    with cli.output_lock(options.out):
        if not options.redraw:
            train(options)
        write_results(options.out, options.out, options.lang)
        cli.finish(options)
    print(f"results: {options.out}")


def train(options):
    from common import sweep

    runs = sweep.configure(CONFIGS, BASE, options)
    histories = sweep.run(runs, options, evaluate_train=True)
    tables.save_histories(options.out / "loss_history.npz", histories)
    cli.write_json(options.out / "cost.json", step_costs(runs, options))
    sweep.write_run_json(runs, options)


def step_costs(runs, options):
    """{run: milliseconds of one training step of one network, the median of rounds in turns}."""
    import statistics
    import time

    import torch

    from common import data, sweep

    torch.set_num_threads(1)
    device = torch.device(options.device)
    train = data.load_sample()[0].to(device)
    trained = {}
    for run in COMPARED:
        batches = data.Batches(train, runs[run]["batch_size"], seed=0, stats=data.TUTORIAL_STATS)
        job = {"configs": [runs[run]], "seeds": [0]}
        trained[run] = sweep.single_learner(job, [batches], device, "fp32")
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


def write_results(source, out, lang="en"):
    """Draw tables and figures into `out` from the histories saved in `source`."""

    scale = cli.read_json(source / "run.json")["scale"]
    plots.setup(lang, scale)
    histories = tables.load_histories(source / "loss_history.npz")
    tables.write_csv(out / "results.csv", tables.result_rows(histories, scale))
    tables.write_csv(out / "summary.csv", tables.summary_rows(histories, scale))

    final = {field: tables.final_values(histories, field) for field in MEASURED}
    final["gap"] = {run: final["clean_train_accuracy"][run] - final["test_accuracy"][run] for run in CONFIGS}
    final["seconds"] = tables.map_histories(histories, lambda history: history["seconds"].astype(float).mean())
    sections = [
        f"Mean ± standard deviation over {len(final['gap']['no_regularization'])} seeds, each run's last epoch. {WORDS}",
        measured_table(final),
        verdict(final),
        "## L2 and dropout compared",
        CLAIMS_WORDS,
        claims_table(final, cli.read_json(source / "cost.json")),
        "## Table 2",
        TABLE2_WORDS,
        table2(final),
    ]
    tables.write_markdown(out / "comparison.md", "Task 2: L2 and dropout", sections, scale)
    draw_curves(out / "curves.png", histories)
    draw_strengths(out / "strength.png", final)


def measured_table(final):
    rows = []
    for run, change in CONFIGS.items():
        row = {"config": run, "L2": (BASE | change)["weight_decay"], "dropout": (BASE | change)["dropout"]}
        row |= {"running training loss": tables.mean_std(final["epoch_losses"][run], 3)}
        row |= {"clean training loss": tables.mean_std(final["clean_train_loss"][run], 3)}
        row |= {"test loss": tables.mean_std(final["test_loss"][run], 3)}
        row |= {"training accuracy, %": tables.mean_std(final["clean_train_accuracy"][run])}
        row |= {
            "test accuracy, %": tables.mean_std(final["test_accuracy"][run]),
            "gap, points": tables.mean_std(final["gap"][run]),
        }
        row |= {
            "weight norm": tables.mean_std(final["weight_norm"][run], 1),
            "s an epoch": tables.mean_std(final["seconds"][run], 1),
        }
        rows.append(row)
    return rows


def claims_table(final, cost):
    """The report's six properties, the last three with what was measured of none, L2 0.01 and dropout 0.5."""

    def row(words, l2, dropout, measure):
        return {"property": words, "report: L2": l2, "report: dropout": dropout} | {
            f"measured: {run}": measure(run) for run in COMPARED[:3]
        }

    tried = {run: STRENGTHS[name] for run, name in (("l2", "weight_decay"), ("dropout", "dropout"))}
    mean = lambda run: final["test_accuracy"][run].mean()
    best = {run: max(strengths, key=lambda strength: mean(strengths[strength])) for run, strengths in tried.items()}
    shift = lambda run: tables.mean_std(final["epoch_losses"][run] - final["clean_train_loss"][run], 3)
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
            lambda run: tables.mean_std(final["weight_norm"][run], 1),
        ),
        row("effect (gap, points)", "", "", lambda run: tables.mean_std(final["gap"][run])),
        row("cost (ms a step)", "low", "medium", lambda run: f"{cost[run]:.2f}"),
    ]


def table2(final):
    rows = []
    for run, (loss, accuracy) in TABLE2.items():
        row = {
            "config": run,
            "report: training loss": loss,
            "ours: training loss": tables.mean_std(final["epoch_losses"][run], 4),
        }
        row |= {
            "report: test accuracy, %": f"{accuracy:.2f}",
            "ours: test accuracy, %": tables.mean_std(final["test_accuracy"][run]),
        }
        rows.append(row)
    return rows


def verdict(final):
    """Sentences computed from the numbers, so that they stay true. A run beats `none` if it does by two standard errors, seed by seed."""
    accuracy, gap = final["test_accuracy"], final["gap"]
    best = max(accuracy, key=lambda run: accuracy[run].mean())
    differences = {run: accuracy[run] - accuracy["no_regularization"] for run in CONFIGS if run != "no_regularization"}
    error = lambda values: tables.std(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    better = [run for run, values in differences.items() if values.mean() > 2 * error(values)]
    worse = [run for run, values in differences.items() if values.mean() < -2 * error(values)]
    holds = "does not hold" if better else "holds" if len(worse) == len(differences) else "is neither shown nor refuted"
    listed = lambda runs: ", ".join(f"`{run}` ({differences[run].mean():+.2f})" for run in runs) or "none"
    return (
        f"Highest: `{best}` with {accuracy[best].mean():.2f}%; without regularisation {accuracy['no_regularization'].mean():.2f}%. Seed by seed, in points, "
        f"and by more than two standard errors: better than no regularisation: {listed(better)}; worse: {listed(worse)}. "
        f"The gap is {gap['no_regularization'].mean():.2f} points without regularisation and {gap['baseline'].mean():.2f} with the report's baseline of both. "
        f"That regularisation only hurts here (section 4.2.4) {holds} for these strengths and five epochs."
    )


def draw_curves(path, histories):
    compared = {key: history for key, history in histories.items() if key[0] in COMPARED}
    figure, axes = plots.plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    panels = (
        ("clean_train_loss", "Training loss (evaluation mode)"),
        ("test_loss", "Test loss"),
        ("clean_train_accuracy", "Training accuracy, %"),
        ("test_accuracy", "Test accuracy, %"),
    )
    for panel, (field, label) in zip(axes.flat, panels):
        plots.curves(panel, compared, field, label)
    for left, right in axes:
        right.sharey(left)
        right.autoscale(axis="y")
    axes[0, 0].legend()
    plots.save(figure, path)


def draw_strengths(path, final):
    figure, axes = plots.plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for panel, (name, label) in zip(axes, (("weight_decay", "L2 (weight decay)"), ("dropout", "Dropout"))):
        strengths = STRENGTHS[name]
        for field, words in (("test_accuracy", "Test accuracy, %"), ("clean_train_accuracy", "Training accuracy, %")):
            values = [final[field][run] for run in strengths.values()]
            spread = [tables.std(value) for value in values]
            panel.errorbar(
                range(len(strengths)),
                [value.mean() for value in values],
                yerr=spread,
                marker="o",
                capsize=3,
                label=words,
            )
        panel.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        panel.set(xlabel=label, ylabel="Accuracy after training, %")
    axes[0].legend()
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
