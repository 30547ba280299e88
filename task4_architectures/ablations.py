"""Task 4, third question. What do batch norm and shortcuts contribute? (assignment, section 4.3.2)

    python task4_architectures/ablations.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

The report attributes LightweightResNet's fast start to batch norm and its fast rise to shortcuts, and tests neither.
Here each is taken out of the network. Writes to task4_architectures/outputs/ablations/:
    loss_history.npz          LightweightResNet without batch norm, and without shortcuts
    ablations.png             test accuracy over the epochs, compared with the whole network's
    ablations.md              first and last epoch of each, and the difference from the whole network
    results.csv, summary.csv, run.json
The whole network's runs are read from the outputs of main.py, one folder up.
"""

import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, sweep, tables
from task4_architectures.main import BASE, SEEDS

CONFIGS = {
    "without_batch_norm": {"model": "lightweight_resnet_no_batch_norm"},
    "without_shortcuts": {"model": "lightweight_resnet_no_shortcuts"},
}


def main():
    cli.run_task(__doc__, TASK, train, write_results, seeds=SEEDS, name="ablations")


def train(options):
    """Train both reduced networks with every seed."""
    sweep.run(CONFIGS, BASE, options, save_to="loss_history.npz", evaluate_train=True, stacked=False)


def write_results(source, out, lang="en"):
    """Write every table and figure into `out` from the histories saved in `source`, and those of main.py above it."""
    scale = cli.read_json(source / "run.json")["scale"]
    plots.setup(lang, scale)
    histories = tables.load_histories(source / "loss_history.npz", CONFIGS)
    tables.write_results(out, histories, scale)


if __name__ == "__main__":
    cli.entry_point(main)
