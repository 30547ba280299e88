"""Project 3: which network is most accurate, and at what cost? (project 3's report, table 1.7)

    python project3_wrn/compare_models.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

All networks are trained by the report's recipe; the ViT, which fails with it, also by a recipe made for it. Without
CUDA, full scale means the few epochs of CPU_EPOCHS, which the tables say.
Writes to project3_wrn/outputs/compare_models/: comparison.md, accuracy_cost.png, results.csv, run.json,
runs/ (one file per run)
"""

import dataclasses
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, reported, tables
from project3_wrn import runner
from project3_wrn.analysis import study_tables
from project3_wrn.method.recipes import Recipe, get_recipe

OTHERS = ("wrn16_8", "dla34_cifar", "vgg16_bn")  # the report does not have these
# after Steiner et al., How to train your ViT? (arXiv 2106.10270): AdamW, warm-up, augmentation, more epochs
VIT_RECIPE = Recipe(
    epochs=200,
    optimizer="adamw",
    lr=1e-3,
    warmup=10,
    weight_decay=0.05,
    cutout=0,
    auto_augment="randaugment",
    mixing="mixup",
    patience=0,
)
CONFIGS = {
    **{model: (model, get_recipe("report", model)) for model in (*reported.NETWORKS, *OTHERS)},
    "vit_own_recipe": ("vit", VIT_RECIPE),
}
SEEDS = {"quick": 1, "full": 1}
CPU_EPOCHS = 2
SPLITS = ("train", "val", "test")  # in the order of the accuracies in reported.NETWORKS
POINT_AREA = 20  # square points; it grows by one per PARAMETERS_PER_AREA
PARAMETERS_PER_AREA = 1e5


def main():
    options = runner.parse(__doc__, TASK, "compare_models", SEEDS)
    runner.run_study(make_configs(options), options, write_results)


def make_configs(options):
    """Return the configurations, without CUDA for CPU_EPOCHS."""
    configs = CONFIGS
    if options.device != "cuda":
        short = dict(epochs=CPU_EPOCHS, warmup=0)
        configs = {name: (model, dataclasses.replace(recipe, **short)) for name, (model, recipe) in CONFIGS.items()}
    return runner.configure(configs, options)


def write_results(folder):
    """Write comparison.md and accuracy_cost.png from results.csv and run.json."""
    run_json = cli.read_json(folder / "run.json")
    scale, configs = run_json["scale"], run_json["configs"]
    rows = study_tables.read_result_rows(folder)
    accuracy = study_tables.values_per_config(rows, "test_accuracy")
    sizes = {name: study_tables.model_size(configs[name]["model"]) for name in configs if name in accuracy}
    plots.setup(scale=scale)

    note = (
        f"On {run_json['device']} in {run_json['precision']}, {len(run_json['seeds'])} seed(s). Training accuracy is"
        " that of the kept epoch's augmented batches. The report's training accuracy must be the same quantity, since"
        " its ViT's is below the validation accuracy. FLOPs are those of one image's forward pass."
    )
    if scale == "full" and any(recipe["epochs"] < Recipe.epochs for recipe in configs.values()):
        note += (
            f" **Shortened**: the report trains for {Recipe.epochs} epochs; compare these numbers with its own for"
            " orientation only."
        )
    page = [note, table(rows, sizes)]
    tables.write_markdown(folder / "comparison.md", "Project 3: the networks", page, scale)
    draw_accuracy_cost(folder / "accuracy_cost.png", accuracy, sizes)


def table(rows, sizes):
    """Return one row per configuration: the report's accuracies, ours and the costs."""
    accuracy = {split: study_tables.values_per_config(rows, f"{split}_accuracy") for split in SPLITS}
    seconds, epochs = (study_tables.values_per_config(rows, field) for field in ("seconds", "epochs"))
    result = []
    for config, (parameters, flops) in sizes.items():
        compared, values = {}, reported.NETWORKS.get(config)
        for position, split in enumerate(SPLITS):
            compared[f"report: {split}, %"] = f"{values[position]:.2f}" if values else ""
            compared[f"ours: {split}, %"] = tables.mean_std(accuracy[split][config])
        result.append(
            {
                "config": config,
                "epochs": tables.mean_std(epochs[config], 0),
                **compared,
                "parameters": f"{parameters:,}",
                "MFLOPs": f"{flops / 1e6:,.0f}",
                "s": tables.mean_std(seconds[config], 0),
            }
        )
    return result


def draw_accuracy_cost(path, accuracy, sizes):
    """Draw test accuracy against FLOPs: one point per configuration, its area growing with the parameters."""
    figure, axes = plots.plt.subplots(figsize=(9, 5.5), layout="constrained")
    for position, (config, (parameters, flops)) in enumerate(sizes.items()):
        x, y, color = flops / 1e6, accuracy[config].mean(), f"C{position % 10}"
        axes.errorbar(x, y, yerr=tables.std(accuracy[config]), capsize=3, color=color)
        axes.scatter(x, y, s=POINT_AREA + parameters / PARAMETERS_PER_AREA, alpha=0.5, color=color)
        axes.annotate(config, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="MFLOPs of a forward pass", ylabel="Test accuracy, %")
    axes.margins(0.15)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
