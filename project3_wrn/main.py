"""Project 3: train one network and analyze it, from data to Grad-CAM (project 3's report, chapters 1 and 2).

    python project3_wrn/main.py [--model NAME] [--recipe NAME] [--scale quick|full] [--device cpu|cuda|mps] [--plan]
    torchrun --nproc_per_node=N project3_wrn/main.py ...        data-parallel

The default is the report's ResNet-18 by its recipe on CUDA, and elsewhere fast94, a network and recipe made for speed.
The report's recipe trains on 45,000 images, keeps the best epoch on the other 5,000 and evaluates the test set once.
--patience 0 trains all epochs and still keeps the best one; the outputs say where the report's patience of 15 would
have stopped. The fast recipes select nothing, so they train on all 50,000. Every field of a recipe is a flag.
Writes to project3_wrn/outputs/<model>/:
    metrics.json, performance.md    all seeds
    training_history.json, classification_report.csv, calibration.csv, confusion_matrix.csv, top_confusion_pairs.csv,
    training_curves.png, per_class_accuracy.png, confidence.png, confusion_matrix.png, top_confusion_pairs.png,
    misclassified_samples.png, gradcam_visualization.png    the first seed; per class and pair, all seeds
    loss_history.npz, logits.npz, weights-<seed>.pt, run.json, runs/    what these are made from
"""

import functools
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import torch

from common import cli, data, plots, tables
from common.support.translations import label, text
from project3_wrn import options, result_files, runner
from project3_wrn.analysis import figures, performance, result_tables, study_tables


def main():
    args = options.parse(__doc__, TASK)
    write = functools.partial(write_results, data_folder=args.data, gradcam_layer=args.gradcam_layer)
    configs = {args.model: (args.model, args.recipe)}
    runner.run_study(configs, args, write, save=result_files.save_network, save_weights=True)


def write_results(folder, data_folder=None, gradcam_layer=None):
    """Write chapter 2: every table and figure, from the saved metrics, histories, logits and weights."""
    run_json, metrics = cli.read_json(folder / "run.json"), cli.read_json(folder / "metrics.json", list)
    model, scale, recipe = run_json["model"], run_json["scale"], run_json["recipe"]
    seed = metrics[0]["seed"]  # figures show the first seed; tables with a ± are over all
    histories = [*tables.load_histories(folder / "loss_history.npz", [model]).values()]
    saved = tables.load_arrays(folder / "logits.npz")
    all_logits = torch.stack([torch.from_numpy(saved[f"{entry['seed']}/test"]) for entry in metrics])
    all_predictions, labels = all_logits.argmax(-1), torch.from_numpy(saved["test_labels"])
    history, logits, predictions = histories[0], all_logits[0], all_predictions[0]
    epochs = metrics[0]["epochs"]
    one = study_tables.run_facts(model, f"seed {seed}", epochs, scale)
    several = study_tables.run_facts(model, len(metrics), epochs, scale)
    by_logits = (*one, *figures.logit_facts(recipe))
    plots.setup(scale=scale)

    # 2.1 training
    cli.write_json(folder / "training_history.json", result_tables.training_history(history, recipe["lr"]))
    floor = result_tables.smoothing_floor(recipe)
    figures.draw_training_curves(folder / "training_curves.png", history, metrics[0], recipe["lr"], one, floor)

    # 2.2 and 2.3 accuracy by class, and confidence
    tables.write_csv(folder / "classification_report.csv", result_tables.class_rows(labels, predictions))
    tables.write_csv(folder / "calibration.csv", result_tables.calibration_rows(logits, labels))
    figures.draw_class_accuracy(folder / "per_class_accuracy.png", labels, all_predictions, several)
    figures.draw_confidence(folder / "confidence.png", logits, labels, by_logits)

    # 2.4 confusions and the most confident errors; 2.6 known label errors among these are red
    tables.write_csv(folder / "confusion_matrix.csv", result_tables.confusion_rows(labels, predictions))
    tables.write_csv(folder / "top_confusion_pairs.csv", result_tables.pair_rows(labels, predictions))
    figures.draw_confusion_matrix(folder / "confusion_matrix.png", labels, predictions, one)
    figures.draw_top_confusions(folder / "top_confusion_pairs.png", labels, all_predictions, several)
    _, test_set, _ = data.load(scale, data_folder)
    figures.draw_misclassified(folder / "misclassified_samples.png", logits, test_set, by_logits)

    # 2.5 Grad-CAM
    weights = result_files.weights_path(folder, seed)
    figures.draw_gradcam(folder / "gradcam_visualization.png", model, weights, logits, test_set, one, gradcam_layer)

    # 2.7 the generalization gap, and all of the above on one page
    gradcam = (folder / "gradcam_visualization.png").exists()
    page = performance.sections(model, metrics, histories, all_logits, labels, recipe, gradcam)
    title = text("Project 3: {model}", model=label(model))
    tables.write_markdown(folder / "performance.md", title, page, scale)


if __name__ == "__main__":
    cli.entry_point(main)
