"""Task 4. How much better is a small residual network than LeNet? (assignment, sections 3.4 and 4.3)

    python task4_architectures/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Trains LeNet and LightweightResNet for ten epochs each. The report does not state its batch size; batch_size.py, next to
this script, asks which one it was, and ablations.py what makes the residual network better.
Writes to task4_architectures/outputs/, pages and figures in Chinese too (x.zh.md, x.zh.png):
    loss_history.npz          both networks, every seed
    comparison.png            figure 4: test accuracy over the epochs, and at the end
    architectures.md          table 3 compared with the report's, and the degree of overfitting
    results.csv, summary.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, plots, reported, run_plots, sweep, tables
from common.models import MODELS, forward_flops, parameter_count
from common.support.translations import text

BASE = dict(model="lenet", epochs=10, batch_size=64, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {"lenet": {}, "lightweight_resnet": {"model": "lightweight_resnet"}}
SEEDS = {"quick": 2, "full": 3}  # the residual network takes 15 minutes to an hour per seed on a CPU core
NAMES = {"lenet": "LeNet", "lightweight_resnet": "LightweightResNet"}
SMALL_GAP = 2  # points of accuracy between training and test images
STEADY = 0.15  # standard deviation of the seconds over seeds, as a share of their mean, on a machine without other work
REPORT_DIGITS = {"%": 2, "nats": 3, "": 0, "seconds": 1}  # by unit
FIGURE = "LeNet and the residual network"
THIRD = 3  # the epoch whose accuracy the report compares with LeNet's last one
# the report's test accuracies, {configuration: {epoch, -1 for the last: value}}
REPORTED = {
    name: {
        1: reported.TASK4_FIRST_EPOCH[name],
        **({THIRD: reported.TASK4_THIRD_EPOCH[name]} if name in reported.TASK4_THIRD_EPOCH else {}),
        -1: reported.ACCURACY[TASK.name][name],
    }
    for name in CONFIGS
}


def main():
    cli.run_task(__doc__, TASK, train, write_results, seeds=SEEDS)


def train(options):
    """Train both networks with every seed, each run by itself: their seconds are compared."""
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz", evaluate_train=True, stacked=False)


def write_results(source, out):
    """Write every table and figure into `out` from the histories saved in `source`."""
    run_json = cli.read_json(source / "run.json")
    scale = run_json["scale"]
    plots.setup(scale)
    histories = tables.load_histories(source / "loss_history.npz", CONFIGS)
    tables.write_results(out, histories, scale)

    batch_size = run_json["configs"]["lenet"]["batch_size"]
    rows = quantities(histories)
    page = [
        finding(rows, batch_size),
        tables.figure("comparison.png", FIGURE, caption(rows)),
        text("## Table 3"),
        notes(len({seed for _, seed in histories}), batch_size, run_json["device"]),
        table3(rows),
        timing(rows["time"][2]),
    ]
    tables.write_markdown(out / "architectures.md", text("Task 4: LeNet and LightweightResNet"), page, scale)
    draw_comparison(out / "comparison.png", histories, batch_size, scale)  # figure 4


def quantities(histories):
    """Return what is compared.

    {quantity: (our digits, unit, {configuration: our values}, {configuration: the report's number})}
    """
    final = tables.final_values(histories, "test_accuracy")
    rows = {"test accuracy": (2, "%", final, reported.ACCURACY[TASK.name])}
    if all("clean_train_accuracy" in history for history in histories.values()):
        train = tables.final_values(histories, "clean_train_accuracy")
        rows["training accuracy"] = (2, "%", train, {})
        rows["gap"] = (2, "points", {name: train[name] - final[name] for name in CONFIGS}, {})
    rows["accuracy after epoch 1"] = (2, "%", after_epoch(histories, 1), reported.TASK4_FIRST_EPOCH)
    rows[f"accuracy after epoch {THIRD}"] = (2, "%", after_epoch(histories, THIRD), reported.TASK4_THIRD_EPOCH)
    networks = {name: MODELS[name]() for name in CONFIGS}
    counts = {name: [parameter_count(network)] for name, network in networks.items()}
    flops = {name: [forward_flops(network) / 1e6] for name, network in networks.items()}
    return {
        **rows,
        "training loss": (3, "nats", tables.final_values(histories, "epoch_losses"), reported.LOSS[TASK.name]),
        "parameters": (0, "", counts, reported.TASK4_PARAMETERS),
        "forward pass of one image": (2, "MFLOPs", flops, {}),
        "time": (0, "seconds", tables.total_seconds(histories), reported.TASK4_SECONDS),
    }


def after_epoch(histories, epoch):
    """Return the test accuracies after an epoch, {configuration: (seeds,)}; of shorter trainings the last one."""
    return tables.map_histories(histories, lambda history: history["test_accuracy"][:epoch][-1])


def finding(rows, batch_size):
    """Return what was found: the difference between the networks, and the degree of overfitting."""
    lenet, resnet = (rows["test accuracy"][2][name] for name in CONFIGS)
    third = rows[f"accuracy after epoch {THIRD}"][2]["lightweight_resnet"]
    sentences = [
        text(
            "**At batch size {batch_size} LightweightResNet reaches {resnet:.2f}% and LeNet {lenet:.2f}%, a difference "
            "of {difference:.2f} points (report: {report:.2f}).**",
            batch_size=batch_size,
            resnet=resnet.mean(),
            lenet=lenet.mean(),
            difference=resnet.mean() - lenet.mean(),
            report=np.subtract(*(reported.ACCURACY[TASK.name][name] for name in reversed(CONFIGS))),
        ),
        text(
            "With every seed, LightweightResNet is more accurate after {epochs} epochs than LeNet after the last one."
            if third.min() > lenet.max()
            else "Not with every seed is LightweightResNet more accurate after {epochs} epochs than LeNet after the "
            "last one.",
            epochs=THIRD,
        ),
    ]
    if "gap" in rows:
        small, large = (rows["gap"][2][name].mean() for name in CONFIGS)
        sentences.append(
            text(
                "Neither network overfits much: training accuracy minus test accuracy is {small:.2f} points for LeNet "
                "and {large:.2f} for LightweightResNet."
                if max(small, large) < SMALL_GAP
                else "LightweightResNet has the larger gap: training accuracy minus test accuracy is {small:.2f} "
                "points for LeNet and {large:.2f} for LightweightResNet."
                if large > small
                else "LeNet has the larger gap: training accuracy minus test accuracy is {small:.2f} points for LeNet "
                "and {large:.2f} for LightweightResNet.",
                small=small,
                large=large,
            )
        )
    return tables.paragraph(*sentences)


def caption(rows):
    """Return what the figure shows: how far the seeds of each network lie apart at the end."""
    lenet, resnet = (rows["test accuracy"][2][name] for name in CONFIGS)
    return text(
        "After the last epoch the seeds lie between {low:.2f}% and {high:.2f}% for LeNet and between {lowest:.2f}% and "
        "{highest:.2f}% for LightweightResNet; hollow marks are the report's numbers ({spread}).",
        low=lenet.min(),
        high=lenet.max(),
        lowest=resnet.min(),
        highest=resnet.max(),
        spread=run_plots.spread(len(lenet)),
    )


def notes(seeds, batch_size, device):
    """Return how the values of table 3 were measured."""
    return tables.paragraph(
        tables.spread_note(seeds),
        text(
            "The batch size is {batch_size}; the report does not state its own, and "
            "[batch_size.md](batch_size/batch_size.md) asks which one it was.",
            batch_size=batch_size,
        ),
        text(
            "Training accuracy is measured at the end, in evaluation mode, on 10,000 training images; the gap is "
            "training accuracy minus test accuracy. Seconds are those of one training on {device}, without evaluation "
            "(on a CPU, with one core); the report's are those of an NVIDIA A10.",
            device=device,
        ),
        tables.INTERVAL,
    )


def table3(rows):
    """Return one row per quantity: the report's values and ours, of both networks, and the two networks compared."""
    table = []
    for quantity, (digits, unit, values, report) in rows.items():
        row = {"quantity": f"{quantity}, {unit}" if unit else quantity}
        judged = unit in ("%", "nats")
        for name, title in NAMES.items():
            known, ours = report.get(name), values[name]
            row[f"{title}: report"] = tables.DASH if known is None else f"{known:,.{REPORT_DIGITS[unit]}f}"
            row[f"{title}: ours"] = tables.mean_std(ours, digits)
            row[f"{title}: {tables.PREDICTED}"] = tables.predicted_cell(known, ours) if judged else tables.DASH
        table.append({**row, "LightweightResNet against LeNet": analysis(digits, unit, values, report)})
    return table


def timing(seconds):
    """Return a warning where the seconds of one network differ so much between seeds that the machine was busy."""
    spread = max(tables.std(values) / values.mean() for values in seconds.values())
    if spread < STEADY:
        return ""
    return text(
        "The seconds of one network vary by up to {spread:.0f}% (standard deviation over seeds), because the machine "
        "was busy with other work: their ratio says little.",
        spread=100 * spread,
    )


def analysis(digits, unit, values, report):
    """Return the difference between the networks, or the ratio of what has no per cent, and the report's."""
    lenet, resnet = (np.mean(values[name]) for name in CONFIGS)
    stated = [report[name] for name in CONFIGS] if len(report) == len(CONFIGS) else None
    if unit in ("%", "points", "nats"):
        difference = tables.signed(resnet - lenet, digits)
        if not stated:
            return difference
        return text("{ours} (report: {theirs})", ours=difference, theirs=tables.signed(stated[1] - stated[0], digits))
    if not stated:
        return text("{ratio:.2f} times", ratio=resnet / lenet)
    return text("{ratio:.2f} times (report: {theirs:.2f})", ratio=resnet / lenet, theirs=stated[1] / stated[0])


def draw_comparison(path, histories, batch_size, scale):
    """Draw test accuracy over the epochs on the left, and after the last one on the right."""
    figure, (over_time, final) = plots.plt.subplots(1, 2, figsize=(12, 5), layout="constrained", width_ratios=(3, 2))
    run_plots.curves(over_time, histories, "test_accuracy", "Test accuracy, %")
    mark_reported(over_time, histories, REPORTED)
    over_time.set_title("Test accuracy after each epoch")
    accuracy = tables.final_values(histories, "test_accuracy")
    run_plots.final_dots(final, accuracy, reported.ACCURACY[TASK.name], "Test accuracy, %")
    final.set_title("Final test accuracy")
    plots.legend(figure)
    facts = run_plots.facts(histories, scale, f"batch size {batch_size}", "mean ± standard deviation")
    plots.about(figure, FIGURE, *facts)
    plots.save(figure, path)


def mark_reported(axes, histories, report):
    """Draw the report's accuracies, {configuration: {epoch: value}}; the last epoch is that of the longest history."""
    last = max(len(history["test_accuracy"]) for history in histories.values())
    for values in report.values():
        epochs = {last if epoch == -1 else epoch: value for epoch, value in values.items() if epoch <= last}
        run_plots.mark_report(axes, list(epochs), list(epochs.values()))


if __name__ == "__main__":
    cli.entry_point(main)
