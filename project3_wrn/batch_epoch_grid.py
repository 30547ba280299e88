"""Project 3: how do batch size and epochs affect DLA-34? (project 3's report, table 1.4)

    python project3_wrn/batch_epoch_grid.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Two of the report's nine numbers look like accidents, 68.10% at batch 256 for 20 epochs and 52.11% at batch 128 for 100;
so every cell has three seeds. The report's text says 25 epochs where its table says 20; we use 20. Without CUDA, full
scale means a tenth of the epochs: a short run.
Writes to project3_wrn/outputs/batch_epoch_grid/, a short run to outputs_short/batch_epoch_grid/: grid.md, grid.png,
results.csv, run.json, runs/ (one file per run)
"""

import dataclasses
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, plots, tables
from common.reported import GRID
from common.support.translations import label, text
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
MIDDLE = 0.5  # of a color map: darker cells have white numbers


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
    as_long = all(trained[name] == cell for cell, name in NAMES.items() if name in trained)
    page = [
        *study_tables.stamp(run_json),
        accidents(accuracy) if as_long else shortened(accuracy),
        tables.figure("grid.png", "Test accuracy by batch size and epochs", caption(accuracy, len(run_json["seeds"]))),
        text("## All cells (1.4)"),
        text(
            "The network is DLA-34 with the strides made for ImageNet, trained by the report's recipe on {device}, with"
            " {seeds}.",
            device=run_json["device"],
            seeds=label(plots.count(len(run_json["seeds"]), "seed")),
        ),
        table(accuracy, trained),
        *not_run(accuracy),
    ]
    tables.write_markdown(folder / "grid.md", text("Project 3: batch size and epochs"), page, run_json["scale"])
    draw_grids(folder / "grid.png", accuracy, study_tables.facts(run_json))


def describe(epochs, batch):
    """Return what a cell of the report's table is called."""
    return text("{epochs} epochs at batch size {batch}", epochs=epochs, batch=batch)


def table(accuracy, trained):
    """Return one row per cell of the report's table.

    accuracy: {configuration: values over its seeds}. trained: {configuration: (epochs, batch size)}.
    """
    return [
        {
            "report: epochs": epochs,
            "report: batch size": batch,
            "ours: epochs": trained[name][0],
            "ours: batch size": trained[name][1],
            "report: test accuracy, %": f"{GRID[epochs, batch]:.2f}",
            "ours: test accuracy, %": tables.mean_std(accuracy[name]),
            "lowest seed, %": f"{accuracy[name].min():.2f}" if len(accuracy[name]) > 1 else tables.DASH,
            "highest seed, %": f"{accuracy[name].max():.2f}" if len(accuracy[name]) > 1 else tables.DASH,
        }
        for (epochs, batch), name in NAMES.items()
        if name in accuracy
    ]


def accidents(accuracy):
    """Return sentences on which of the report's numbers are far from the mean of our seeds."""
    far = [cell for cell, name in NAMES.items() if name in accuracy and is_far(cell, accuracy[name])]
    values = {"count": len(accuracy), "far": len(far), "points": ACCIDENT}
    if not far:
        return text(
            "**None of the report's {count} numbers that are compared lies more than {points:g} points from the mean of"
            " our seeds.**",
            **values,
        )
    return tables.paragraph(
        text(
            "**Of the report's {count} numbers that are compared, {far} lies more than {points:g} points from the mean"
            " of our seeds.**"
            if len(far) == 1
            else "**Of the report's {count} numbers that are compared, {far} lie more than {points:g} points from the"
            " mean of our seeds.**",
            **values,
        ),
        *(
            text(
                "The report has {reported:.2f}% for {cell}, and our mean is {ours:.2f}%.",
                reported=GRID[cell],
                cell=describe(*cell),
                ours=accuracy[NAMES[cell]].mean(),
            )
            for cell in far
        ),
    )


def not_run(accuracy):
    """Return, as a list, the sentence on the cells that are not among our runs; empty where all are."""
    missing = [describe(*cell) for cell, name in NAMES.items() if name not in accuracy]
    return [text("Not run: {cells}.", cells=tables.list_texts(missing))] if missing else []


def is_far(cell, values):
    """Return whether the report's number of a cell is far from the mean of our seeds."""
    return abs(GRID[cell] - values.mean()) > ACCIDENT


def shortened(accuracy):
    """Return the sentences on a study without the report's epochs."""
    return text(
        "**These trainings do not have the report's epochs, so they do not say whether its {count} numbers hold.** They"
        " only show how batch size and epochs act in a short training.",
        count=len(accuracy),
    )


def caption(accuracy, seeds):
    """Return the sentence on the best cell of the report and of ours."""
    best = max((cell for cell in NAMES if NAMES[cell] in accuracy), key=lambda cell: accuracy[NAMES[cell]].mean())
    theirs = max(GRID, key=GRID.get)
    return text(
        "Our highest mean, {ours:.2f}% ({seeds}), is in the cell of {best}, and the report's {reported:.2f}% in that of"
        " {theirs}; the right panel shows where ours is above or below the report's.",
        ours=accuracy[NAMES[best]].mean(),
        seeds=label(plots.count(seeds, "seed")),
        best=describe(*best),
        reported=GRID[theirs],
        theirs=describe(*theirs),
    )


def draw_grids(path, accuracy, facts=()):
    """Draw heat maps of the report's nine numbers and of ours, on one scale, and of our difference from them."""
    epochs, batches = sorted({cell[0] for cell in GRID}), sorted({cell[1] for cell in GRID})
    cells = {
        "The report": GRID,
        "Ours, mean over seeds": {
            cell: accuracy[name].mean() if name in accuracy else np.nan for cell, name in NAMES.items()
        },
    }
    reported, ours = (np.array([[values[e, b] for b in batches] for e in epochs]) for values in cells.values())
    lowest, highest = COLOR_RANGE
    lowest = np.nanmin([lowest, *reported.flat, *ours.flat])
    largest = np.nanmax([1.0, *np.abs(ours - reported).flat])
    figure, panels = plots.plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    scale = dict(vmin=lowest, vmax=highest, cmap="cividis")
    for axes, values, title in zip(panels, (reported, ours), cells):
        image = draw_heat_map(axes, values, "{:.2f}", epochs, batches, **scale)
        axes.set_title(title)
    figure.colorbar(image, ax=panels[:2], label="Test accuracy, %")
    diverging = dict(vmin=-largest, vmax=largest, cmap="PuOr")
    image = draw_heat_map(panels[2], ours - reported, "{:+.2f}", epochs, batches, **diverging)
    panels[2].set_title("Ours minus the report's")
    figure.colorbar(image, ax=panels[2], label="Percentage points")
    plots.about(figure, "Test accuracy by batch size and epochs", *facts)
    plots.save(figure, path)


def draw_heat_map(axes, values, template, epochs, batches, **scale):
    """Draw values (epochs, batch sizes) with their numbers; return the image. A cell that was not run is empty."""
    image = axes.imshow(values, **scale)
    dark = values < scale["vmin"] + MIDDLE * (scale["vmax"] - scale["vmin"])
    if scale["vmin"] < 0:  # both ends of a diverging map are dark
        dark = np.abs(values) > MIDDLE * scale["vmax"]
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if dark[row, column] else "black"
            axes.text(column, row, template.format(value), ha="center", va="center", color=color)
    axes.set_xticks(range(len(batches)), batches)
    axes.set_yticks(range(len(epochs)), epochs)
    axes.grid(False)
    axes.set(xlabel="Batch size", ylabel="Epochs")
    return image


if __name__ == "__main__":
    cli.entry_point(main)
