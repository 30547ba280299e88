"""Project 3: which network is most accurate, and at what cost? (project 3's report, table 1.7)

    python project3_wrn/compare_models.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

All networks are trained by the report's recipe; the ViT, which fails with it, also by a recipe made for it. A network
that main.py has trained with the same settings is taken over. comparison.md compares with the best published results
too (section 2.8). Without CUDA, full scale means the few epochs of CPU_EPOCHS: a short run.
Writes to project3_wrn/outputs/compare_models/, a short run to outputs_short/compare_models/: comparison.md,
accuracy_cost.png, results.csv, run.json, runs/ (one file per run)
"""

import dataclasses
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, reported, tables
from project3_wrn import runner
from project3_wrn.analysis import study_tables
from project3_wrn.analysis.figures import HOLLOW
from project3_wrn.analysis.published import MARKS
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
POINT_AREA = 30  # square points; it grows by one per PARAMETERS_PER_AREA
PARAMETERS_PER_AREA = 1e5
MARKERS = "osD^vPX"  # as many as no other cycle has, so that color and marker together differ
TICKS = (10, 30, 50, 70, 80, 90, 93, 95, 96, 97, 98)  # test accuracies, on an axis of the logarithm of the error


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
    page = [
        *study_tables.stamp(run_json),
        note,
        table(rows, sizes),
        "## What the costs say (1.7)",
        remarks(accuracy, sizes),
        "## Compared with published results (2.8)",
        published_table(accuracy),
        published_note(),
    ]
    tables.write_markdown(folder / "comparison.md", "Project 3: the networks", page, scale)
    draw_accuracy_cost(folder / "accuracy_cost.png", accuracy, sizes, study_tables.facts(run_json))


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


def remarks(accuracy, sizes):
    """Return sentences on what section 1.7 says about the costs of its networks, as far as these are trained.

    accuracy: {configuration: values over its seeds}. sizes: {configuration: (parameters, FLOPs)}.
    """
    text = []
    if {"resnet18", "wrn16_8"} <= sizes.keys():
        (base, base_flops), (wide, wide_flops) = sizes["resnet18"], sizes["wrn16_8"]
        text.append(
            f"WRN-16-8 has {wide / 1e6:.2f} million parameters and {wide_flops / 1e9:.2f} GFLOPs, ResNet-18"
            f" {base / 1e6:.2f} million and {base_flops / 1e9:.2f}: {wide_flops / base_flops:.1f} times the work with"
            f" {wide / base:.2f} times the parameters. Its test accuracy is {above(accuracy, 'wrn16_8', 'resnet18')}."
        )
    for deeper in ("resnet34", "resnet50"):
        if {"resnet18", deeper} <= sizes.keys():
            text.append(
                f"{deeper} has {sizes[deeper][1] / sizes['resnet18'][1]:.1f} times the work of resnet18; its test"
                f" accuracy is {above(accuracy, deeper, 'resnet18')}."
            )
    if {"dla34", "dla34_cifar"} <= sizes.keys():
        text.append(
            "DLA-34 with the strides made for ImageNet has"
            f" {sizes['dla34'][1] / 1e6:,.0f} MFLOPs, with strides for 32x32 images"
            f" {sizes['dla34_cifar'][1] / 1e6:,.0f}; both aggregate their layers alike. The latter's test accuracy is"
            f" {above(accuracy, 'dla34_cifar', 'dla34')}."
        )
    if {"vit", "vit_own_recipe"} <= sizes.keys():
        text.append(
            "The ViT is trained without pre-training both times; by its own recipe its test accuracy is"
            f" {above(accuracy, 'vit_own_recipe', 'vit')} by the report's."
        )
    return "\n".join(f"- {line}" for line in text) or "none of the report's networks"


def above(accuracy, one, other):
    """Return "95.20%, 0.57 points below 95.77%" of the mean test accuracies of two configurations."""
    first, second = accuracy[one].mean(), accuracy[other].mean()
    return f"{first:.2f}%, {abs(first - second):.2f} points {'above' if first >= second else 'below'} {second:.2f}%"


def published_table(accuracy):
    """Return one row per published accuracy, with the report's and ours of the same network."""
    reported_accuracy = {config: values[SPLITS.index("test")] for config, values in reported.NETWORKS.items()}
    reported_accuracy["wrn16_8"] = reported.CHAPTER_2["test"]
    return [
        {
            "network": mark.network,
            "training": mark.training,
            "source": mark.source,
            "published, %": f"{mark.accuracy:.2f}",
            "the report, %": f"{reported_accuracy[mark.config]:.2f}" if mark.config in reported_accuracy else "",
            "ours, %": tables.mean_std(accuracy[mark.config]) if mark.config in accuracy else "",
        }
        for mark in MARKS
    ]


def published_note():
    """Return sentences on section 2.8, which compares its WRN-16-8 with the paper's WRN-28-10."""
    wrn16_8, wrn28_10 = (
        next(mark.accuracy for mark in MARKS if mark.config == name) for name in ("wrn16_8", "wrn28_10")
    )
    chapter_2, own = reported.CHAPTER_2["test"], reported.NETWORKS["wrn28_10"][SPLITS.index("test")]
    return (
        f"Section 2.8 compares its {chapter_2:.2f}% with the paper's WRN-28-10 ({wrn28_10:.2f}%) and explains the"
        f" {wrn28_10 - chapter_2:.2f} points by the size of the network. Of these, {wrn28_10 - wrn16_8:.2f} separate"
        f" the paper's own two sizes; {wrn16_8 - chapter_2:.2f} remain. Its own WRN-28-10 of table 1.7 reached"
        f" {own:.2f}%, {own - wrn28_10:.2f} more than the paper's. Published accuracies are of"
        " training on all 50,000 images."
    )


def draw_accuracy_cost(path, accuracy, sizes, facts=()):
    """Draw test accuracy against FLOPs: one point per configuration, its area growing with the parameters.

    The axis is logarithmic in the error, so that points between 95 and 97% stay apart. The report's numbers are hollow.
    """
    figure, axes = plots.plt.subplots(figsize=(10, 6), layout="constrained")
    for position, (config, (parameters, flops)) in enumerate(sizes.items()):
        x, y, color = flops / 1e6, 100 - accuracy[config].mean(), f"C{position % len(plots.COLORS)}"
        axes.errorbar(x, y, yerr=tables.std(accuracy[config]) or None, capsize=3, color=color)
        area, marker = POINT_AREA + parameters / PARAMETERS_PER_AREA, MARKERS[position % len(MARKERS)]
        axes.scatter(x, y, s=area, marker=marker, alpha=0.6, color=color)
        axes.plot([], [], marker, color=color, label=config)  # of one size in the legend
        if config in reported.NETWORKS:
            error = 100 - reported.NETWORKS[config][SPLITS.index("test")]
            axes.plot([x, x], [y, error], ":", color=color, linewidth=1)
            axes.plot(x, error, **HOLLOW, markeredgecolor=color)
    axes.plot([], [], **HOLLOW, markeredgecolor="black", label="The report")
    axes.set(xscale="log", yscale="log", xlabel="MFLOPs of a forward pass", ylabel="Test accuracy, %")
    axes.margins(0.12)
    low, high = axes.get_ylim()
    ticks = [tick for tick in TICKS if low <= 100 - tick <= high]
    axes.set_yticks([100 - tick for tick in ticks], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    plots.about(figure, "Test accuracy and cost of each network", *facts, "the area grows with the parameters")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
