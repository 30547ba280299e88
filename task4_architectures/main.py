"""Task 4. How much better is a small residual network than LeNet? (assignment, sections 3.4 and 4.3)

    python task4_architectures/main.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Trains LeNet and LightweightResNet for ten epochs each. The report does not state its batch size; batch_size.py, next to
this script, asks which one it was. Writes to task4_architectures/outputs/:
    loss_history.npz          both networks, every seed
    comparison.png            figure 4: test accuracy over the epochs, and at the end
    architectures.md          table 3 compared with the report's
    results.csv, summary.csv, run.json
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, reported, sweep, tables
from common.models import MODELS, forward_flops, parameter_count

BASE = dict(model="lenet", epochs=10, batch_size=64, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CONFIGS = {"lenet": {}, "lightweight_resnet": {"model": "lightweight_resnet"}}
SEEDS = {"quick": 2, "full": 3}  # the residual network takes 15 minutes to an hour per seed on a CPU core


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

    seeds = len({seed for _, seed in histories})
    page = [
        "## Table 3",
        f"Ours: mean ± standard deviation over {seeds} seeds, on {run_json['device']}. "
        "Seconds are those of one training (on a CPU, with one core). The report's seconds are those of an NVIDIA A10.",
        table3(histories),
    ]
    tables.write_markdown(out / "architectures.md", "Task 4: LeNet and LightweightResNet", page, scale)
    draw_comparison(out / "comparison.png", histories)  # figure 4


def table3(histories):
    """Return one row per quantity: the report's values and ours, of both networks."""
    final = tables.final_values(histories, "test_accuracy")
    first = tables.map_histories(histories, lambda history: history["test_accuracy"][0])
    loss = tables.final_values(histories, "epoch_losses")
    seconds = tables.total_seconds(histories)
    columns = {}
    for name in CONFIGS:
        network = MODELS[name]()
        columns[f"{name}: report"] = {
            "test accuracy, %": f"{reported.ACCURACY[TASK.name][name]:.2f}",
            "accuracy after epoch 1, %": f"{reported.TASK4_FIRST_EPOCH[name]:.2f}",
            "training loss": f"{reported.LOSS[TASK.name][name]:.3f}",
            "parameters": f"{reported.TASK4_PARAMETERS[name]:,}",
            "MFLOPs per image, forward": "",
            "seconds": f"{reported.TASK4_SECONDS[name]:.1f}",
        }
        columns[f"{name}: ours"] = {
            "test accuracy, %": tables.mean_std(final[name]),
            "accuracy after epoch 1, %": tables.mean_std(first[name]),
            "training loss": tables.mean_std(loss[name], 3),
            "parameters": f"{parameter_count(network):,}",
            "MFLOPs per image, forward": f"{forward_flops(network) / 1e6:.2f}",
            "seconds": tables.mean_std(seconds[name], 0),
        }
    quantities = columns["lenet: ours"]
    return [{"quantity": name, **{column: cells[name] for column, cells in columns.items()}} for name in quantities]


def draw_comparison(path, histories):
    """Draw test accuracy over the epochs on the left, and after the last one on the right."""
    figure, (over_time, final) = plots.plt.subplots(1, 2, figsize=(12, 5), layout="constrained", width_ratios=(2, 1))
    plots.curves(over_time, histories, "test_accuracy", "Test accuracy, %")
    over_time.set_title("Test accuracy after each epoch")
    over_time.legend()
    plots.bars(final, tables.final_values(histories, "test_accuracy"), "Test accuracy, %")
    final.set_title("Final test accuracy")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
