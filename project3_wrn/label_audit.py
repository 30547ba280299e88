"""Project 3: which labels of CIFAR-10 look wrong? (project 3's report, section 2.6)

    python project3_wrn/label_audit.py [--scale quick|full] [--device cpu|cuda|mps] [--seeds N] [--plan] [--redraw]

Every training image gets probabilities from a network that has not seen it: each of FOLDS networks is trained on the
other folds. Confident learning (Northcutt et al., arXiv 1911.00068) counts and ranks the labels that these contradict.
The test set's suspects are the errors of the mean of the same networks, the most doubtful label first. The network is
ResNet-18 by the report's recipe on CUDA, and fast_small elsewhere: a short run.
Writes to project3_wrn/outputs/label_audit/, a short run to outputs_short/label_audit/: audit.md, train_suspects.csv,
test_suspects.csv, train_suspects.png, test_suspects.png, probabilities.npz, results.csv, run.json, runs/ (one file per
run)
"""

import dataclasses
import functools
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import torch
import torch.nn.functional as F

from common import cli, data, plots, tables
from common.data import CLASSES
from common.support.translations import label, text
from project3_wrn import result_files, runner
from project3_wrn.analysis import label_errors, study_tables
from project3_wrn.analysis.figures import LABEL_ERRORS_NOTE
from project3_wrn.analysis.result_tables import percent
from project3_wrn.analysis.study_tables import percent_correct
from project3_wrn.method.recipes import SMALL, Recipe

FOLDS = 5
CPU_EPOCHS = 5
# without a split no epoch is selected; label smoothing would keep probabilities from being near 1
PLAIN = dict(validation_split=False, patience=0, label_smoothing=0.0)
BASELINES = {
    "cuda": ("resnet18", dataclasses.replace(Recipe(), **PLAIN)),
    "cpu": ("fast_small", dataclasses.replace(SMALL, epochs=CPU_EPOCHS, tta_views=2, **PLAIN)),
}
SEEDS = {"quick": 1, "full": 1}
PANELS = (5, 8)  # rows and columns of images in a figure
LISTED = 10  # labels per table
FIRST = 100  # number of the most doubtful test labels that are compared with the known label errors
CONFIDENT = 0.9  # a probability
FOUND = "found wrong by people"  # a column of test_suspects.csv


def main():
    options = runner.parse(__doc__, TASK, "label_audit", SEEDS)
    baseline = BASELINES["cuda" if options.device == "cuda" else "cpu"]
    configs = runner.configure({f"fold_{fold}": baseline for fold in range(FOLDS)}, options)
    write = functools.partial(write_results, data_folder=options.data)
    runner.run_study(configs, options, write, save=save, splits=split, held_out=1 / FOLDS, complete=True)


def split(config, train_set):
    """Return what configuration fold_<n> trains on and what it holds out."""
    train, held_out = fold_indices(fold_number(config), train_set.labels)
    return {"train": train_set[train], "val": train_set[held_out]}


def fold_number(config):
    return int(config.removeprefix("fold_"))


def fold_indices(fold, labels):
    """Return (indices to train on, indices held out) of a fold, class by class and the same for all seeds."""
    generator = torch.Generator().manual_seed(0)
    folds = torch.empty(len(labels), dtype=torch.int64)
    for value in labels.unique():
        members = (labels == value).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        folds[members] = torch.arange(len(members)) % FOLDS
    return (folds != fold).nonzero().flatten(), (folds == fold).nonzero().flatten()


def save(configs, results, options, dataset):
    """Write run.json, results.csv and probabilities.npz.

    The last has `train` (50000, 10), of each image by the networks that were not trained on it, and `test` (10000, 10),
    the mean over all networks.
    """
    train_set, test_set, source = dataset
    train, test = torch.zeros(len(train_set), len(CLASSES)), torch.zeros(len(test_set), len(CLASSES))
    for (config, _), result in results.items():
        held_out, test_logits = (torch.from_numpy(result[f"{name}_logits"]).float() for name in ("val", "test"))
        _, indices = fold_indices(fold_number(config), train_set.labels)
        train[indices] += F.softmax(held_out, 1) * FOLDS / len(results)
        test += F.softmax(test_logits, 1) / len(results)
    tables.save_arrays(options.out / "probabilities.npz", {"train": train.numpy(), "test": test.numpy()})
    shortened = options.device != "cuda"
    rows = study_tables.result_rows(results, test_set.labels)
    study_tables.write_result_rows(options.out, rows, options.scale, shortened)
    described = result_files.describe(configs)
    result_files.write_run_json(results, options, source, shortened=shortened, configs=described)


def write_results(folder, data_folder=None):
    """Write audit.md, the lists of suspects and their figures, from probabilities.npz and run.json."""
    run_json = cli.read_json(folder / "run.json")
    scale = run_json["scale"]
    train_set, test_set, _ = data.load(scale, data_folder)
    saved = tables.load_arrays(folder / "probabilities.npz")
    train, test = (torch.from_numpy(saved[name]).double() for name in ("train", "test"))
    known = label_errors.known(test_set.labels) or None
    suspects = confident_learning(train, train_set.labels)
    errors = most_doubtful((test.argmax(1) != test_set.labels).nonzero().flatten(), test, test_set.labels)
    train_rows = suspect_rows(suspects, train_set.labels, train)
    test_rows = suspect_rows(errors, test_set.labels, test, known)
    plots.setup(scale=scale)
    tables.write_csv(folder / "train_suspects.csv", train_rows)
    tables.write_csv(folder / "test_suspects.csv", test_rows)
    recipe = next(iter(run_json["configs"].values()))
    facts = study_tables.run_facts(recipe["model"], f"{FOLDS} folds", recipe["epochs"], scale, run_json["shortened"])
    draw_suspects(folder / "train_suspects.png", suspects, train_set, train, facts)
    draw_suspects(folder / "test_suspects.png", errors, test_set, test, facts, known)
    page = [
        *study_tables.stamp(run_json),
        finding(suspects, errors, known, train_set.labels),
        tables.figure("train_suspects.png", "Training labels that look wrong", train_caption(train_rows)),
        tables.figure("test_suspects.png", "Test labels that look wrong", test_caption(test_rows)),
        text("## How the labels were looked at"),
        introduction(run_json, train, train_set.labels),
        text("## Training labels"),
        train_note(suspects, train, train_set.labels),
        page_rows(train_rows),
        text("## Test labels"),
        test_note(errors, test, known),
        page_rows(test_rows),
    ]
    tables.write_markdown(folder / "audit.md", text("Project 3: labels that look wrong"), page, scale)


# --- which labels are doubtful ---


def confident_learning(probabilities, labels):
    """Return the indices of labels that out-of-fold probabilities (N, classes) contradict, the most doubtful first.

    This is the confident joint of arXiv 1911.00068, section 3.1: class j is a candidate for an image where its
    probability is at least the mean probability of j over the images labeled j; of several candidates the most probable
    counts. An image whose candidate is not its label is off the diagonal.
    """
    classes = probabilities.shape[1]
    thresholds = torch.stack([probabilities[labels == label, label].mean() for label in range(classes)])
    candidates = probabilities.masked_fill(probabilities < thresholds, -1.0)
    off_diagonal = (candidates.amax(1) >= 0) & (candidates.argmax(1) != labels)
    return most_doubtful(off_diagonal.nonzero().flatten(), probabilities, labels)


def most_doubtful(indices, probabilities, labels):
    """Return `indices` sorted by the margin of their labels, the lowest first."""
    return indices[margin(probabilities, labels)[indices].argsort()]


def margin(probabilities, labels):
    """Return the probability of the label minus the highest of the others, (N,): the lower, the more doubtful."""
    own = probabilities.gather(1, labels[:, None])
    others = probabilities.scatter(1, labels[:, None], -1.0)
    return (own - others.amax(1, keepdim=True)).squeeze(1)


def suggestion(probabilities, labels, index):
    """Return the most probable class that is not the label."""
    return int(probabilities[index].scatter(0, labels[index], -1.0).argmax())


# --- tables and sentences ---


def suspect_rows(indices, labels, probabilities, known=None):
    """Return one row per image; with `known`, the indices of label errors that people found, a column for these."""
    rows = []
    for index in indices:
        other = suggestion(probabilities, labels, index)
        row = {
            "index": int(index),
            "label": CLASSES[labels[index]],
            "suggested": CLASSES[other],
            "probability of the label": f"{float(probabilities[index, labels[index]]):.4f}",
            "of the suggestion": f"{float(probabilities[index, other]):.4f}",
        }
        if known is not None:
            row[FOUND] = "yes" if int(index) in known else ""
        rows.append(row)
    return rows


def page_rows(rows):
    """Return the first of a CSV file's rows as a page shows them."""
    return [{name: value or tables.DASH for name, value in row.items()} for row in rows[:LISTED]]


def finding(suspects, errors, known, labels):
    """Return the sentences on how many training labels are flagged, and how many known label errors are found."""
    first = text(
        "**Confident learning flags {count:,} of {all:,} training labels ({share:.2f}%) as worth checking.**",
        count=len(suspects),
        all=len(labels),
        share=100 * len(suspects) / len(labels),
    )
    if not known:
        second = text(
            "The sample is too small to compare with the label errors that people found in the test set (arXiv"
            " 2103.14749)."
        )
    else:
        second = text(
            "Of the {known} test labels that people found wrong (arXiv 2103.14749), {among} are among the networks'"
            " errors.",
            known=len(known),
            among=sum(index in known for index in errors.tolist()),
        )
    return tables.paragraph(first, second)


def train_caption(rows):
    """Return the sentence on the most doubtful training labels. rows: those of train_suspects.csv."""
    if not rows:
        return text("No training label is flagged.")
    return text(
        "The {shown} most doubtful training labels: image {index} is labeled {label}, but the network that has not seen"
        " it gives {suggested} a probability of {probability:.1f}%.",
        shown=min(len(rows), PANELS[0] * PANELS[1]),
        **first_suspect(rows),
    )


def test_caption(rows):
    """Return the sentence on the most doubtful test labels. rows: those of test_suspects.csv."""
    if not rows:
        return text("The networks make no error on the test set.")
    shown = rows[: PANELS[0] * PANELS[1]]
    return text(
        "The {shown} most doubtful test labels: people found the {known} with a red title wrong, and image {index},"
        " labeled {label}, looks most like {suggested} ({probability:.1f}%)."
        if (known := sum(row.get(FOUND) == "yes" for row in shown))
        else "The {shown} most doubtful test labels: image {index}, labeled {label}, looks most like {suggested}"
        " ({probability:.1f}%).",
        shown=len(shown),
        known=known,
        **first_suspect(rows),
    )


def first_suspect(rows):
    """Return the most doubtful label, as values of a sentence."""
    return {
        "index": rows[0]["index"],
        "label": label(rows[0]["label"]),
        "suggested": label(rows[0]["suggested"]),
        "probability": 100 * float(rows[0]["of the suggestion"]),
    }


def introduction(run_json, probabilities, labels):
    """Return the sentences on what was trained and how accurate it is on the images that it has not seen."""
    recipe = next(iter(run_json["configs"].values()))
    return tables.paragraph(
        text(
            "The training set is divided into {folds} folds. For each of them a network ({model}) was trained on the"
            " other folds, for {epochs} on {device}.",
            model=label(recipe["model"]),
            epochs=label(plots.count(recipe["epochs"], "epoch")),
            device=run_json["device"],
            folds=FOLDS,
        ),
        text(
            "The predictions for the fold left out agree with {share:.2f}% of the training labels.",
            share=percent_correct(probabilities, labels),
        ),
        text(
            "The figures show the {shown} most doubtful labels, the tables the first {listed}, and `train_suspects.csv`"
            " and `test_suspects.csv` all of them.",
            shown=PANELS[0] * PANELS[1],
            listed=LISTED,
        ),
    )


def train_note(suspects, probabilities, labels):
    """Return the sentences on what the training set's suspects are."""
    return text(
        "The {count:,} flagged labels are worth checking, but not all of them are errors. Many belong to hard images"
        " with a correct label: the network is wrong about {wrong:.1f}% of all images.",
        count=len(suspects),
        wrong=100 - percent_correct(probabilities, labels),
    )


def test_note(errors, probabilities, known):
    """Return the sentences on the test set's suspects, and on the label errors that people found among them.

    errors: indices of the networks' errors, the most doubtful label first. known: indices of label errors.
    """
    sentences = [
        text(
            "The mean of the networks is wrong about {wrong:,} of {count:,} test images, and more than"
            " {confidence:.0f}% confident of {confident:,} of these errors.",
            wrong=len(errors),
            count=len(probabilities),
            confidence=100 * CONFIDENT,
            confident=int((probabilities[errors].amax(1) > CONFIDENT).sum()),
        )
    ]
    return tables.paragraph(*sentences, *published(errors, known, len(probabilities)))


def published(errors, known, count):
    """Return, as a list, the sentence on how many of the label errors that people found are among the networks' errors.

    errors, known: as of `test_note`; the list is empty where none is known. count: images of the test set.
    """
    if not known:
        return []
    among = [index in known for index in errors.tolist()]
    return [
        text(
            "People looked at {examined} test images and found {known} of the labels wrong (arXiv 2103.14749); {among}"
            " of these are among the networks' errors, and {first} are among the {top} most doubtful ones, where chance"
            " would put {expected:.1f}.",
            examined=label_errors.EXAMINED,
            known=len(known),
            among=sum(among),
            first=sum(among[:FIRST]),
            top=FIRST,
            expected=FIRST * len(known) / count,
        )
    ]


def draw_suspects(path, indices, dataset, probabilities, facts, known=None):
    """Draw the most doubtful images with their label and the suggested one; known label errors have a red title.

    facts: for the line under the figure's title. known: the indices of label errors that people found, in a test set.
    """
    figure, grid = plots.plt.subplots(*PANELS, figsize=(13, 10), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, indices.tolist()):
        other = suggestion(probabilities, dataset.labels, index)
        axes.imshow(dataset.images[index].permute(1, 2, 0).numpy())
        title = f"{index}: {CLASSES[dataset.labels[index]]}\n→ {CLASSES[other]} {percent(probabilities[index, other])}"
        axes.set_title(title, fontsize=8, color="firebrick" if known and index in known else "black")
    images = "Training labels" if known is None else "Test labels"
    explained = "image: label → more probable class, with its probability"
    note = [LABEL_ERRORS_NOTE] if known else []
    plots.about(figure, f"{images} that look wrong", *facts, explained, *note)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
