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
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import torch
import torch.nn.functional as F

from common import cli, data, tables
from common.support import plan
from common.support.errors import UserError, reading
from project3_wrn import result_files, runner
from project3_wrn.analysis import ensemble_tables
from project3_wrn.analysis.study_tables import percent_correct
from project3_wrn.method.recipes import TEST_TIME_FIELDS

WITHIN = {"quick": 100.0, "full": 5.0}  # points of validation accuracy that a member may be below the best
SMALLEST_PROBABILITY = 1e-6  # stacking takes logarithms
STACKING = dict(C=0.01, max_iter=2000)  # arguments of scikit-learn's LogisticRegression
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
        with cli.reading_results(options):
            ensemble_tables.write_results(options.out)
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
    roots = output_roots(scale)
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


def output_roots(scale):
    """Return the folders of project 3 that have outputs of this scale: of full runs, then of short ones."""
    return ["outputs_quick"] if scale == "quick" else ["outputs", runner.SHORT_OUTPUTS]


def count_runs(folder):
    """Return how many finished runs with a validation set a folder has."""
    if (folder / "logits.npz").exists():
        return sum(key.endswith("/val") for key in tables.load_arrays(folder / "logits.npz"))
    return len(list(folder.glob("runs/[!.]*.npz")))


def output_folder(folders, scale, redraw):
    """Return the folder ensemble/ next to the members."""
    if folders:
        return folders[0].resolve().parent / "ensemble"
    roots = output_roots(scale)
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
    found = []
    for folder in folders:
        with reading(folder):
            found += read_folder(folder)
    for member in found:
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
        if not all(part.isfinite().all() and part.shape[1:] == (len(data.CLASSES),) for part in (val, test)):
            raise UserError(f"{config}, seed {seed} of {folder} has logits that are not finite or not of ten classes")
        members.append(Member(config, seed, folder.name, settings, bool(run_json.get("shortened")), val, test))
    return members


def choose(members, val_labels, within):
    """Return the members whose validation accuracy is within so many points of the best.

    Raises:
        UserError: there are fewer than two, or they hold out other images than the 9:1 split.
    """
    for member in members:
        if len(member.test) != len(members[0].test):
            raise UserError(f"{member.name} of {member.folder} has logits of other test images than {members[0].name}")
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
        ensemble_tables.MEAN: test.mean(0),
        "mean weighted by validation accuracy": torch.einsum("m,mnc->nc", weights / weights.sum(), test),
        "stacking (logistic regression)": stacking(val, val_labels, test),
    }


def vote(probabilities):
    """Return the votes (N, 10) of members (M, N, 10); a tie goes to the class with the higher mean probability."""
    votes = F.one_hot(probabilities.argmax(-1), probabilities.shape[-1]).sum(0)
    return votes + probabilities.mean(0) / 2  # less than a whole vote


def stacking(val, val_labels, test):
    """Return the probabilities (N, 10) of logistic regression on the members' log-probabilities, fitted on val."""
    from sklearn.linear_model import LogisticRegression  # not at the top: --help would wait for it
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

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
        within=WITHIN[options.scale],
    )


if __name__ == "__main__":
    cli.entry_point(main)
