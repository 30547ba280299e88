"""Project 3: how accurate are several networks together? (project 3's report, section 3.2)

    python project3_wrn/ensemble.py [--scale quick|full] [--members FOLDER ...] [--plan] [--redraw]

Majority vote, mean probability, weighted mean and stacking; no network is trained. The members are finished runs: by
default all of main.py and of compare_models.py, the report's ensemble of architectures; where these have no two, those
of improvements.py. Runs without a validation set are left out, and of several runs of one training only the first
counts. Weights and the stacking classifier are fitted on validation logits only; the test set is evaluated once per
method. Writes to project3_wrn/outputs/ensemble/, or to outputs_short/ensemble/ where the members are short runs:
    ensemble.md, diversity.png, ensemble.json
    members.csv       accuracies of each member
    classes.csv       precision, recall and F1 of each class
    predictions.npz, run.json    what these are made from
"""

import argparse
import dataclasses
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, evaluation, plots, tables
from common.data import CLASSES
from common.support import plan
from common.support.errors import UserError
from project3_wrn import result_files, runner
from project3_wrn.analysis import study_tables
from project3_wrn.analysis.study_tables import percent_correct
from project3_wrn.method.recipes import TEST_TIME_FIELDS

WITHIN = {"quick": 100.0, "full": 5.0}  # points of validation accuracy that a member may be below the best
MEAN = "mean probability"
SMALLEST_PROBABILITY = 1e-6  # stacking takes logarithms
STACKING = dict(C=0.01, max_iter=2000)  # arguments of scikit-learn's LogisticRegression
ANNOTATED = 20  # with more configurations the figure has no numbers
# The average of the weights (EMA) is of one training too, so it does not make a second member of it.
EVALUATION_ONLY = (*TEST_TIME_FIELDS, "ema")
# for --plan: members where none is trained yet, and the cost of each, most of it stacking's
EXPECTED_MEMBERS, MEMBER_SECONDS, MEMBER_MEMORY = 12, 0.4, 5e6


@dataclass(frozen=True)
class Member:
    """A finished run that may take part. val, test: probabilities (N, classes) in double precision."""

    config: str
    seed: int
    folder: str
    settings: dict
    shortened: bool
    val: torch.Tensor
    test: torch.Tensor

    @property
    def name(self):
        return f"{self.config}, seed {self.seed}"


def main():
    options, folders = parse()
    if options.plan:
        plan.show(options.command.split()[1], [plan_row(folders)], options.scale, options.device)
        return
    with cli.output_folder(options):
        if not options.redraw:
            val_labels, test_labels, source = result_files.load_labels(options.scale, options.data)
            members = choose(load_members(folders), val_labels, WITHIN[options.scale])
            val, test = (torch.stack([getattr(member, name) for member in members]) for name in ("val", "test"))
            weights = (val.argmax(-1) == val_labels).double().mean(1)
            methods = combine(val, val_labels, test, weights)
            save(options, source, members, weights, test, methods, test_labels)
        write_results(options.out)
    print(f"results: {options.out}")


# --- the command line ---


def parse():
    """Return (Options, folders of the members) of this process's command line."""
    parser = cli.plain_parser(__doc__)
    add = parser.add_argument
    add("--scale", choices=("quick", "full"), default="full", help="scale of the members (default: full)")
    add(
        "--members",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="outputs of main.py or of a study (default: those of main.py and of compare_models.py)",
    )
    add("--data", type=Path, metavar="DIR", help="folder with CIFAR-10 (default: data/)")
    add("--out", type=Path, metavar="DIR", help="folder of the results (default: ensemble/ next to the members)")
    add("--plan", action="store_true", help="print the estimated time and memory, and compute nothing")
    add("--redraw", action="store_true", help="redraw tables and figures from the saved predictions")
    add("--fresh", action="store_true", help=argparse.SUPPRESS)  # run_all.sh gives it to every script
    args = parser.parse_args()
    folders = args.members or default_folders(args.scale)
    scale = args.scale
    if args.members:
        if missing := [str(folder) for folder in folders if not (folder / "run.json").exists()]:
            raise UserError(f"{missing[0]} has no run.json; run project3_wrn/compare_models.py first")
        scales = {cli.read_json(folder / "run.json")["scale"] for folder in folders}
        if len(scales) > 1:
            raise UserError(f"the members are of different scales, {' and '.join(sorted(scales))}; name those of one")
        (scale,) = scales
    options = cli.Options(
        command=cli.command_line(),
        started=time.time(),
        git_commit=cli.git_commit(),
        scale=scale,
        device="cpu",
        precision="fp64",
        convolutions=None,
        seeds=range(0),
        epochs=None,
        batch_size=None,
        data=args.data,
        out=args.out or output_folder(folders, scale, args.redraw),
        redraw=args.redraw,
        plan=args.plan,
        fresh=False,
        keep_checkpoints=False,
    )
    return options, folders


def default_folders(scale):
    """Return the folders of the default members: the first of these sets that has two finished runs, or none.

    The runs of main.py and of compare_models, those of improvements, and the same of short runs.
    """
    roots = ["outputs_quick"] if scale == "quick" else ["outputs", runner.SHORT_OUTPUTS]
    for root in roots:
        folders = [path.parent for path in sorted((TASK / root).glob("*/run.json"))]
        networks = [folder for folder in folders if "model" in cli.read_json(folder / "run.json")]
        studies = {folder.name: folder for folder in folders}
        for name in ("compare_models", "improvements"):
            chosen = [*networks, *([studies[name]] if name in studies else [])]
            if sum(count_runs(folder) for folder in chosen) > 1:
                return chosen
            networks = []
    return []


def count_runs(folder):
    """Return how many finished runs with a validation set a folder has."""
    if (folder / "logits.npz").exists():
        return sum(key.endswith("/val") for key in tables.load_arrays(folder / "logits.npz"))
    return len(list(folder.glob("runs/*.npz")))


def output_folder(folders, scale, redraw):
    """Return the folder ensemble/ next to the members."""
    if folders:
        return folders[0].resolve().parent / "ensemble"
    roots = ["outputs_quick"] if scale == "quick" else ["outputs", runner.SHORT_OUTPUTS]
    written = [TASK / root / "ensemble" for root in roots if (TASK / root / "ensemble" / "run.json").exists()]
    return written[0] if redraw and written else TASK / roots[0] / "ensemble"


def plan_row(folders):
    """Return the row of common/support/plan.py: nothing is trained."""
    members = sum(map(count_runs, folders)) or EXPECTED_MEMBERS
    return {
        "name": "ensemble",
        "model": f"{members} finished runs",
        "seeds": "",
        "epochs": "",
        "batch_size": "",
        "seconds": MEMBER_SECONDS * members,
        "memory": MEMBER_MEMORY * members + plan.BASE_MEMORY["cpu"],
    }


# --- the members ---


def load_members(folders):
    """Return the Members in the folders of main.py's and of studies' outputs, one of each training.

    Raises:
        UserError: there is no folder, or a file is damaged.
    """
    if not folders:
        raise UserError(
            "no folder of outputs has two finished runs with a validation set; run project3_wrn/compare_models.py first"
        )
    members, trainings, logits = [], set(), set()
    for member in itertools.chain.from_iterable(map(read_folder, folders)):
        settings = {name: value for name, value in member.settings.items() if name not in EVALUATION_ONLY}
        training, values = result_files.training_key(settings), member.test.numpy().tobytes()
        if training in trainings or values in logits:
            print(f"left out: {member.name} of {member.folder} is a training that is already a member")
            continue
        trainings.add(training)
        logits.add(values)
        members.append(member)
    return members


def read_folder(folder):
    """Return the Members in one folder."""
    run_json = cli.read_json(folder / "run.json")
    if "model" in run_json:
        runs = result_files.load_network_logits(folder, run_json["model"])
    else:
        runs = result_files.load_results(folder, run_json)
    members = []
    for (config, seed), result in runs.items():
        if "val_logits" not in result:
            print(f"left out: {config}, seed {seed} of {folder.name} has no validation set")
            continue
        fields = run_json["configs"][config] if "configs" in run_json else run_json["recipe"]
        settings = result_files.run_settings(run_json.get("model"), fields, seed, run_json)
        val, test = (F.softmax(torch.from_numpy(result[f"{part}_logits"]).double(), 1) for part in ("val", "test"))
        members.append(Member(config, seed, folder.name, settings, bool(run_json.get("shortened")), val, test))
    return members


def choose(members, val_labels, within):
    """Return the members whose validation accuracy is within so many points of the best.

    Raises:
        UserError: there are fewer than two, or they hold out other images than the 9:1 split.
    """
    for member in members:
        if len(member.val) != len(val_labels):
            raise UserError(
                f"{member.name} of {member.folder} holds out other images than the 9:1 split, which an ensemble needs"
            )
    accuracy = [percent_correct(member.val, val_labels) for member in members]
    chosen = [member for member, value in zip(members, accuracy) if value >= max(accuracy) - within]
    if len(chosen) < 2:
        raise UserError(
            f"fewer than two trainings are within {within:g} points of the best validation accuracy; run"
            " project3_wrn/compare_models.py first"
        )
    names = [member.name for member in chosen]
    return [
        dataclasses.replace(member, config=f"{member.folder}/{member.config}")
        if names.count(member.name) > 1
        else member
        for member in chosen
    ]


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


# --- what is saved ---


def save(options, source, members, weights, test, methods, test_labels):
    """Write predictions.npz, the predicted classes of members and methods, and run.json."""
    arrays = {
        "members": test.argmax(-1).to(torch.uint8).numpy(),
        "methods": torch.stack([scores.argmax(-1) for scores in methods.values()]).to(torch.uint8).numpy(),
        "test_labels": test_labels.to(torch.uint8).numpy(),
        "val_accuracy": (100 * weights).numpy(),
    }
    tables.save_arrays(options.out / "predictions.npz", arrays)
    described = [
        {
            **{name: getattr(member, name) for name in ("config", "seed", "folder")},
            **{name: member.settings[name] for name in ("model", "epochs")},
        }
        for member in members
    ]
    seeds = sorted({member.seed for member in members})
    cli.write_run_json(
        dataclasses.replace(options, seeds=seeds),
        source,
        shortened=any(member.shortened for member in members),
        members=described,
        methods=list(methods),
    )


def write_results(out):
    """Write every table and figure from predictions.npz and run.json."""
    run_json, saved = cli.read_json(out / "run.json"), tables.load_arrays(out / "predictions.npz")
    members, val_accuracy, scale = run_json["members"], saved["val_accuracy"], run_json["scale"]
    test, methods, labels = (torch.from_numpy(saved[name]).long() for name in ("members", "methods", "test_labels"))
    methods = dict(zip(run_json["methods"], methods))
    groups, disagreement = group_by_config(members), pairwise_disagreement(test)
    test_accuracy = [accuracy(member, labels) for member in test]
    best = int(np.argmax(val_accuracy))
    compared = {method: compare(predictions, test[best], labels) for method, predictions in methods.items()}
    scores = {config: class_scores(test[indices], labels) for config, indices in groups.items()}
    scores[MEAN] = class_scores(methods[MEAN][None], labels)
    mean_disagreement = float(disagreement.sum() / (len(test) * (len(test) - 1)))
    plots.setup(scale=scale)

    folders = ", ".join(f"`{folder}`" for folder in dict.fromkeys(member["folder"] for member in members))
    best_name = f"{members[best]['config']}, seed {members[best]['seed']}"
    page = [
        *study_tables.stamp(run_json),
        f"{len(members)} members: the finished runs of {folders} that are within {WITHIN[scale]:g} points of the best"
        " validation accuracy, each a training of its own.",
        method_table(best_name, test_accuracy[best], compared),
        "p is that of McNemar's exact test against the best member: the chance of so uneven a split of the images that"
        " only one of the two predicts correctly, if both were equally accurate.",
        "## The members",
        member_table(groups, val_accuracy, test_accuracy),
        "## Complementarity: by class, %, mean over seeds",
        complementarity(scores),
        *itertools.chain.from_iterable(
            (f"### {quantity.capitalize()}", class_table(scores, quantity))
            for quantity in ("precision", "recall", "F1")
        ),
        f"Two members disagree on {mean_disagreement:.2f}% of the test images on average. At least one is correct on"
        f" {oracle(test, labels):.2f}%, which no vote among them can exceed.",
    ]
    tables.write_markdown(out / "ensemble.md", "Project 3: the networks together", page, scale)
    tables.write_csv(
        out / "members.csv",
        [
            {
                **{name: member[name] for name in ("config", "seed", "folder", "epochs")},
                "val_accuracy": f"{val:.2f}",
                "test_accuracy": f"{value:.2f}",
            }
            for member, val, value in zip(members, val_accuracy, test_accuracy)
        ],
    )
    tables.write_csv(out / "classes.csv", class_rows(scores))
    write_numbers(out / "ensemble.json", test_accuracy[best], compared, scores, list(groups)[group_of(groups, best)])
    facts = (f"{len(members)} members", *study_tables.facts(run_json))
    draw_diversity(out / "diversity.png", list(groups), disagreement_by_config(groups, disagreement).numpy(), facts)


def accuracy(predictions, labels):
    """Return the percentage of predictions that are right."""
    return float((predictions == labels).double().mean() * 100)


def compare(predictions, other, labels):
    """Return what a method reaches, and its McNemar test against another: accuracy, difference, p."""
    value = accuracy(predictions, labels)
    return {"accuracy": value, "difference": value - accuracy(other, labels), "p": mcnemar(predictions, other, labels)}


def mcnemar(one, other, labels):
    """Return the p-value of McNemar's exact two-sided test that two sets of predictions (N,) are equally accurate.

    Of the images that only one of the two predicts correctly, each is then equally likely to be either's.
    """
    first, second = one == labels, other == labels
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def class_scores(predictions, labels):
    """Return {"precision", "recall", "F1": per cent (classes,), the mean over members} of predictions (M, N).

    A class that is never predicted has a precision of 0, as in scikit-learn.
    """
    matrices = torch.stack([evaluation.confusion_matrix(labels, member) for member in predictions]).double()
    right = matrices.diagonal(dim1=1, dim2=2)
    precision = 100 * right / matrices.sum(1).clamp(min=1)
    recall = 100 * right / matrices.sum(2).clamp(min=1)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return {"precision": precision.mean(0), "recall": recall.mean(0), "F1": f1.mean(0)}


def write_numbers(path, best_accuracy, compared, scores, best_config):
    """Write ensemble.json: what the claims of section 3.2 are judged by."""
    names = {method: method.split(" (")[0].replace(" ", "_") for method in compared}
    cli.write_json(
        path,
        {
            "best_member": best_accuracy,
            **{names[method]: result["accuracy"] for method, result in compared.items()},
            **{f"p_{names[method]}": result["p"] for method, result in compared.items()},
            "macro_f1_best_member": float(scores[best_config]["F1"].mean()),
            "macro_f1_mean_probability": float(scores[MEAN]["F1"].mean()),
        },
    )


# --- tables ---


def method_table(best, best_accuracy, compared):
    """Return one row for the best member and one per method, with its difference from that member and p."""
    first = {"method": f"best member by validation: {best}", "test, %": f"{best_accuracy:.2f}"}
    return [
        {**first, "difference, points": "", "p": ""},
        *(
            {
                "method": method,
                "test, %": f"{result['accuracy']:.2f}",
                "difference, points": f"{result['difference']:+.2f}",
                "p": f"{result['p']:.2g}",
            }
            for method, result in compared.items()
        ),
    ]


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


def class_table(scores, quantity):
    """Return one row per configuration and one of the mean probability; the best configuration of a class is bold."""
    means = torch.stack([values[quantity] for config, values in scores.items() if config != MEAN])
    rows = []
    for config, values in scores.items():
        best = values[quantity] == means.amax(0)
        cells = [
            f"**{value:.1f}**" if bold and config != MEAN else f"{value:.1f}"
            for value, bold in zip(values[quantity], best)
        ]
        rows.append({"config": config, **dict(zip(CLASSES, cells)), "macro": f"{values[quantity].mean():.2f}"})
    return rows


def class_rows(scores):
    """Return one row per configuration and class, in per cent."""
    return [
        {
            "config": config,
            "class": name,
            **{quantity.lower(): f"{float(numbers[index]):.2f}" for quantity, numbers in values.items()},
        }
        for config, values in scores.items()
        for index, name in enumerate(CLASSES)
    ]


def complementarity(scores):
    """Return sentences on whether precision and recall of the members complement each other (report, section 3.2)."""
    configs = [config for config in scores if config != MEAN]
    precise, sensitive = (
        torch.stack([scores[config][quantity] for config in configs]).argmax(0) for quantity in ("precision", "recall")
    )
    imbalance = {name: float((one["precision"] - one["recall"]).abs().mean()) for name, one in scores.items()}
    best = max(configs, key=lambda config: float(scores[config]["F1"].mean()))
    text = (
        f"In {int((precise != sensitive).sum())} of {len(CLASSES)} classes the configuration with the highest precision"
        " is not the one with the highest recall. Precision and recall of a class differ by"
        f" {imbalance[MEAN]:.2f} points on average with the mean probability, and by"
        f" {np.mean([imbalance[config] for config in configs]):.2f} with a single configuration. Macro F1 is"
        f" {scores[MEAN]['F1'].mean():.2f} with the mean probability and {scores[best]['F1'].mean():.2f} with"
        f" {best}, the best configuration."
    )
    wide = [config for config in configs if config.startswith("wrn")]
    if "vgg16_bn" in configs and wide:
        ahead = {
            quantity: int((sign * (scores["vgg16_bn"][quantity] - scores[wide[0]][quantity]) > 0).sum())
            for quantity, sign in (("precision", 1), ("recall", -1))
        }
        text += (
            f" The report's example: vgg16_bn has the higher precision in {ahead['precision']} classes, {wide[0]} the"
            f" higher recall in {ahead['recall']}."
        )
    return text


def oracle(test, labels):
    """Return the percentage of images that at least one member predicts correctly."""
    return float((test == labels).any(0).double().mean() * 100)


# --- which members differ ---


def group_by_config(members):
    """Return {configuration: indices of its seeds among the members}."""
    groups = {}
    for index, member in enumerate(members):
        groups.setdefault(member["config"], []).append(index)
    return groups


def group_of(groups, index):
    """Return the position of the configuration that the member `index` is of."""
    return next(position for position, indices in enumerate(groups.values()) if index in indices)


def pairwise_disagreement(predictions):
    """Return the percentage (M, M) of the images on which two members disagree."""
    return (predictions[:, None] != predictions).double().mean(-1) * 100


def disagreement_by_config(groups, disagreement):
    """Return the mean disagreement (configurations, configurations) of two different members, one of each.

    A configuration with one seed has 0 with itself.
    """

    def mean_between(rows, columns):
        values = [disagreement[i, j] for i in rows for j in columns if i != j]
        return sum(values) / len(values) if values else 0.0

    return torch.tensor([[mean_between(a, b) for b in groups.values()] for a in groups.values()])


def order_by_similarity(disagreement):
    """Return an order of the configurations (n,) that puts similar ones next to each other."""
    if len(disagreement) < 3:
        return list(range(len(disagreement)))
    distances = squareform(disagreement - np.diag(np.diag(disagreement)), checks=False)
    return hierarchy.leaves_list(hierarchy.linkage(distances, "average", optimal_ordering=True)).tolist()


def draw_diversity(path, names, disagreement, facts=()):
    """Draw the percentage of test images on which two configurations disagree, as a triangle.

    The diagonal has the disagreement between seeds of one configuration, and is empty where there is one seed.
    """
    order = order_by_similarity(disagreement)
    names, values = [names[index] for index in order], disagreement[np.ix_(order, order)]
    hidden = np.triu(np.ones_like(values, bool), 1) | (np.eye(len(values), dtype=bool) & (values == 0))
    shown = np.ma.masked_array(values, hidden)
    side = 0.5 * len(names)
    figure, axes = plots.plt.subplots(figsize=(side + 4, side + 3), layout="constrained")
    image = axes.imshow(shown, cmap="cividis")
    middle = (shown.min() + shown.max()) / 2
    if len(names) <= ANNOTATED:
        for row, column in np.argwhere(~hidden):
            color = "white" if values[row, column] < middle else "black"
            text = f"{values[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.grid(False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Test images that two members disagree on, %")
    seeds = ["the diagonal compares seeds"] if values.diagonal().any() else []
    plots.about(figure, "How often two members of the ensemble disagree", *facts, *seeds)
    plots.save(figure, path)


if __name__ == "__main__":
    cli.entry_point(main)
