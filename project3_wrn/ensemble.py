"""Project 3: how accurate are several networks together? (project 3's report, section 3.2)

    python project3_wrn/ensemble.py [--scale quick|full] [--members FOLDER]

Majority vote, mean probability, weighted mean and stacking; no network is trained. The members are the finished runs of
a study: by default compare_models, the report's ensemble of architectures, or improvements where that has not been run.
Weights and the stacking classifier are fitted on validation logits only; the test set is evaluated once per method.
Writes to project3_wrn/outputs/ensemble/: ensemble.md, diversity.png, ensemble.json, members.csv, run.json
"""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables
from common.data import CLASSES
from common.support.errors import UserError
from common.support.files import locked
from project3_wrn import result_files
from project3_wrn.analysis.study_tables import percent_correct

STUDIES = ("compare_models", "improvements")
WITHIN = {"quick": 100.0, "full": 5.0}  # points of validation accuracy that a member may be below the best
MEAN = "mean probability"
SMALLEST_PROBABILITY = 1e-6  # stacking takes logarithms
STACKING = dict(C=0.01, max_iter=2000)  # arguments of scikit-learn's LogisticRegression
ANNOTATED = 20  # with more configurations the figure has no numbers


def main():
    started, options = time.time(), parse()
    folder, run_json = find_study(options)
    out = options.out or folder.resolve().parent / "ensemble"
    with locked(out / "checkpoints" / "lock", wait=False):
        val_labels, test_labels = result_files.load_labels(run_json["scale"], options.data)
        names, val, test = load_members(folder, run_json, val_labels)
        weights = (val.argmax(-1) == val_labels).double().mean(1)
        methods = combine(val, val_labels, test, weights)
        plots.setup(run_json["scale"])
        write_results(out, folder.name, run_json, names, (100 * weights).tolist(), test, test_labels, methods)
        cli.write_json(
            out / "run.json",
            {
                "command": cli.command_line(),
                "scale": run_json["scale"],
                "shortened": run_json.get("shortened", False),
                "members": folder.name,
                "weights": [round(weight, 4) for weight in weights.tolist()],
                "git_commit": cli.git_commit(),
                "seconds": round(time.time() - started, 1),
            },
        )
    print(f"results: {out}")


def parse():
    """Return the flags of this process's command line."""
    parser = cli.plain_parser(__doc__)
    add = parser.add_argument
    add("--scale", choices=("quick", "full"), default="full", help="scale of the study (default: full)")
    add(
        "--members",
        type=Path,
        metavar="FOLDER",
        help="a study's outputs, of any scale (default: the first one that has runs)",
    )
    add("--data", type=Path, metavar="DIR", help="folder with CIFAR-10 (default: data/)")
    add("--out", type=Path, metavar="DIR", help="folder of the results (default: ensemble/ next to the members)")
    return parser.parse_args()


def find_study(options):
    """Return (folder, run.json) of the first study that has two finished runs.

    Raises:
        UserError: none has.
    """
    outputs = TASK / ("outputs_quick" if options.scale == "quick" else "outputs")
    folders = [options.members] if options.members else [outputs / study for study in STUDIES]
    for folder in folders:
        if (folder / "run.json").exists() and len(list(folder.glob("runs/*.npz"))) > 1:
            return folder, cli.read_json(folder / "run.json")
    raise UserError(
        f"no two finished runs in {' or '.join(map(str, folders))}; run project3_wrn/compare_models.py first"
    )


def load_members(folder, run_json, val_labels):
    """Return (names, validation probabilities (M, N, 10), test probabilities (M, N, 10)) of a study's runs.

    Members are the runs whose validation accuracy is within WITHIN points of the best.

    Raises:
        UserError: there are fewer than two, or they hold out other images than the 9:1 split.
    """
    names, members = [], {"val": [], "test": []}
    for (config, seed), result in result_files.load_results(folder, run_json).items():
        names.append(f"{config}, seed {seed}")
        for split, probabilities in members.items():
            probabilities.append(F.softmax(torch.from_numpy(result[f"{split}_logits"]).double(), 1))
    if any(len(val) != len(val_labels) for val in members["val"]):
        raise UserError(f"the runs in {folder} hold out other images than the 9:1 split, which an ensemble needs")
    within = WITHIN[run_json["scale"]]
    val_accuracy = [percent_correct(val, val_labels) for val in members["val"]]
    chosen = [index for index, value in enumerate(val_accuracy) if value >= max(val_accuracy, default=0.0) - within]
    if len(chosen) < 2:
        raise UserError(
            f"fewer than two runs in {folder} are within {within:g} points of the best validation accuracy; train more"
        )
    val, test = (torch.stack([probabilities[index] for index in chosen]) for probabilities in members.values())
    return [names[index] for index in chosen], val, test


# --- the methods ---


def combine(val, val_labels, test, weights):
    """Return {method: probabilities or scores (N, 10)} of the test images.

    val, test: the members' probabilities (M, N, 10). weights: (M,), the members' validation accuracy.
    """
    return {
        "majority vote": vote(test),
        MEAN: test.mean(0),
        "mean weighted by validation accuracy": torch.einsum("m,mnc->nc", weights / weights.sum(), test),
        "stacking (logistic regression)": stacking(val, val_labels, test),
    }


def vote(probabilities):
    """Return the votes (N, 10) of members (M, N, 10); a tie goes to the class with the higher mean probability."""
    votes = F.one_hot(probabilities.argmax(-1), probabilities.shape[-1]).sum(0)
    return votes + probabilities.mean(0) / 2  # less than a whole vote


def stacking(val, val_labels, test):
    """Return the probabilities (N, 10) of logistic regression on the members' log-probabilities, fitted on val."""

    def features(probabilities):
        return probabilities.clamp(min=SMALLEST_PROBABILITY).log().movedim(0, 1).flatten(1).numpy()

    classifier = make_pipeline(StandardScaler(), LogisticRegression(**STACKING))
    classifier.fit(features(val), val_labels.numpy())
    return torch.from_numpy(classifier.predict_proba(features(test)))


# --- the results ---


def write_results(out, study, run_json, names, val_accuracy, test, test_labels, methods):
    """Write ensemble.md, ensemble.json, members.csv and diversity.png.

    val_accuracy: M values in per cent. test: (M, N, 10). methods: as `combine` returns them.
    """
    scale, groups, disagreement = run_json["scale"], group_by_config(names), pairwise_disagreement(test)
    test_accuracy = [percent_correct(member, test_labels) for member in test]
    best = max(range(len(names)), key=val_accuracy.__getitem__)
    reached = {method: percent_correct(scores, test_labels) for method, scores in methods.items()}
    mean_disagreement = float(disagreement.sum() / (len(names) * (len(names) - 1)))
    shortened = ""
    if run_json.get("shortened"):
        shortened = " **Shortened**: these were not trained at the scale of the report."
    page = [
        f"{len(names)} members: the finished runs of `{study}` that are within {WITHIN[scale]:g} points of the best"
        f" validation accuracy.{shortened}",
        method_table(names[best], test_accuracy[best], reached),
        "## The members",
        member_table(groups, val_accuracy, test_accuracy),
        "## Complementarity: recall by class, %, mean over seeds",
        class_table(groups, test, methods[MEAN], test_labels),
        f"Two members disagree on {mean_disagreement:.2f}% of the test images on average. At least one is correct on"
        f" {oracle(test, test_labels):.2f}%, which no vote among them can exceed.",
    ]
    tables.write_markdown(out / "ensemble.md", "Project 3: the networks together", page, scale)
    tables.write_csv(
        out / "members.csv",
        [
            {"member": name, "val_accuracy": f"{val:.2f}", "test_accuracy": f"{test:.2f}"}
            for name, val, test in zip(names, val_accuracy, test_accuracy)
        ],
    )
    fields = {method.split(" (")[0].replace(" ", "_"): value for method, value in reached.items()}
    cli.write_json(out / "ensemble.json", {"best_member": test_accuracy[best], **fields})
    draw_diversity(out / "diversity.png", list(groups), disagreement_by_config(groups, disagreement).numpy())


def method_table(best, best_accuracy, reached):
    """Return one row for the best member and one per method, with its difference from that member."""
    rows = [
        {"method": f"best member by validation: {best}", "test, %": f"{best_accuracy:.2f}", "difference, points": ""}
    ]
    for method, value in reached.items():
        difference = f"{value - best_accuracy:+.2f}"
        rows.append({"method": method, "test, %": f"{value:.2f}", "difference, points": difference})
    return rows


def member_table(groups, val_accuracy, test_accuracy):
    """Return one row per configuration, with its accuracies over its seeds."""
    return [
        {
            "config": config,
            "seeds": len(indices),
            "validation, %": tables.mean_std([val_accuracy[index] for index in indices]),
            "test, %": tables.mean_std([test_accuracy[index] for index in indices]),
        }
        for config, indices in groups.items()
    ]


def class_table(groups, test, mean, labels):
    """Return the recall of each class, per configuration over its seeds and of the mean probability.

    The best configuration of a class is bold.
    """
    correct = (torch.cat((test, mean[None])).argmax(-1) == labels).double() * 100
    recall = torch.stack([correct[:, labels == label].mean(1) for label in range(len(CLASSES))], 1)
    means = torch.stack([recall[indices].mean(0) for indices in groups.values()])
    rows = []
    for config, values, best in zip(groups, means, means == means.amax(0)):
        cells = [f"**{value:.1f}**" if bold else f"{value:.1f}" for value, bold in zip(values, best)]
        rows.append({"config": config, **dict(zip(CLASSES, cells))})
    return [*rows, {"config": MEAN, **{name: f"{value:.1f}" for name, value in zip(CLASSES, recall[-1])}}]


def oracle(test, labels):
    """Return the percentage of images that at least one member predicts correctly."""
    return float((test.argmax(-1) == labels).any(0).double().mean() * 100)


def group_by_config(names):
    """Return {configuration: indices of its seeds among the members}."""
    groups = {}
    for index, name in enumerate(names):
        groups.setdefault(name.rsplit(", seed ", 1)[0], []).append(index)
    return groups


def pairwise_disagreement(test):
    """Return the percentage (M, M) of the test images on which two members disagree."""
    predictions = test.argmax(-1)
    return (predictions[:, None] != predictions).double().mean(-1) * 100


def disagreement_by_config(groups, disagreement):
    """Return the mean disagreement (configurations, configurations) of two different members, one of each.

    A configuration with one seed has 0 with itself.
    """

    def mean_between(rows, columns):
        values = [disagreement[i, j] for i in rows for j in columns if i != j]
        return sum(values) / len(values) if values else 0.0

    return torch.tensor([[mean_between(a, b) for b in groups.values()] for a in groups.values()])


def draw_diversity(path, names, disagreement):
    """Draw the percentage of test images on which two configurations disagree."""
    side = 0.45 * len(names)
    figure, axes = plots.plt.subplots(figsize=(side + 4, side + 3), layout="constrained")
    image = axes.imshow(disagreement, cmap="viridis")
    middle = (disagreement.min() + disagreement.max()) / 2
    if len(names) <= ANNOTATED:
        for row, values in enumerate(disagreement):
            for column, value in enumerate(values):
                color = "white" if value < middle else "black"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.grid(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Test images that two members disagree on, %")
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
