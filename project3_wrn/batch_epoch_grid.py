"""Project 3: how do batch size and epochs affect DLA-34? (project 3's report, table 1.4)

    python project3_wrn/batch_epoch_grid.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Two of the report's nine numbers look like accidents, 68.10% at batch 256 for 20 epochs and 52.11% at batch 128 for 100;
so every cell has three seeds. The report's text says 25 epochs where its table says 20; we use 20. Without CUDA, full
scale means a tenth of the epochs, which the table says.
Writes to project3_wrn/outputs/batch_epoch_grid/: grid.md, grid.png, results.csv, run.json, runs/ (one file per run)
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables
from common.reported import GRID
from project3_wrn import runner
from project3_wrn.analysis import study_tables
from project3_wrn.method.recipes import get_recipe

RECIPE = get_recipe("report", "dla34")
# the configurations' names
NAMES = {(epochs, batch): f"epochs_{epochs}_batch_{batch}" for epochs, batch in GRID}
CONFIGS = {
    name: ("dla34", dataclasses.replace(RECIPE, epochs=epochs, batch_size=batch))
    for (epochs, batch), name in NAMES.items()
}
SEEDS = {"quick": 1, "full": 3}
CPU_SHARE = 10  # a CPU trains for a tenth of the epochs
ACCIDENT = 5.0  # a reported number this many points from the mean of our seeds looks like an accident
COLOR_RANGE = (50, 95)  # per cent; a lower accuracy lowers the range
LIGHT_BELOW = 80  # per cent: dark cells have white numbers


def main():
    options = runner.parse(__doc__, TASK, "batch_epoch_grid", SEEDS)
    runner.run_study(make_configs(options), options, write_results)


def make_configs(options):
    """Return the configurations, without CUDA for a tenth of their epochs."""
    configs = CONFIGS
    if options.device != "cuda":
        configs = {
            name: (model, dataclasses.replace(recipe, epochs=recipe.epochs // CPU_SHARE))
            for name, (model, recipe) in CONFIGS.items()
        }
    return runner.configure(configs, options)


def write_results(folder):
    """Write grid.md and grid.png from results.csv and run.json."""
    run_json = cli.read_json(folder / "run.json")
    plots.setup(scale=run_json["scale"])
    accuracy = study_tables.values_per_config(study_tables.read_result_rows(folder), "test_accuracy")
    trained = {name: (recipe["epochs"], recipe["batch_size"]) for name, recipe in run_json["configs"].items()}
    seeds = len(run_json["seeds"])
    note = f"DLA-34 with ImageNet strides by the report's recipe, on {run_json['device']}; {seeds} seed(s)."
    conclusion = (
        accidents(accuracy)
        if all(trained[name] == cell for cell, name in NAMES.items())
        else "**Shortened**: these are not the report's epochs, so nothing here says whether its numbers hold."
    )
    page = [note, table(accuracy, trained), conclusion]
    tables.write_markdown(folder / "grid.md", "Project 3: batch size and epochs", page, run_json["scale"])
    draw_grids(folder / "grid.png", accuracy)


def table(accuracy, trained):
    """Return one row per cell of the report's table.

    accuracy: {configuration: values over its seeds}. trained: {configuration: (epochs, batch size)}.
    """
    return [
        {
            "epochs": epochs,
            "batch size": batch,
            "trained for": f"{trained[name][0]} epochs, batch {trained[name][1]}",
            "report, %": f"{GRID[epochs, batch]:.2f}",
            "ours, %": tables.mean_std(accuracy[name]),
            "lowest and highest seed": f"{accuracy[name].min():.2f} to {accuracy[name].max():.2f}",
        }
        for (epochs, batch), name in NAMES.items()
        if name in accuracy
    ]


def accidents(accuracy):
    """Return sentences on which of the report's numbers are far from the mean of our seeds."""
    far, missing = [], []
    for (epochs, batch), name in NAMES.items():
        cell, reported = f"{epochs} epochs and batch {batch}", GRID[epochs, batch]
        if name not in accuracy:
            missing.append(cell)
        elif abs(reported - accuracy[name].mean()) > ACCIDENT:
            far.append(f"{reported:.2f}% at {cell} (ours {accuracy[name].mean():.2f}%)")
    text = (
        f"Of the {len(accuracy)} numbers compared, {len(far) or 'none'} lie more than {ACCIDENT:g} points from the mean"
        f" of our seeds{': ' if far else ''}{'; '.join(far)}."
    )
    return text + (f" Not run: {', '.join(missing)}." if missing else "")


def draw_grids(path, accuracy):
    """Draw two heat maps on one scale: the report's nine numbers and ours."""
    epochs, batches = sorted({cell[0] for cell in GRID}), sorted({cell[1] for cell in GRID})
    ours = {cell: accuracy[name].mean() if name in accuracy else np.nan for cell, name in NAMES.items()}
    lowest, highest = COLOR_RANGE
    lowest = np.nanmin([lowest, *GRID.values(), *ours.values()])
    figure, panels = plots.plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axes, values, title in zip(panels, (GRID, ours), ("The report", "Ours, mean over seeds")):
        grid = np.array([[values[e, b] for b in batches] for e in epochs])
        image = axes.imshow(grid, vmin=lowest, vmax=highest, cmap="viridis")
        for (row, column), value in np.ndenumerate(grid):
            color = "white" if value < LIGHT_BELOW else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
        axes.set_xticks(range(len(batches)), batches)
        axes.set_yticks(range(len(epochs)), epochs)
        axes.grid(False)
        axes.set(xlabel="Batch size", ylabel="Epochs", title=title)
    figure.colorbar(image, ax=panels, label="Test accuracy, %")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
