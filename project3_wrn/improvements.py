"""What chapter 3 of the report proposes, one change a row, over seeds, with its difference from the baseline.

    python project3_wrn/improvements.py [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N] [--lang en|zh] [--redraw]

On CUDA the baseline is ResNet-18 by the report's recipe; elsewhere it is fast_small, on the same 45,000 images, for the few epochs of
CPU_EPOCHS: a small budget, which the tables state. All rows are trained alike; nothing is chosen by the test set.
Writes to project3_wrn/outputs/improvements/: improvements.md, results.csv, improvements.png, run.json, runs/.
"""

import dataclasses
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables
from project3_wrn.method.recipes import SMALL, Recipe

CPU_EPOCHS = 3
CPU_EMA = 0.95  # over 20 of its 270 steps
BASES = {
    "cuda": ("resnet18", Recipe()),
    "cpu": ("fast_small", dataclasses.replace(SMALL, epochs=CPU_EPOCHS)),
}
CHANGES = {  # row: what it changes in the recipe, and the section that proposes it
    "baseline": ({}, ""),
    "mixup": ({"mixing": "mixup"}, "3.3"),
    "cutmix": ({"mixing": "cutmix"}, "3.3"),
    "autoaugment": ({"auto_augment": "autoaugment"}, "3.3"),
    "randaugment": ({"auto_augment": "randaugment"}, "3.3"),
    "trivialaugment": ({"auto_augment": "trivialaugment"}, "3.3"),
    "random_erasing": ({"random_erasing": True}, "3.3"),
    "focal_loss": ({"loss": "focal"}, "3.1, 3.4"),
    "hard_examples": ({"loss": "hardest"}, "3.1"),
    "class_weighted": ({"class_weighted_sampling": True}, "3.1"),
    "targeted_augmentation": ({"targeted_augmentation": True}, "3.1"),
    "contrastive": ({"loss": "contrastive"}, "3.4"),
    "no_label_smoothing": ({"label_smoothing": 0.0}, "3.4"),
    "ema": ({"ema": 0.998}, ""),  # looks back over 500 of the report's 17,600 steps
    "mirror": ({"tta_views": 2}, ""),
}
MODELS = {
    "squeeze_excitation": ("_se", "3.1"),
    "cbam": ("_cbam", "3.1"),
    "bilinear": ("_bilinear", "3.1"),
}  # endings of names
PAIRS = (("cat", "dog"), ("automobile", "truck"), ("bird", "deer"))  # section 3.1
SEEDS = {"quick": 1, "full": 3}


def make_configs(device):
    model, base = BASES["cuda" if device == "cuda" else "cpu"]
    rows = {row: (model, dataclasses.replace(base, **change)) for row, (change, _) in CHANGES.items()}
    if device != "cuda":
        rows["ema"] = (model, dataclasses.replace(base, ema=CPU_EMA))
    return rows | {row: (model + ending, base) for row, (ending, _) in MODELS.items()}


def main():
    from project3_wrn import runner

    runner.main(
        __doc__, TASK, "improvements", SEEDS, lambda options: make_configs(options.device), write_results, confusions
    )


def write_results(folder, options):
    from project3_wrn import runner

    run_json = cli.read_json(folder / "run.json")
    scale, base = run_json["scale"], run_json["configs"]["baseline"]
    plots.setup(options.lang, scale)
    measured = runner.read_results(folder)
    test, val = (runner.values_per_config(measured, f"{part}_accuracy") for part in ("test", "val"))
    seconds, compared = runner.values_per_config(measured, "seconds"), differences(measured)

    sections = {**{row: section for row, (_, section) in CHANGES.items()}, **{row: s for row, (_, s) in MODELS.items()}}
    rows = []
    for run in [run for run in run_json["configs"] if run in test]:
        row = {
            "row": run,
            "report's section": sections[run],
            "validation, %": tables.mean_std(val[run]),
            "test, %": tables.mean_std(test[run]),
        }
        mean, half = compared.get(run, (None, None))
        row["difference, points"] = (
            "" if run == "baseline" or mean is None else f"{mean:+.2f}" + (f" ± {half:.2f}" if half is not None else "")
        )
        rows.append(row | {"s": tables.mean_std(seconds[run], 0)})
    words = f"{base['model']}, {base['epochs']} epochs on {'45,000 images' if scale == 'full' else 'the sample'}, {len(run_json['seeds'])} seed(s), on {run_json['device']} in {run_json['precision']}. Difference in test accuracy from the baseline of the same seed; ± is half of the 95% confidence interval (Student's t over the seeds)."
    if scale == "full" and run_json["shortened"]:
        words += (
            f" **A small budget**: {base['epochs']} epochs, not the report's recipe; regularisers pay later than that."
        )
    words += " Seconds are of training; `contrastive` is not compiled on CUDA, and `mirror` measures twice."
    page = [
        words,
        rows,
        verdict(compared),
        "## What each change does to the confused pairs",
        "Test images of the one class taken for the other, both ways together; mean ± standard deviation over seeds (section 3.1).",
        pair_rows(measured),
    ]
    tables.write_markdown(folder / "improvements.md", "Project 3: what chapter 3 proposes", page, scale)
    draw(folder / "improvements.png", compared)


def differences(measured):
    """{run: (mean difference from the baseline of the same seed, half of its 95% confidence interval or None)}."""
    import numpy as np

    accuracy = {(entry["config"], entry["seed"]): entry["test_accuracy"] for entry in measured}
    compared = {}
    for run in dict.fromkeys(entry["config"] for entry in measured):
        pairs = [
            accuracy[run, seed] - accuracy["baseline", seed]
            for name, seed in accuracy
            if name == run and ("baseline", seed) in accuracy
        ]
        if run == "baseline" or not pairs:
            continue
        compared[run] = (float(np.mean(pairs)), tables.half_width(pairs))
    return compared


def verdict(compared):
    """Which rows differ from the baseline by more than chance: a sentence computed from the numbers."""
    sure = {run: mean for run, (mean, half) in compared.items() if half is not None and abs(mean) > half}
    if not compared:
        return "There is no finished run of the baseline to compare with."
    if not any(half is not None for _, half in compared.values()):
        return "One seed: nothing can be said of chance."
    named = lambda sign: (
        ", ".join(
            f"`{run}` ({mean:+.2f})"
            for run, mean in sorted(sure.items(), key=lambda item: -sign * item[1])
            if sign * mean > 0
        )
        or "none"
    )
    return f"Better than the baseline with 95% confidence: {named(1)}. Worse: {named(-1)}. With {len(compared)} rows, about one in twenty is expected to look so by chance."


def confusions(logits, labels):
    """Test images of the one class of a pair taken for the other, both ways, pair by pair and of all pairs together."""
    from common import data, evaluation

    matrix = evaluation.confusion_matrix(labels, logits.argmax(1))
    places = {pair: [data.CLASSES.index(name) for name in pair] for pair in PAIRS}
    counts = {"_".join(pair): int(matrix[one, other] + matrix[other, one]) for pair, (one, other) in places.items()}
    return counts | {"confusions": sum(counts.values())}


def pair_rows(measured):
    """One row a run, mean and standard deviation over its seeds."""
    from project3_wrn import runner

    counts = {" and ".join(pair): runner.values_per_config(measured, "_".join(pair)) for pair in PAIRS}
    runs = dict.fromkeys(entry["config"] for entry in measured)
    return [{"row": run} | {pair: tables.mean_std(of_run[run], 1) for pair, of_run in counts.items()} for run in runs]


def draw(path, compared):
    figure, axes = plots.plt.subplots(figsize=(9, 0.35 * len(compared) + 1.8), layout="constrained")
    order = sorted(compared, key=lambda run: compared[run][0])
    for place, run in enumerate(order):
        mean, half = compared[run]
        sure = half is not None and abs(mean) > half
        axes.errorbar(mean, place, xerr=half or 0, fmt="o", capsize=3, color="C0" if sure else "0.6")
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(order)), [run for run in order])
    axes.set(xlabel="Difference in test accuracy from the baseline (percentage points)")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
