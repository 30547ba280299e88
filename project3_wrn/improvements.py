"""Project 3: what do the changes that the report proposes gain? (project 3's report, chapter 3)

    python project3_wrn/improvements.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Each configuration makes one change to a baseline, and its accuracy is compared with the baseline's of the same seed.
On CUDA the baseline is ResNet-18 by the report's recipe; elsewhere it is fast_small, on the same 45,000 images, for the
few epochs of CPU_EPOCHS: a short run. Nothing is selected by the test set.
Dropout is changed in Wide ResNet-16-8, as ResNet-18 has none; and elsewhere, changes of what only the report's recipe
has are made to fast_small by that recipe, for as few epochs. `soft_labels` needs what label_audit.py writes.
What differs at test time only, `mirror`, is trained once with the baseline; `ema` is a training of its own, as its
epoch is chosen by the average's accuracy.
Writes to project3_wrn/outputs/improvements/, a short run to outputs_short/improvements/: improvements.md,
improvements.png, results.csv, run.json, runs/ (one file per run)
"""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import NamedTuple

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np

from common import cli, data, evaluation, plots, tables
from common.reported import CONFUSED_PAIRS
from common.support import plan
from common.support.translations import Text, label, text
from project3_wrn import result_files, runner
from project3_wrn.analysis import study_tables
from project3_wrn.method.recipes import SMALL, Recipe


class Change(NamedTuple):
    """What one configuration changes in a recipe, and the section of the report that proposes or states it.

    needs: "report" of what only the report's recipe has, "dropout" of what only a network with dropout has. Such a
    configuration is compared with baseline_<needs>, where the device has one, and the others with "baseline".
    """

    recipe: dict
    section: str = ""
    needs: str = ""


CPU_EPOCHS = 3
CPU_EMA = 0.95  # it averages over 20 of the 270 steps
BASELINES = {
    "cuda": {"baseline": ("resnet18", Recipe()), "baseline_dropout": ("wrn16_8", Recipe())},
    # fast_small's own recipe has neither the report's optimizer nor its schedule, weight decay and Cutout
    "cpu": {
        "baseline": ("fast_small", dataclasses.replace(SMALL, epochs=CPU_EPOCHS)),
        "baseline_report": ("fast_small", Recipe(epochs=CPU_EPOCHS, patience=0)),
    },
}
CHANGES = {
    # what the report's own recipe consists of
    "no_crop": Change(dict(crop=0), "1.2", "report"),
    "no_flip": Change(dict(flip=False), "1.2", "report"),
    "no_cutout": Change(dict(cutout=0), "1.2", "report"),
    "no_dropout": Change(dict(dropout=0.0), "1.2", "dropout"),
    "weight_decay_0.0005": Change(dict(weight_decay=5e-4), "1.2, 1.3", "report"),
    "adam": Change(dict(optimizer="adam", lr=1e-3), "1.3", "report"),  # at Adam's usual learning rate
    "step_schedule": Change(dict(schedule="step"), "1.5", "report"),
    "multistep_schedule": Change(dict(schedule="multistep"), "1.5", "report"),
    # what it proposes
    "soft_labels": Change(dict(soft_labels=0.5), "2.6"),
    "multi_label": Change(dict(loss="multi_label"), "2.6"),
    "strong_dropout": Change(dict(dropout=0.5), "2.7", "dropout"),
    "strong_weight_decay": Change(dict(weight_decay=2e-3), "1.2, 2.7", "report"),
    "mixup": Change(dict(mixing="mixup"), "3.3"),
    "cutmix": Change(dict(mixing="cutmix"), "3.3"),
    "autoaugment": Change(dict(auto_augment="autoaugment"), "3.3"),
    "randaugment": Change(dict(auto_augment="randaugment"), "3.3"),
    "trivialaugment": Change(dict(auto_augment="trivialaugment"), "3.3"),
    "random_erasing": Change(dict(random_erasing=True), "3.3"),
    "focal_loss": Change(dict(loss="focal"), "3.1, 3.4"),
    "hard_examples": Change(dict(loss="ohem"), "3.1"),
    "class_weighted": Change(dict(class_weighted_sampling=True), "3.1"),
    "targeted_augmentation": Change(dict(targeted_augmentation=True), "3.1"),
    "contrastive": Change(dict(loss="contrastive"), "3.4"),
    "no_label_smoothing": Change(dict(label_smoothing=0.0), "3.4"),
    "ema": Change(dict(ema=0.998)),  # it averages over 500 of the report's 17,600 steps
    "mirror": Change(dict(tta_views=2)),
}
# each has the ending of the model's name, and the section
ARCHITECTURES = {
    "squeeze_excitation": ("_se", "3.1"),
    "spatial_attention": ("_spatial", "3.1"),
    "cbam": ("_cbam", "3.1"),
    "bilinear": ("_bilinear", "3.1"),
    "local_parts": ("_parts", "3.1"),
}
SECTIONS = {
    **{name: "" for baselines in BASELINES.values() for name in baselines},
    **{name: change.section for name, change in CHANGES.items()},
    **{name: section for name, (_, section) in ARCHITECTURES.items()},
}
SEEDS = {"quick": 1, "full": 3}
FIGURE = "What chapter 3 proposes, compared with the baseline"
UNDECIDED = "Not distinguishable from it"
# color and marker of a difference in the figure
LOOKS = {"Better than the baseline": ("C2", "^"), "Worse than the baseline": ("C3", "v"), UNDECIDED: ("C7", "o")}


def main():
    options = runner.parse(__doc__, TASK, "improvements", SEEDS)
    configs = runner.configure(make_configs(options.device), options)
    save = functools.partial(result_files.save_study, more_columns=pair_confusions)
    runner.run_study(configs, options, write_results, save=save)


def make_configs(device):
    """Return the baselines, every change of a recipe, and every change of the network.

    A change that needs dropout is left out on a CPU: networks that have it are too slow or too small for it there.
    """
    baselines = BASELINES["cuda" if device == "cuda" else "cpu"]
    configs = dict(baselines)
    for name, change in CHANGES.items():
        if change.needs == "dropout" and "baseline_dropout" not in baselines:
            continue
        model, recipe = baselines[baseline_of(name, baselines)]
        configs[name] = (model, dataclasses.replace(recipe, **change.recipe))
    model, recipe = baselines["baseline"]
    if device != "cuda":
        configs["ema"] = (model, dataclasses.replace(recipe, ema=CPU_EMA))
    return {**configs, **{name: (model + ending, recipe) for name, (ending, _) in ARCHITECTURES.items()}}


def baseline_of(config, configs):
    """Return which of `configs` this one is compared with."""
    own = f"baseline_{CHANGES[config].needs}" if config in CHANGES else ""
    return own if own in configs else "baseline"


def pair_confusions(logits, labels):
    """Return {pair: test images of either class predicted as the other}, and their sum over the pairs."""
    matrix = evaluation.confusion_matrix(labels, logits.argmax(1))
    counts = {}
    for pair in CONFUSED_PAIRS:
        one, other = (data.CLASSES.index(name) for name in pair)
        counts["_".join(pair)] = int(matrix[one, other] + matrix[other, one])
    return {**counts, "confusions": sum(counts.values())}


def write_results(folder):
    """Write improvements.md and improvements.png from results.csv and run.json."""
    run_json = cli.read_json(folder / "run.json")
    scale, rows = run_json["scale"], study_tables.read_result_rows(folder)
    compared = differences(rows)
    plots.setup(scale=scale)
    page = [
        *study_tables.stamp(run_json),
        finding(compared, len(run_json["seeds"])),
        tables.figure("improvements.png", FIGURE, caption(compared, len(run_json["seeds"]))),
        text("## All changes"),
        introduction(run_json),
        table(rows, compared),
        *verdict(compared),
        *not_run(run_json["configs"]),
        text("## What each change does to the confused pairs (3.1)"),
        text(
            "The table counts the test images of either class that are predicted as the other one, as mean ± standard"
            " deviation over the seeds."
        ),
        pair_table(rows),
    ]
    tables.write_markdown(folder / "improvements.md", text("Project 3: what chapter 3 proposes"), page, scale)
    draw_differences(folder / "improvements.png", compared, study_tables.facts(run_json))


def finding(compared, seeds):
    """Return the sentences on how many changes gain and lose more than chance explains, and which do most."""
    if not compared:
        return text("**There is no finished run of the baseline to compare with.**")
    better, worse = beyond_chance(compared)
    if seeds == 1:
        first = text("**With {seeds} seed, no difference can be told from chance.**", seeds=seeds)
    else:
        first = text(
            "**The test accuracy rises by more than chance explains with {better} of {count} changes, and falls with"
            " {worse} ({seeds} seeds).**",
            count=len(compared),
            better=len(better),
            worse=len(worse),
            seeds=seeds,
        )
    best, worst = max(compared, key=lambda name: compared[name][0]), min(compared, key=lambda name: compared[name][0])
    extremes = text(
        "The highest mean difference from the baseline is that of {best} ({gain} points), and the lowest that of"
        " {worst} ({loss} points).",
        best=label(best),
        gain=tables.signed(compared[best][0]),
        worst=label(worst),
        loss=tables.signed(compared[worst][0]),
    )
    return tables.paragraph(first, extremes)


def beyond_chance(compared):
    """Return (configurations above the baseline, those below it), the largest difference first.

    Their 95% interval excludes 0.
    """
    significant = [name for name in compared if judgement(*compared[name]) != UNDECIDED]
    significant.sort(key=lambda name: -abs(compared[name][0]))
    better = [name for name in significant if compared[name][0] > 0]
    return better, [name for name in significant if name not in better]


def caption(compared, seeds):
    """Return the sentence on what the intervals of the figure are and how many of them exclude 0."""
    decided = sum(map(len, beyond_chance(compared)))
    return text(
        "{undecided} of {count} changes cannot be told from the baseline; the bars are 95% confidence intervals of the"
        " difference seed by seed ({seeds})."
        if seeds > 1
        else "Without a second seed the {count} differences have no interval ({seeds}).",
        undecided=len(compared) - decided,
        count=len(compared),
        seeds=label(plots.count(seeds, "seed")),
    )


def introduction(run_json):
    """Return the sentences on what was trained and how it is compared."""
    scale, baseline = run_json["scale"], run_json["configs"]["baseline"]
    values = {
        "model": label(baseline["model"]),
        "epochs": label(plots.count(baseline["epochs"], "epoch")),
        "images": plan.image_counts(scale, baseline["validation_split"])[0],
        "seeds": label(plots.count(len(run_json["seeds"]), "seed")),
        "device": run_json["device"],
        "precision": run_json["precision"],
    }
    sentences = [
        text(
            "The network of the baseline ({model}) was trained for {epochs} on {images:,} images with {seeds}, on"
            " {device} in {precision}.",
            **values,
        ),
        text(
            "Each difference is in test accuracy, from the baseline of the same seed; ± is half of its 95% confidence"
            " interval by Student's t. In the other columns ± is the standard deviation over the seeds."
        ),
        text("The contrastive loss is not compiled on CUDA, and mirroring evaluates every test image twice."),
    ]
    if scale == "full" and run_json["shortened"]:
        sentences.append(text("Regularization pays off in longer trainings than these."))
    return tables.paragraph(*sentences)


def differences(rows):
    """Return {configuration: (mean difference from its baseline of the same seed, half of its 95% interval or None)}.

    rows: those of results.csv. Differences are in percentage points of test accuracy.
    """
    accuracy = {(row["config"], row["seed"]): row["test_accuracy"] for row in rows}
    configs, compared = dict.fromkeys(row["config"] for row in rows), {}
    for config in configs:
        baseline = baseline_of(config, configs)
        pairs = [
            value - accuracy[baseline, seed]
            for (name, seed), value in accuracy.items()
            if name == config and (baseline, seed) in accuracy
        ]
        if not config.startswith("baseline") and pairs:
            compared[config] = (float(np.mean(pairs)), tables.half_width(pairs))
    return compared


def table(rows, compared):
    """Return one row per configuration: its accuracies, its difference from its baseline and its seconds."""
    val, test, seconds = (
        study_tables.values_per_config(rows, field) for field in ("val_accuracy", "test_accuracy", "seconds")
    )
    result, several = [], sum(config.startswith("baseline") for config in test) > 1
    for config in test:
        mean, half = compared.get(config, (None, None))
        interval = f" ± {half:.2f}" if half and round(half, 2) else ""
        other = label(baseline_of(config, test)) if config in compared else tables.DASH
        result.append(
            {
                "configuration": config,
                "report's section": SECTIONS[config] or tables.DASH,
                **({"compared with": other} if several else {}),
                "validation, %": tables.mean_std(val[config]),
                "test, %": tables.mean_std(test[config]),
                "difference, points": tables.DASH if mean is None else f"{tables.signed(mean)}{interval}",
                "training, s": tables.mean_std(seconds[config], 0),
            }
        )
    return result


def verdict(compared):
    """Return, as a list, the sentences on which configurations differ from the baseline by more than chance."""
    better, worse = beyond_chance(compared)
    sentences = []
    if better:
        names = with_difference(better, compared)
        sentences.append(text("These changes are better than the baseline with 95% confidence: {names}.", names=names))
    if worse:
        names = with_difference(worse, compared)
        sentences.append(text("These changes are worse than the baseline with 95% confidence: {names}.", names=names))
    if sentences:
        count = len(compared)
        sentences.append(
            text(
                "Of {count} comparisons, about {expected:.0f} (5%) would look so by chance.",
                count=count,
                expected=0.05 * count,
            )
        )
    return [tables.paragraph(*sentences)] if sentences else []


def with_difference(names, compared):
    """Return configurations as a sentence lists them, each with its difference from the baseline."""
    shown = [(label(name), tables.signed(compared[name][0])) for name in names]
    return tables.list_texts([Text(f"{name.en} ({mean})", f"{name.zh}（{mean}）") for name, mean in shown])


def not_run(configs):
    """Return, as a list, the sentences on the configurations that are not among `configs`; empty where all are."""
    missing = [name for name in (*CHANGES, *ARCHITECTURES) if name not in configs]
    if not missing:
        return []
    sentences = [text("Not run: {names}.", names=tables.list_texts([label(name) for name in missing]))]
    if any(name in CHANGES and CHANGES[name].needs == "dropout" for name in missing):
        sentences.append(
            text("Dropout is not changed on a CPU: the networks that have it are too slow or too small for this study.")
        )
    return [tables.paragraph(*sentences)]


def pair_table(rows):
    """Return one row per configuration: its confusions of each pair, mean and standard deviation over its seeds."""
    counts = {"–".join(pair): study_tables.values_per_config(rows, "_".join(pair)) for pair in CONFUSED_PAIRS}
    configs = dict.fromkeys(row["config"] for row in rows)
    return [
        {"configuration": config, **{pair: tables.mean_std(values[config], 1) for pair, values in counts.items()}}
        for config in configs
    ]


def draw_differences(path, compared, facts):
    """Draw the differences from the baseline with their intervals; color and marker say what is more than chance.

    Each name has the section of the report that proposes it.
    """
    figure, axes = plots.plt.subplots(figsize=(9, 0.35 * len(compared) + 2.4), layout="constrained")
    order = sorted(compared, key=lambda config: compared[config][0])
    for name, (color, marker) in LOOKS.items():
        rows = [row for row, config in enumerate(order) if judgement(*compared[config]) == name]
        means = [compared[order[row]][0] for row in rows]
        halves = [compared[order[row]][1] or 0 for row in rows]
        axes.errorbar(means, rows, xerr=halves, fmt=marker, capsize=3, color=color, label=name)
    axes.axvline(0, color="black", linewidth=1)
    sections = [f" ({SECTIONS[config]})" if SECTIONS[config] else "" for config in order]
    axes.set_yticks(range(len(order)), [config + section for config, section in zip(order, sections)])
    axes.set(xlabel="Difference in test accuracy from the baseline (percentage points)")
    plots.legend(figure)
    note = "mean and 95% interval of the difference seed by seed"
    plots.about(figure, FIGURE, *facts, note)
    plots.save(figure, path)


def judgement(mean, half):
    """Return the key of LOOKS for a difference and half of its interval, which is None with one seed."""
    if half is None or abs(mean) <= half:
        return UNDECIDED
    return "Better than the baseline" if mean > 0 else "Worse than the baseline"


if __name__ == "__main__":
    cli.entry_point(main)
