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

import numpy as np

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, data, evaluation, plots, tables
from common.reported import CONFUSED_PAIRS
from common.support import plan
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
        introduction(run_json),
        table(rows, compared),
        verdict(compared),
        *not_run(run_json["configs"]),
        "## What each change does to the confused pairs",
        "Test images of either class predicted as the other; mean ± standard deviation over seeds (section 3.1).",
        pair_table(rows),
    ]
    tables.write_markdown(folder / "improvements.md", "Project 3: what chapter 3 proposes", page, scale)
    draw_differences(folder / "improvements.png", compared, study_tables.facts(run_json))


def introduction(run_json):
    """Return the sentences on what was trained and how it is compared."""
    scale, baseline = run_json["scale"], run_json["configs"]["baseline"]
    train_images, _, _ = plan.image_counts(scale, baseline["validation_split"])
    images = f"{train_images:,} images" if scale == "full" else "the sample"
    budget = ""
    if scale == "full" and run_json["shortened"]:
        budget = " Regularization pays off in longer trainings."
    return (
        f"{baseline['model']}, {baseline['epochs']} epochs on {images}, {len(run_json['seeds'])} seed(s), on"
        f" {run_json['device']} in {run_json['precision']}. The difference is in test accuracy, from the baseline of"
        f" the same seed; ± is half of the 95% confidence interval (Student's t over the seeds).{budget} Seconds are"
        " those of training; `contrastive` is not compiled on CUDA, and `mirror` evaluates every image twice."
    )


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
        interval = "" if half is None else f" ± {half:.2f}"
        baseline = {"compared with": baseline_of(config, test) if config in compared else ""} if several else {}
        result.append(
            {
                "config": config,
                "report's section": SECTIONS[config],
                **baseline,
                "validation, %": tables.mean_std(val[config]),
                "test, %": tables.mean_std(test[config]),
                "difference, points": "" if mean is None else f"{mean:+.2f}{interval}",
                "s": tables.mean_std(seconds[config], 0),
            }
        )
    return result


def verdict(compared):
    """Return sentences on which configurations differ from the baseline by more than chance."""
    if not compared:
        return "There is no finished run of the baseline to compare with."
    if all(half is None for _, half in compared.values()):
        return "With one seed, nothing can be said about chance."
    significant = {name: mean for name, (mean, half) in compared.items() if judgement(mean, half) != UNDECIDED}

    def listed(names):
        return ", ".join(f"`{name}` ({significant[name]:+.2f})" for name in names) or "none"

    better = sorted((name for name in significant if significant[name] > 0), key=lambda name: -significant[name])
    worse = sorted((name for name in significant if significant[name] < 0), key=significant.get)
    return (
        f"Better than the baseline with 95% confidence: {listed(better)}. Worse: {listed(worse)}. Of {len(compared)}"
        " comparisons, about one in twenty is expected to look so by chance."
    )


def not_run(configs):
    """Return a list of one sentence on the configurations that are not among `configs`, or of none."""
    missing = [name for name in (*CHANGES, *ARCHITECTURES) if name not in configs]
    if not missing:
        return []
    names = ", ".join(f"`{name}`" for name in missing)
    reason = " Dropout is not changed on a CPU: the networks that have it are too slow or too small for this study."
    dropout = any(name in CHANGES and CHANGES[name].needs == "dropout" for name in missing)
    return [f"Not run: {names}.{reason if dropout else ''}"]


def pair_table(rows):
    """Return one row per configuration: its confusions of each pair, mean and standard deviation over its seeds."""
    counts = {" and ".join(pair): study_tables.values_per_config(rows, "_".join(pair)) for pair in CONFUSED_PAIRS}
    configs = dict.fromkeys(row["config"] for row in rows)
    return [
        {"config": config, **{pair: tables.mean_std(values[config], 1) for pair, values in counts.items()}}
        for config in configs
    ]


def draw_differences(path, compared, facts):
    """Draw the differences from the baseline with their intervals; color and marker say what is more than chance.

    Each name has the section of the report that proposes it.
    """
    figure, axes = plots.plt.subplots(figsize=(9, 0.35 * len(compared) + 2.4), layout="constrained")
    order = sorted(compared, key=lambda config: compared[config][0])
    for label, (color, marker) in LOOKS.items():
        rows = [row for row, config in enumerate(order) if judgement(*compared[config]) == label]
        means = [compared[order[row]][0] for row in rows]
        halves = [compared[order[row]][1] or 0 for row in rows]
        axes.errorbar(means, rows, xerr=halves, fmt=marker, capsize=3, color=color, label=label)
    axes.axvline(0, color="black", linewidth=1)
    sections = [f" ({SECTIONS[config]})" if SECTIONS[config] else "" for config in order]
    axes.set_yticks(range(len(order)), [config + section for config, section in zip(order, sections)])
    axes.set(xlabel="Difference in test accuracy from the baseline (percentage points)")
    plots.legend(figure)
    note = "mean and 95% interval of the difference seed by seed"
    plots.about(figure, "What chapter 3 proposes, compared with the baseline", *facts, note)
    plots.save(figure, path)


def judgement(mean, half):
    """Return the key of LOOKS for a difference and half of its interval, which is None with one seed."""
    if half is None or abs(mean) <= half:
        return UNDECIDED
    return "Better than the baseline" if mean > 0 else "Worse than the baseline"


if __name__ == "__main__":
    cli.entry_point(main)
