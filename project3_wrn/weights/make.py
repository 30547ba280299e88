"""Make the weights that predict.py uses: those of a full run in half precision, and what its percentages need.

    python project3_wrn/main.py --recipe fast94 --scale full
    python project3_wrn/main.py --recipe fast94 --scale full --seeds 1 --validation-split --out HELD_OUT
    python project3_wrn/weights/make.py project3_wrn/outputs/fast94 HELD_OUT [--data DIR]

Writes next to this file:
    fast94.pt       the weights of the first run
    held_out.npz    logits of the 5,000 images that the second run did not train on, and their labels
    fast94.json     SHA-256, origin, accuracy, temperature and threshold

A temperature divides the logits, so that the probabilities become those with which the network is right (Guo et al., On
Calibration of Modern Neural Networks, arXiv 1706.04599, section 4.2). The first run has trained on all training images
and is surer of these than of new ones, and the test set chooses nothing. So the temperature is fitted on the held-out
images of the second run: the same network and recipe, trained on 45,000 images. They also set the threshold below which
predict.py says that a photo may be none of the ten classes. It is one of the energy (Liu et al., Energy-based
Out-of-distribution Detection, arXiv 2010.03759), as a photo between two classes has a low probability too. The test set
shows once how well both suit the weights of the first run.
"""

import hashlib
import io
import math
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

import torch

from common import cli, data, evaluation, tables
from common.support import checkpoints
from common.support.files import atomic
from project3_wrn import result_files
from project3_wrn.method.weights import load_network, minus_energy

VIEWS = 6  # views of each image whose logits are averaged
UNKNOWN = 0.05  # share of held-out images that are below the threshold
DIGITS = 4  # of temperature, threshold and shares


def main():
    """Write the three files."""
    parser = cli.plain_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="outputs of main.py: the weights to ship")
    parser.add_argument("held_out", type=Path, metavar="HELD_OUT", help="outputs of main.py with --validation-split")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with CIFAR-10 (default: data/)")
    args = parser.parse_args()
    train_set, test_set, _ = data.load("full", args.data)
    val_set = train_set[data.train_val_split(train_set.labels)[1]]
    run, held_out = (cli.read_json(folder / "run.json") for folder in (args.run, args.held_out))
    model, seed = run["model"], run["seeds"][0]

    weights = FOLDER / f"{model}.pt"
    write_half(weights, result_files.weights_path(args.run, seed))
    network = load_network(model, weights)
    recipe = run["recipe"]
    as_in_run = predict(network, test_set, recipe["tta_views"], recipe["tta_fraction"])
    test_logits = predict(network, test_set)
    other = load_network(held_out["model"], result_files.weights_path(args.held_out, held_out["seeds"][0]))
    val_logits = predict(other, val_set)
    tables.save_arrays(FOLDER / "held_out.npz", {"logits": val_logits.numpy(), "labels": val_set.labels.numpy()})

    fitted = fit(val_logits, val_set.labels)
    metrics = cli.read_json(args.held_out / "metrics.json", list)[0]
    facts = {
        "file": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "model": model,
        "seed": seed,
        "git_commit": run["git_commit"],
        "test_accuracy": round(float(evaluation.accuracy(as_in_run, test_set.labels)), 2),
        "views": VIEWS,
        **fitted,
        "held_out": {
            "git_commit": held_out["git_commit"],
            "trained_on": len(train_set) - len(val_set),
            "best_epoch": metrics["best_epoch"],
            "epochs": metrics["epochs"],
            "images": len(val_set),
            "accuracy": round(float(evaluation.accuracy(val_logits, val_set.labels)), 2),
            "ece_before": ece(val_logits, val_set.labels),
            "ece_after": ece(cross_fitted(val_logits, val_set.labels), val_set.labels),
        },
        "test": {
            "accuracy": round(float(evaluation.accuracy(test_logits, test_set.labels)), 2),
            "ece_before": ece(test_logits, test_set.labels),
            "ece_after": ece(test_logits / fitted["temperature"], test_set.labels),
            "unknown": round(float((minus_energy(test_logits) < fitted["unknown_below"]).double().mean()), DIGITS),
        },
    }
    cli.write_json(FOLDER / f"{model}.json", facts)
    print(f"weights: {weights}")


def write_half(path, source):
    """Write the state_dict in `source` with its floating-point tensors in half precision: equal input, equal bytes."""
    weights = checkpoints.load(source, "file of weights", "give the outputs of a run whose weights are there")
    buffer = io.BytesIO()  # a file of torch has its own name inside, and this one has a temporary name
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in weights.items()}, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def predict(network, dataset, views=VIEWS, fraction=1.0):
    """Return logits (N, 10) of all of `dataset`, averaged over views as `evaluation.predict_with_tta` does."""
    return evaluation.predict_with_tta(network, dataset, data.CIFAR10_STATS, views, fraction)


def fit(logits, labels):
    """Return the temperature, and the minus energy that UNKNOWN of these images are below."""
    return {
        "temperature": round(fit_temperature(logits, labels), DIGITS),
        "unknown_below": round(float(minus_energy(logits.double()).quantile(UNKNOWN)), DIGITS),
    }


def fit_temperature(logits, labels):
    """Return the temperature for which logits (N, 10) divided by it have the least cross-entropy."""

    from scipy.optimize import minimize_scalar  # not at the top: --help would wait for it (scikit-learn depends on it)

    def loss(log_temperature):
        return float(evaluation.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    return math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)


def cross_fitted(logits, labels):
    """Return logits of which each half is divided by the temperature of the other half."""
    scaled = torch.empty_like(logits)
    for half in range(2):
        scaled[half::2] = logits[half::2] / fit_temperature(logits[1 - half :: 2], labels[1 - half :: 2])
    return scaled


def ece(logits, labels):
    """Return the expected calibration error, a fraction."""
    return round(float(evaluation.calibration(logits, labels)["ece"]), DIGITS)


if __name__ == "__main__":
    cli.entry_point(main)
