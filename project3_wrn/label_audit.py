"""Which labels of CIFAR-10 look wrong? (section 2.6)

    python project3_wrn/label_audit.py [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N] [--lang en|zh] [--redraw]

Every training image gets probabilities from a network that has not seen it: FOLDS networks, each trained on the other folds.
Confident learning (Northcutt et al., arXiv 1911.00068) then counts and ranks the labels that these contradict. The test set's
suspects are the errors that the mean of the same networks is surest of. The network is ResNet-18 by the report's recipe on CUDA,
fast_small elsewhere.
Writes to project3_wrn/outputs/label_audit/: audit.md, train_suspects.csv, test_suspects.csv, train_suspects.png,
test_suspects.png, probabilities.npz, results.csv, run.json, runs/.
"""

import dataclasses
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables
from project3_wrn.method.recipes import SMALL, Recipe

FOLDS = 5
CPU_EPOCHS = 5
PLAIN = {"split": False, "patience": 0, "label_smoothing": 0.0}  # smoothing keeps probabilities from being near 1
BASES = {
    "cuda": ("resnet18", dataclasses.replace(Recipe(), **PLAIN)),
    "cpu": ("fast_small", dataclasses.replace(SMALL, epochs=CPU_EPOCHS, tta_views=2, **PLAIN)),
}
SHOWN = 40
SEEDS = {"quick": 1, "full": 1}
FIRST = 100  # of the surest test errors: how many of these labels people found wrong


def main():
    from project3_wrn import runner

    options = runner.parse(__doc__, TASK, "label_audit", SEEDS)
    with cli.output_lock(options.out):
        if not options.redraw:
            base = BASES["cuda" if options.device == "cuda" else "cpu"]
            rows = runner.configure({f"fold_{fold}": base for fold in range(FOLDS)}, options)
            failed = runner.train_all(rows, options, fold_of=fold_of)
            runner.raise_if_failed(failed, "Without a fold some images have no probabilities")
            write_probabilities(options, runner.finish(options, rows))
        write_results(options.out, options)
    print(f"results: {options.out}")


def fold_of(row, labels):
    """(indices to train on, indices held out) of a row fold_<n>: class by class, the same for all seeds."""
    import torch

    number, generator = int(row.removeprefix("fold_")), torch.Generator().manual_seed(0)
    folds = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        folds[members] = torch.arange(len(members)) % FOLDS
    return (folds != number).nonzero().flatten(), (folds == number).nonzero().flatten()


def write_probabilities(options, results):
    """probabilities.npz: train (50000, 10), of each image by networks that were not trained on it, and test, by all of them."""
    import torch
    import torch.nn.functional as F

    from common.support import download
    from project3_wrn import runner

    (train, test), _ = download.images(options.scale, options.data)
    out_of_fold, mean = torch.zeros(len(train), 10), torch.zeros(len(test), 10)
    for (row, _), result in results.items():
        val, test_logits = (torch.from_numpy(result[f"{part}_logits"]).float() for part in ("val", "test"))
        out_of_fold[fold_of(row, train.labels)[1]] += F.softmax(val, 1) * FOLDS / len(results)
        mean += F.softmax(test_logits, 1) / len(results)
    tables.save_arrays(options.out / "probabilities.npz", {"train": out_of_fold.numpy(), "test": mean.numpy()})
    runner.write_results(options.out / "results.csv", runner.measure(results, test.labels))


def write_results(folder, options):
    import torch

    from common import data
    from common.support import download

    run_json = cli.read_json(folder / "run.json")
    scale = run_json["scale"]
    plots.setup(options.lang, scale)
    (train, test), _ = download.images(scale, options.data)
    saved = tables.load_arrays(folder / "probabilities.npz")
    probabilities, test_probabilities = (torch.from_numpy(saved[part]).double() for part in ("train", "test"))
    suspects = confident_learning(probabilities, train.labels)
    wrong = (test_probabilities.argmax(1) != test.labels).nonzero().flatten()
    surest = wrong[margin(test_probabilities, test.labels)[wrong].argsort()]
    confirmed = data.label_errors(test.labels) or None
    for name, part, p, found, known in (
        ("train", train, probabilities, suspects, None),
        ("test", test, test_probabilities, surest, confirmed),
    ):
        tables.write_csv(folder / f"{name}_suspects.csv", suspect_rows(found, part.labels, p, known))
        draw(folder / f"{name}_suspects.png", found[:SHOWN], part, p, known)

    accuracy = float((probabilities.argmax(1) == train.labels).double().mean() * 100)
    sure = int((test_probabilities[wrong].amax(1) > 0.9).sum())
    some = next(iter(run_json["configs"].values()))
    budget = " **A small budget**, not the report's network." if run_json["shortened"] else ""
    sections = [
        f"{some['model']}, {some['epochs']} epochs, {FOLDS} folds, on {run_json['device']}.{budget} Out of fold, {accuracy:.2f}% of the training labels are predicted.",
        f"**Training set.** Confident learning doubts {len(suspects):,} of {len(train):,} labels ({100 * len(suspects) / len(train):.2f}%). Many of these are hard images whose label is right: the network is wrong about {100 - accuracy:.1f}% of all, so this count is what is worth looking at, not a count of errors.",
        f"**Test set.** The networks together are wrong about {len(wrong):,} of {len(test):,} images, and more than 90% sure of {sure} of those. {published(surest, confirmed, len(test))}",
        f"The {SHOWN} most doubtful: `train_suspects.png` and `test_suspects.png`; all of them: the CSV files.",
        "## Most doubtful training labels",
        suspect_rows(suspects[:10], train.labels, probabilities) or "none",
        "## Most doubtful test labels",
        suspect_rows(surest[:10], test.labels, test_probabilities, confirmed) or "none",
    ]
    tables.write_markdown(folder / "audit.md", "Project 3: labels that look wrong", sections, scale)


def published(surest, confirmed, count):
    """How many of the label errors that people found are among the networks' errors, the surest first, of `count` images."""
    if not confirmed:
        return "The sample is too small to compare with the label errors that people found (arXiv 2103.14749)."
    known = [int(index) in confirmed for index in surest]
    return (
        f"People who looked at 275 such images found {len(confirmed)} of the labels wrong (arXiv 2103.14749): {sum(known)} of "
        f"these are among the networks' errors, {sum(known[:FIRST])} among the {FIRST} that they are surest of, where chance "
        f"would put {FIRST * len(confirmed) / count:.1f}."
    )


def margin(probabilities, labels):
    """Probability of the label less the highest of the others, (N,): the lower, the more doubtful."""
    own = probabilities.gather(1, labels[:, None])
    others = probabilities.scatter(1, labels[:, None], -1.0)
    return (own - others.amax(1, keepdim=True)).squeeze(1)


def confident_learning(probabilities, labels):
    """Indices of labels that out-of-fold probabilities (N, classes) contradict, the most doubtful first.

    The confident joint of arXiv 1911.00068, section 3.1: class j is confidently there where its probability is at least the
    mean probability of j over the images labelled j; of several such classes the likeliest counts. An image whose
    confident class is not its label is off the diagonal.
    """
    import torch

    classes = probabilities.shape[1]
    thresholds = torch.stack([probabilities[labels == label, label].mean() for label in range(classes)])
    confident = probabilities.masked_fill(probabilities < thresholds, -1.0)
    off = (confident.amax(1) >= 0) & (confident.argmax(1) != labels)
    indices = off.nonzero().flatten()
    return indices[margin(probabilities, labels)[indices].argsort()]


def suggestion(probabilities, labels, index):
    """The likeliest class that is not the label."""
    return int(probabilities[index].scatter(0, labels[index], -1.0).argmax())


def suspect_rows(indices, labels, probabilities, confirmed=None):
    """One row an image; `confirmed`: the indices that people found, where that is known."""
    from common.data import CLASSES

    told = lambda index: (
        {} if confirmed is None else {"found wrong by people": "yes" if int(index) in confirmed else ""}
    )
    return [
        {
            "index": int(index),
            "label": CLASSES[labels[index]],
            "suggested": CLASSES[suggestion(probabilities, labels, index)],
            "probability of the label": f"{float(probabilities[index, labels[index]]):.4f}",
            "of the suggestion": f"{float(probabilities[index, suggestion(probabilities, labels, index)]):.4f}",
        }
        | told(index)
        for index in indices
    ]


def draw(path, indices, images, probabilities, confirmed=None):
    from common.data import CLASSES

    figure, grid = plots.plt.subplots(5, 8, figsize=(13, 10), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, indices.tolist()):
        prediction = suggestion(probabilities, images.labels, index)
        axes.imshow(images.images[index].permute(1, 2, 0).numpy())
        words = f"{index}: {CLASSES[images.labels[index]]}\n→ {CLASSES[prediction]} {100 * float(probabilities[index, prediction]):.0f}%"
        axes.set_title(words, fontsize=8, color="firebrick" if confirmed and index in confirmed else "black")
    if confirmed:
        figure.suptitle("Red: people have found the label wrong (arXiv 2103.14749)", color="firebrick")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
