"""Several networks together (section 3.2): majority vote, mean probability, weighted mean, stacking. It trains no network.

    python project3_wrn/ensemble.py [--scale quick|full] [--members FOLDER] [--lang en|zh]

The members are the finished runs of a study, by default compare_models' (the report's ensemble of architectures) or, where that has
not been run, improvements'. Weights and the stacking classifier are fitted on validation logits only; the test set is measured once
for each way. Writes to project3_wrn/outputs/ensemble/: ensemble.md, ensemble.json, members.csv, diversity.png, run.json.
"""

import argparse
import sys
import time
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables
from common.support.errors import UserError

STUDIES = ("compare_models", "improvements")
WITHIN = {"quick": 100.0, "full": 5.0}  # points of validation accuracy that a member may be behind the best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("quick", "full"), default="full")
    parser.add_argument(
        "--members", type=Path, metavar="FOLDER", help="a study's folder of outputs, of whatever scale it is"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder that holds CIFAR-10 (data/)")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the figures (en)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (beside the members)")
    options = parser.parse_args()
    options.started = time.time()
    outputs = TASK / ("outputs_quick" if options.scale == "quick" else "outputs")
    folders = [options.members] if options.members else [outputs / study for study in STUDIES]
    ended = [folder for folder in folders if (folder / "run.json").exists()]
    folder = next((folder for folder in ended if len(list(folder.glob("runs/*.npz"))) > 1), None)
    if folder is None:
        raise UserError(
            f"no two finished runs in {' or '.join(map(str, folders))}; run project3_wrn/compare_models.py first"
        )
    run_json = cli.read_json(folder / "run.json")
    options.scale = run_json["scale"]
    options.out = options.out or folder.resolve().parent / "ensemble"
    with cli.output_lock(options.out):
        combine(folder, run_json, options)
    print(f"results: {options.out}")


def combine(folder, run_json, options):
    import numpy as np
    import torch

    from project3_wrn import runner

    shortened = run_json.get("shortened", False)
    val_labels, test_labels = runner.load_labels(options.scale, options.data)
    members, validation = find_members(folder, run_json, val_labels, WITHIN[options.scale])
    val, test = (torch.stack([member[part] for member in members.values()]) for part in ("val", "test"))  # (M, N, 10)
    weights = (val.argmax(-1) == val_labels).double().mean(1)
    ways = {
        "majority vote": vote(test),
        "mean probability": test.mean(0),
        "mean weighted by validation accuracy": torch.einsum("m,mnc->nc", weights / weights.sum(), test),
        "stacking (logistic regression)": stacking(val, val_labels, test),
    }
    reached = {way: accuracy(probabilities, test_labels) for way, probabilities in ways.items()}
    best = max(members, key=validation.get)
    disagreement = (test.argmax(-1)[:, None] != test.argmax(-1)).double().mean(-1) * 100
    mean_disagreement = float(disagreement.sum() / (len(members) * (len(members) - 1)))
    groups = common_seeds(members)

    measured = {name: accuracy(member["test"], test_labels) for name, member in members.items()}
    best_test = measured[best]
    single = [
        {"member": name, "val_accuracy": f"{validation[name]:.2f}", "test_accuracy": f"{measured[name]:.2f}"}
        for name in members
    ]
    rows = [
        {"way": f"best member by validation: {best}", "test, %": f"{best_test:.2f}", "against it, points": ""},
        *(
            {"way": way, "test, %": f"{value:.2f}", "against it, points": f"{value - best_test:+.2f}"}
            for way, value in reached.items()
        ),
    ]
    sections = [
        f"{len(members)} members: the finished runs of `{folder.name}` that are within {WITHIN[options.scale]:g} points of "
        f"the best on the validation set.{' **Shortened** ones: not at the scale of the report.' if shortened else ''}",
        rows,
        "## The members",
        [
            {"config": run, "seeds": len(places)}
            | {
                f"{part}, %": tables.mean_std([accuracies[list(members)[place]] for place in places])
                for part, accuracies in (("validation", validation), ("test", measured))
            }
            for run, places in groups.items()
        ],
        "## Complementarity: recall by class, %, mean over seeds",
        class_rows(groups, test, ways["mean probability"], test_labels),
        f"Two members disagree on {mean_disagreement:.2f}% of the test images on average. At least one is right on "
        f"{oracle(test, test_labels):.2f}%: no vote among them can go beyond that.",
    ]
    tables.write_markdown(options.out / "ensemble.md", "Project 3: the networks together", sections, options.scale)
    tables.write_csv(options.out / "members.csv", single)
    plots.setup(options.lang, options.scale)
    draw(options.out / "diversity.png", list(groups), between(groups, disagreement).numpy())
    found = {way.split(" (")[0].replace(" ", "_"): value for way, value in reached.items()}
    cli.write_json(options.out / "ensemble.json", {"best_member": best_test} | found)
    document = {
        "command": "python project3_wrn/ensemble.py " + " ".join(sys.argv[1:]),
        "scale": options.scale,
        "shortened": shortened,
        "members": folder.name,
        "weights": np.round(weights.tolist(), 4).tolist(),
        "git_commit": cli.git_commit(),
        "seconds": round(time.time() - options.started, 1),
    }
    cli.write_json(options.out / "run.json", document)


def find_members(folder, run_json, val_labels, within):
    """({member: {"val": (N, 10), "test": (N, 10)}}, {member: validation accuracy}) of a study's runs, as probabilities.

    Those within `within` points of the best by validation. Raises UserError where these are fewer than two.
    """
    import torch
    import torch.nn.functional as F

    from project3_wrn import runner

    results = runner.saved(folder, run_json)
    members = {
        f"{run}, seed {seed}": {
            part: F.softmax(torch.from_numpy(result[f"{part}_logits"]).double(), 1) for part in ("val", "test")
        }
        for (run, seed), result in results.items()
    }
    if any(len(member["val"]) != len(val_labels) for member in members.values()):
        raise UserError(f"the runs in {folder} hold out other images than the 9:1 split's; an ensemble needs those")
    validation = {name: accuracy(member["val"], val_labels) for name, member in members.items()}
    least = max(validation.values(), default=0.0) - within
    members = {name: member for name, member in members.items() if validation[name] >= least}
    if len(members) < 2:
        raise UserError(
            f"no second run in {folder} is within {within:g} points of the best on the validation set; train more"
        )
    return members, validation


def accuracy(probabilities, labels):
    return float((probabilities.argmax(-1) == labels).double().mean() * 100)


def vote(probabilities):
    """Votes (N, 10) of members (M, N, 10); ties fall to the higher mean probability."""
    import torch.nn.functional as F

    votes = F.one_hot(probabilities.argmax(-1), probabilities.shape[-1]).sum(0)
    return votes + probabilities.mean(0) / 2  # less than a whole vote


def stacking(val, val_labels, test):
    """Logistic regression on all members' log-probabilities, fitted on the validation set only."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = lambda p: p.clamp(min=1e-6).log().movedim(0, 1).flatten(1).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    classifier.fit(features(val), val_labels.numpy())
    return torch.from_numpy(classifier.predict_proba(features(test)))


def oracle(test, labels):
    """Per cent of the images that at least one member has right."""
    return float((test.argmax(-1) == labels).any(0).double().mean() * 100)


def common_seeds(names):
    """{run: the places of its seeds among the members}."""
    groups = {}
    for place, name in enumerate(names):
        groups.setdefault(name.rsplit(", seed ", 1)[0], []).append(place)
    return groups


def between(groups, disagreement):
    """Mean disagreement (runs, runs) of two different members, one of each run; 0 of a run of one seed with itself."""
    import torch

    pairs = lambda a, b: [disagreement[i, j] for i in a for j in b if i != j]
    rows = [
        [sum(found) / len(found) if (found := pairs(a, b)) else 0.0 for b in groups.values()] for a in groups.values()
    ]
    return torch.tensor(rows)


def class_rows(groups, test, mean, labels):
    """Recall by class of each run, a mean over its seeds, and of all members together; the best run of a class in bold."""
    import torch

    from common.data import CLASSES

    right = (torch.cat((test, mean[None])).argmax(-1) == labels).double() * 100
    recall = torch.stack([right[:, labels == c].mean(1) for c in range(len(CLASSES))], 1)
    means = torch.stack([recall[places].mean(0) for places in groups.values()])
    rows = []
    for run, values, best in zip(groups, means, means == means.amax(0)):
        shown = [f"**{value:.1f}**" if top else f"{value:.1f}" for value, top in zip(values, best)]
        rows.append({"config": run} | dict(zip(CLASSES, shown)))
    return [*rows, {"config": "mean probability"} | {name: f"{value:.1f}" for name, value in zip(CLASSES, recall[-1])}]


def draw(path, names, disagreement):
    """How many per cent of the test images two members disagree on, run by run."""
    names = [name for name in names]
    figure, axes = plots.plt.subplots(figsize=(0.45 * len(names) + 4, 0.45 * len(names) + 3), layout="constrained")
    image = axes.imshow(disagreement, cmap="viridis")
    if len(names) <= 20:
        for row in range(len(names)):
            for column in range(len(names)):
                axes.text(
                    column,
                    row,
                    f"{disagreement[row, column]:.1f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white"
                    if disagreement[row, column] < (disagreement.min() + disagreement.max()) / 2
                    else "black",
                )
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Test images that two members disagree on, %")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
