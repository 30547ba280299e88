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

from common.support import signals

signals.answer_while_importing(__name__)

from common import cli, plots, reported, tables
from common.support.translations import label, text
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
# in the order of the accuracies in reported.NETWORKS
SPLITS = {"train": "training", "val": "validation", "test": "test"}
POINT_AREA = 30  # square points; it grows by one per PARAMETERS_PER_AREA
PARAMETERS_PER_AREA = 1e5
FIGURE = "Test accuracy and cost of each network"
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

    page = [
        *study_tables.stamp(run_json),
        finding(accuracy, sizes),
        tables.figure("accuracy_cost.png", FIGURE, caption(accuracy, sizes, len(run_json["seeds"]))),
        text("## The networks (1.7)"),
        note(run_json),
        table(rows, sizes),
        *remarks(accuracy, sizes),
        text("## Compared with published results (2.8)"),
        published_table(accuracy),
        published_note(),
    ]
    tables.write_markdown(folder / "comparison.md", text("Project 3: the networks"), page, scale)
    draw_accuracy_cost(folder / "accuracy_cost.png", accuracy, sizes, study_tables.facts(run_json))


def finding(accuracy, sizes):
    """Return the sentences on the most accurate network, its cost, and the report's most accurate one.

    accuracy: {configuration: values over its seeds}. sizes: {configuration: (parameters, FLOPs)}.
    """
    best = max(accuracy, key=lambda config: accuracy[config].mean())
    theirs = max(reported.NETWORKS, key=lambda config: reported.NETWORKS[config][-1])
    return tables.paragraph(
        text(
            "**Of {count} configurations, {best} has the highest test accuracy, {accuracy}%.**",
            count=len(accuracy),
            best=label(best),
            accuracy=tables.mean_std(accuracy[best]),
        ),
        text(
            "It has {parameters:,} parameters, and its forward pass takes {flops:,.0f} MFLOPs.",
            parameters=sizes[best][0],
            flops=sizes[best][1] / 1e6,
        ),
        text(
            "In the report, {network} has the highest test accuracy, {value:.2f}%.",
            network=label(theirs),
            value=reported.NETWORKS[theirs][-1],
        ),
    )


def caption(accuracy, sizes, seeds):
    """Return the sentence on the cheapest and the most accurate configuration of the figure."""
    best = max(accuracy, key=lambda config: accuracy[config].mean())
    cheapest = min(sizes, key=lambda config: sizes[config][1])
    return text(
        "{best} is both the most accurate and the cheapest configuration; bars are one standard deviation ({seeds}),"
        " and the hollow marks are the report's numbers."
        if best == cheapest
        else "{best} is the most accurate configuration, {points:.2f} points above the cheapest, {cheapest}, at"
        " {times:.1f} times its work; bars are one standard deviation ({seeds}), and the hollow marks are the report's"
        " numbers.",
        best=label(best),
        cheapest=label(cheapest),
        times=sizes[best][1] / sizes[cheapest][1],
        points=accuracy[best].mean() - accuracy[cheapest].mean(),
        seeds=label(plots.count(seeds, "seed")),
    )


def note(run_json):
    """Return the sentences on what was trained on what, and on the columns of the table."""
    return tables.paragraph(
        text(
            "The networks were trained on {device} in {precision}, with {seeds}.",
            device=run_json["device"],
            precision=run_json["precision"],
            seeds=label(plots.count(len(run_json["seeds"]), "seed")),
        ),
        text(
            "Training accuracy is that of the kept epoch's augmented batches. The report's must be the same quantity,"
            " since that of its ViT is below the validation accuracy. FLOPs are those of one image's forward pass."
        ),
    )


def table(rows, sizes):
    """Return one row per configuration: the report's accuracies, ours and the costs."""
    accuracy = {split: study_tables.values_per_config(rows, f"{split}_accuracy") for split in SPLITS}
    seconds, epochs = (study_tables.values_per_config(rows, field) for field in ("seconds", "epochs"))
    result = []
    for config, (parameters, flops) in sizes.items():
        compared, values = {}, reported.NETWORKS.get(config)
        for position, (split, name) in enumerate(SPLITS.items()):
            compared[f"report: {name}, %"] = f"{values[position]:.2f}" if values else tables.DASH
            compared[f"ours: {name}, %"] = tables.mean_std(accuracy[split][config])
        result.append(
            {
                "configuration": config,
                "epochs of training": tables.mean_std(epochs[config], 0),
                **compared,
                "parameters": f"{parameters:,}",
                "MFLOPs": f"{flops / 1e6:,.0f}",
                "training, s": tables.mean_std(seconds[config], 0),
            }
        )
    return result


def remarks(accuracy, sizes):
    """Return, as a list, what section 1.7 says about the costs of its networks, as far as these are trained.

    accuracy: {configuration: values over its seeds}. sizes: {configuration: (parameters, FLOPs)}.
    """
    lines = []
    if {"resnet18", "wrn16_8"} <= sizes.keys():
        (base, base_flops), (wide, wide_flops) = sizes["resnet18"], sizes["wrn16_8"]
        work = text(
            "{wide} has {wide_size:.2f} million parameters and {wide_work:.2f} GFLOPs, {base} has {base_size:.2f}"
            " million and {base_work:.2f}: this is {times:.1f} times the work with {share:.2f} times the parameters.",
            wide=label("wrn16_8"),
            wide_size=wide / 1e6,
            wide_work=wide_flops / 1e9,
            base=label("resnet18"),
            base_size=base / 1e6,
            base_work=base_flops / 1e9,
            times=wide_flops / base_flops,
            share=wide / base,
        )
        lines.append(tables.paragraph(work, compare(accuracy, "wrn16_8", "resnet18")))
    for deeper in ("resnet34", "resnet50"):
        if {"resnet18", deeper} <= sizes.keys():
            work = text(
                "{deeper} costs {times:.1f} times the work of {base}.",
                deeper=label(deeper),
                times=sizes[deeper][1] / sizes["resnet18"][1],
                base=label("resnet18"),
            )
            lines.append(tables.paragraph(work, compare(accuracy, deeper, "resnet18")))
    if {"dla34", "dla34_cifar"} <= sizes.keys():
        work = text(
            "With the strides made for ImageNet, {network} costs {few:,.0f} MFLOPs, and with strides for images of"
            " 32×32 pixels {many:,.0f}. Both aggregate their layers alike.",
            network=label("dla34"),
            few=sizes["dla34"][1] / 1e6,
            many=sizes["dla34_cifar"][1] / 1e6,
        )
        lines.append(tables.paragraph(work, compare(accuracy, "dla34_cifar", "dla34")))
    if {"vit", "vit_own_recipe"} <= sizes.keys():
        work = text("The ViT is trained without pre-training by both recipes.")
        lines.append(tables.paragraph(work, compare(accuracy, "vit_own_recipe", "vit")))
    return [study_tables.bullets(lines)] if lines else []


def compare(accuracy, one, other):
    """Return a sentence that compares the mean test accuracies of two configurations."""
    first, second = accuracy[one].mean(), accuracy[other].mean()
    return text(
        "The test accuracy of {one} is {first:.2f}%, {points:.2f} points above the {second:.2f}% of {other}."
        if first >= second
        else "The test accuracy of {one} is {first:.2f}%, {points:.2f} points below the {second:.2f}% of {other}.",
        one=label(one),
        first=first,
        points=abs(first - second),
        second=second,
        other=label(other),
    )


def published_table(accuracy):
    """Return one row per published accuracy, with the report's and ours of the same network."""
    reported_accuracy = {config: values[-1] for config, values in reported.NETWORKS.items()}
    reported_accuracy["wrn16_8"] = reported.CHAPTER_2["test"]
    return [
        {
            "network": mark.network,
            "how it was trained": mark.training,
            "source": mark.source,
            "published, %": f"{mark.accuracy:.2f}",
            "report, %": f"{reported_accuracy[mark.config]:.2f}" if mark.config in reported_accuracy else tables.DASH,
            "ours, %": tables.mean_std(accuracy[mark.config]) if mark.config in accuracy else tables.DASH,
        }
        for mark in MARKS
    ]


def published_note():
    """Return sentences on section 2.8, which compares its WRN-16-8 with the paper's WRN-28-10."""
    small, large = (next(mark.accuracy for mark in MARKS if mark.config == name) for name in ("wrn16_8", "wrn28_10"))
    chapter_2, own = reported.CHAPTER_2["test"], reported.NETWORKS["wrn28_10"][-1]
    return text(
        "Section 2.8 compares its {chapter_2:.2f}% with the {large:.2f}% of the paper's WRN-28-10 and explains the"
        " {difference:.2f} points by the size of the network. The paper's own two sizes are {sizes:.2f} points apart,"
        " so {rest:.2f} points remain. The report's own WRN-28-10 of table 1.7 reached {own:.2f}%, {more:.2f} points"
        " more than the paper's. Published accuracies are those of trainings on all {images:,} images.",
        chapter_2=chapter_2,
        large=large,
        difference=large - chapter_2,
        sizes=large - small,
        rest=small - chapter_2,
        own=own,
        more=own - large,
        images=50_000,
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
            error = 100 - reported.NETWORKS[config][-1]
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
    plots.about(figure, FIGURE, *facts, "the area grows with the parameters")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
