"""The page's first screen, computed from the outputs and the verdicts: what a reader with three minutes needs."""

from typing import NamedTuple

import numpy as np

from common import cli, tables
from common.reported import ACCURACY, NETWORKS, TASK1_ACCURACY
from common.support.plan import image_counts
from common.support.translations import Text, label
from grading import strings
from grading.rules import CONFIDENCE, agree, is_bound
from project3_wrn.method.recipes import RECIPES

WAITING = ("short run", "not yet run")
TASK3, BATCH_SIZE = "task3_hparams/outputs", "task4_architectures/outputs/batch_size"


class Row(NamedTuple):
    """One run of the forest plot: test accuracies in per cent."""

    name: Text
    reported: tuple[float, ...]  # the report's numbers
    ours: np.ndarray  # over seeds; empty where nothing was run
    file: str  # that has our numbers
    section: str  # its anchor

    @property
    def interval(self):
        """The 95% prediction interval, within 0..100; None of fewer than two seeds."""
        if len(self.ours) < 2:
            return None
        mean, half = self.ours.mean(), tables.prediction_half_width(self.ours, CONFIDENCE)
        return max(mean - half, 0.0), min(mean + half, 100.0)

    @property
    def text(self):
        return tables.mean_std(self.ours)

    @property
    def reported_text(self):
        return " / ".join(map(format_number, self.reported))

    @property
    def agrees(self):
        """Whether the report's numbers lie in the interval; None without numbers or an interval."""
        if not self.reported or self.interval is None:
            return None
        return all(agree(str(value), self.ours) for value in self.reported)


def format_number(number):
    """Return a report's number; a whole one is rounded, so it has no decimals."""
    return str(number) if isinstance(number, int) else f"{number:.2f}"


def forest():
    """Return the forest plot's groups, {title: Rows}: every run whose test accuracy a report states, and ours."""
    lenet, resnet = (ACCURACY["task4_architectures"][name] for name in ("lenet", "lightweight_resnet"))
    groups = {
        strings.GROUPS["task1"]: [row("task1_loss_curves", "baseline", TASK1_ACCURACY)],
        strings.GROUPS["task2"]: [
            *(row("task2_regularization", *pair) for pair in reported("task2_regularization")),
            row("task2_regularization", "l2", (), name=strings.L2_ONLY),
            row("task2_regularization", "dropout", (), name=strings.DROPOUT_ONLY),
        ],
        strings.GROUPS["task3"]: [
            *(row("task3_hparams", *pair) for pair in reported("task3_hparams")),
            row("task3_hparams", "no_regularization_more_epochs", ()),
        ],
        strings.GROUPS["task4"]: [
            row("task4_architectures", "lenet", (lenet,), name=strings.LENET_64),
            row("task4_architectures", "lenet_batch_100", (lenet,), "batch_size/results.csv", strings.LENET_100),
            row("task4_architectures", "lightweight_resnet", (resnet,), name=strings.RESNET_64),
            row("task4_architectures", "resnet_batch_100", (resnet,), "batch_size/results.csv", strings.RESNET_100),
        ],
        strings.GROUPS["project3"]: [
            *(row("project3_wrn", name, (test,), f"{name}/metrics.json") for name, (_, _, test) in NETWORKS.items()),
            row("project3_wrn", "fast94", (), "fast94/metrics.json"),
        ],
    }
    return groups


def reported(task):
    """Return [(configuration, the report's numbers)] of a task."""
    return [(config, (value,)) for config, value in ACCURACY[task].items()]


def row(task, config, numbers, file="results.csv", name=None):
    """Return a Row of one configuration or network."""
    path = cli.ROOT / task / "outputs" / file
    ours = np.array([])
    if path.suffix == ".json" and path.exists() and cli.read_json(path.parent / "run.json")["scale"] == "full":
        ours = np.array([entry["test_accuracy"] for entry in cli.read_json(path, list)])
    elif path.suffix == ".csv" and path.exists():
        ours = tables.accuracies(path).get(config, ours)
    below = "/".join(file.split("/")[:-1])
    section = f"{task}-{below}" if below and len(ours) else task
    return Row(name or label(config), numbers, ours, f"{task}/outputs/{file}", section)


def sentences(counts):
    """Return {report: what became of its claims}, from {report: {kind of verdict: count}}."""
    return {report: strings.SUMMARY[report].format(**tally(kinds)) for report, kinds in counts.items()}


def tally(kinds):
    """Return {kind of verdict: count} by the placeholders of the sentences that sum it up."""
    return {
        "all": sum(kinds.values()),
        "reproduced": kinds["reproduced"],
        "consistent": kinds["consistent"],
        "failed": kinds["not reproduced"] + kinds["wrong as stated"],
        "unreproduced": kinds["not reproduced"],
        "wrong": kinds["wrong as stated"],
        "short": kinds["short run"],
        "contradict": kinds["contradicts itself"],
        "open": kinds["depends on what the report does not say"],
        "waiting": sum(kinds[kind] for kind in WAITING),
    }


def numbers_sentence(groups):
    """Return how many of the assignment's accuracies lie in our intervals, and how many networks were trained."""
    networks = [row for row in groups[strings.GROUPS["project3"]] if row.reported]
    assignment = (row for title, rows in groups.items() for row in rows if title != strings.GROUPS["project3"])
    inside = find_inside((row.reported, row.ours) for row in assignment if row.interval)
    trained = sum(len(row.ours) > 0 for row in networks)
    return strings.NUMBERS.format(inside=sum(inside.values()), all=len(inside), networks=len(networks), trained=trained)


def find_inside(comparisons):
    """Return {number of a report: whether it lies in our interval wherever it is compared}.

    comparisons: pairs (the report's numbers, our values).
    """
    inside = {}
    for numbers, ours in comparisons:
        for number in numbers:
            inside[number] = inside.get(number, True) and agree(str(number), ours)
    return inside


def legend(groups):
    """Return what the marks of the forest plot mean."""
    seeds = [len(row.ours) for rows in groups.values() for row in rows if len(row.ours)]
    return strings.PAGE["forest_legend"].format(fewest=min(seeds, default=0), most=max(seeds, default=0))


def failures(entries):
    """Return the claims that our runs do not reproduce, those about a direction first, as (id, Text)."""
    failed = [entry.claims[0] for entry in entries if entry.verdict.kind == "not reproduced"]
    return [(claim.id, claim.brief) for claim in sorted(failed, key=lambda claim: not is_bound(claim.value))]


def findings():
    """Return the sentences on what the runs show beyond the verdicts, as (anchor, Text), those that hold."""
    return [finding for finding in (one_training(), open_batch_size(), underfitting()) if finding]


def one_training():
    """The low learning rate and the missing momentum of task 3 give steps of the same long-run size."""
    ours = read_accuracies(TASK3)
    if not ours:
        return None
    difference = ours["low_lr"] - ours["no_momentum"]
    if tables.excludes_zero(difference):
        return None
    reported = ACCURACY["task3_hparams"]["low_lr"] - ACCURACY["task3_hparams"]["no_momentum"]
    return "task3_hparams", strings.ONE_TRAINING.format(
        ours=f"{abs(difference.mean()):.2f}", report=f"{abs(reported):.2f}"
    )


def open_batch_size():
    """Task 4's batch size, which the report does not state, moves LeNet's accuracy."""
    ours = read_accuracies(BATCH_SIZE)
    if not ours:
        return None
    by_size = {int(name.rsplit("_", 1)[1]): values.mean() for name, values in ours.items() if name.startswith("lenet")}
    smallest, largest = min(by_size), max(by_size)
    return "task4_architectures-batch_size", strings.OPEN_BATCH_SIZE.format(
        high=f"{by_size[smallest]:.1f}",
        smallest=smallest,
        low=f"{by_size[largest]:.1f}",
        largest=largest,
        report=f"{ACCURACY['task4_architectures']['lenet']:.2f}",
    )


def underfitting():
    """LeNet gains from leaving out L2 and dropout."""
    ours = read_accuracies(TASK3)
    if not ours:
        return None
    gain = ours["no_regularization"] - ours["baseline"]
    if gain.mean() <= 0 or not tables.excludes_zero(gain):
        return None
    epochs = cli.read_json(cli.ROOT / TASK3 / "run.json")["configs"]["baseline"]["epochs"]
    return "task2_regularization", strings.UNDERFITTING.format(gain=f"{gain.mean():.1f}", epochs=epochs)


def read_accuracies(folder):
    path = cli.ROOT / folder / "results.csv"
    return tables.accuracies(path) if path.exists() else {}


def provenance(outputs):
    """Return what was run on what: machines, hours of training, day of the last run."""
    run = [part for part in outputs if part.run and part.state != "quick"]
    machines = dict.fromkeys(f"{part.run['device']}" for part in run if part.run.get("device"))
    cores = max((part.run.get("cores") or 0 for part in run), default=0)
    hours = sum(part.seconds for part in run) / 3600
    days = sorted(part.run["started"][:10] for part in run if part.run.get("started"))
    return strings.PROVENANCE.format(
        machines=" / ".join(machines), cores=cores, hours=f"{hours:.1f}", first=days[0], last=days[-1]
    )


def not_run(groups):
    """Return which networks of the reports were not run, and why."""
    names = [row.name for rows in groups.values() for row in rows if not len(row.ours)]
    return strings.NOT_RUN.format(
        names=tables.list_texts(names),
        hours=f"{hours_here('resnet18'):.0f}",
    )


def missing(outputs, entries):
    """Return what has not been run in full, as (Outputs, claims that wait for it, hours of a training here or None)."""
    waiting = [entry for entry in entries if entry.verdict.kind in WAITING]
    return [
        (
            part,
            sum(part.command in " ".join(text.en for text in entry.verdict.why) for entry in waiting),
            hours_here(part.folder.rsplit("/", 1)[-1]),
        )
        for part in outputs
        if part.state in ("missing", "shortened")
    ]


def hours_here(model):
    """Return the hours that one training takes by the rates of benchmarks/project3.json; None of other networks."""
    rates = cli.read_json(cli.ROOT / "benchmarks" / "project3.json")["ways"].get(model, {})
    if "winograd" not in rates:
        return None
    recipe = RECIPES.get(model, RECIPES["report"])
    images, _, _ = image_counts("full", recipe.validation_split)
    return recipe.epochs * images / np.median(rates["winograd"]["rates"]) / 3600


def versions(outputs):
    """Return the versions that the runs were trained with, each set once."""
    sets = [part.versions for part in outputs if part.versions]
    return list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in versions) for versions in sets))
