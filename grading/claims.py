"""The reports' claims (claims.csv) and the verdicts on them, each computed from the committed outputs or from the code.

A claim's `check` is one of
    measured      `field` of `file` against `value`, within `tolerance`;
    computed      `field`, an expression over the values of other claims, against `value`;
    contradicted  the claim `against` says something else. Where the two agree, the claim is checked as measured.
A value of >x or <x is a bound. `value_zh` and `configuration_zh` are empty where the English text serves both.

A `field` is an expression of +, -, *, / over terms: `test_accuracy[config=baseline]` is a column of a CSV file, with
the row to take; `epoch_losses[config=baseline,epoch=2]` an array of a history, with its epoch (-1 is the last);
`best_epoch` a key of a JSON file. With a module of common/ as `file` the terms are FACTS, computed from the code.
"""

import ast
import csv
import operator
import re
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from common import cli, tables
from common.support.errors import UserError
from grading.facts import FACTS
from grading.strings import KINDS, REASONS, Text, format_seeds

CLAIMS = Path(__file__).parent / "claims.csv"
CHECKS = ("measured", "computed", "contradicted")
NO_REASON = Text("", "")
ROUNDING = 1e-9  # of decimal numbers as floats
NUMBER = re.compile(r"[<>]?[-\d.e]+")
TERM = re.compile(r"[A-Za-z_]\w*(?:\[[^\]]*\])?")
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
STUDIES = ("compare_models", "batch_epoch_grid", "improvements", "ensemble", "label_audit")


@dataclass(frozen=True)
class Claim:
    """One row of claims.csv."""

    id: str
    report: str
    section: str
    zh: str
    en: str
    quantity: str
    value: str
    unit: str
    value_zh: str
    configuration: str
    configuration_zh: str
    check: str
    file: str
    field: str
    against: str
    tolerance: str

    @property
    def source(self):
        """The file, relative to the repository, that our number is read from or computed in."""
        return "grading/facts.py" if self.file.startswith("common.") else self.file

    @property
    def is_bound(self):
        return self.value[0] in "<>"

    @property
    def is_fact(self):
        return self.file.startswith("common.")

    @property
    def needs_gpu(self):
        return "on a GPU" in self.configuration

    @property
    def value_text(self):
        text = f"{self.value} {self.unit}".strip() if NUMBER.fullmatch(self.value) else self.value
        return Text(text, self.value_zh or text)

    @property
    def configuration_text(self):
        return Text(self.configuration, self.configuration_zh or self.configuration)


@dataclass(frozen=True)
class Verdict:
    """What the outputs say of one claim; `problem` is what is wrong with their files, empty where nothing is."""

    kind: str  # of KINDS
    measured: str = ""
    reason: Text = NO_REASON
    problem: str = ""


class NotRun(Exception):
    """No full run has written this file yet. The text is the command that writes it."""


def read_claims(path=CLAIMS):
    """Read the claims as {id: Claim}.

    Raises:
        UserError: the file has other columns, an unknown check, or a claim against one that does not exist.
    """
    columns = [field.name for field in fields(Claim)]
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise UserError(f"{path} has other columns than {', '.join(columns)}")
        claims = {row["id"]: Claim(**row) for row in reader}
    for claim in claims.values():
        if claim.check not in CHECKS:
            raise UserError(f"claim {claim.id}: no check is called {claim.check!r}")
        if claim.against and claim.against not in claims:
            raise UserError(f"claim {claim.id} is against {claim.against}, which does not exist")
    return claims


def judge_all(claims):
    """Return {id: Verdict} of all claims."""
    return {name: judge(claim, claims) for name, claim in claims.items()}


def judge(claim, claims):
    """Return the Verdict on one claim. A damaged file or a missing field is its `problem`."""
    values, command, problem = None, "", ""
    try:
        if claim.file:
            values = read_values(claim.file, claim.field, claim.needs_gpu)
    except NotRun as error:
        command = str(error)
    except (UserError, ValueError) as error:
        command, problem = command_for(claim.file), str(error)
    measured = "" if values is None else format_values(values, claim.unit)

    if claim.check == "contradicted" and contradict(claim, claims[claim.against]):
        reason = REASONS["other claim"].format(id=claim.against, value=claims[claim.against].value_text)
        return Verdict("contradicted", measured, reason, problem)
    if claim.check == "computed":
        computed = evaluate(claim.field, {term: float(claims[term].value) for term in TERM.findall(claim.field)})
        right = abs(computed - float(claim.value)) <= float(claim.tolerance) + ROUNDING
        calculation = f"{claim.field} = {computed:.6g}"
        return Verdict("consistent" if right else "contradicted", reason=Text(calculation, calculation))
    if values is None:
        return Verdict("not yet run", reason=Text(command, command), problem=problem)
    if claim.is_bound and margin(claim, values) is None:
        return Verdict("not yet run", measured, REASONS["one seed"])
    return Verdict("reproduced" if agree(claim, values) else "not reproduced", measured, explain(claim, values))


def contradict(claim, other):
    """Return whether two claims about the same quantity differ by more than the first one's tolerance."""
    try:
        if claim.value.startswith(">"):
            return float(other.value) <= float(claim.value[1:])
        return abs(float(claim.value) - float(other.value)) > float(claim.tolerance or 0)
    except ValueError:  # their values are text
        return claim.value != other.value


def agree(claim, values):
    """Return whether the mean is within the tolerance of the claim's number, or beyond its bound by the margin."""
    mean = values.mean()
    if claim.value[0] == ">":
        return mean - margin(claim, values) > float(claim.value[1:])
    if claim.value[0] == "<":
        return mean + margin(claim, values) < float(claim.value[1:])
    return abs(mean - float(claim.value)) <= float(claim.tolerance) + ROUNDING


def margin(claim, values):
    """Return how far beyond a bound the mean must be: the tolerance, else half of the 95% interval over seeds.

    It is 0 for a fact, and None for one seed without a tolerance.
    """
    if claim.tolerance:
        return float(claim.tolerance)
    return 0.0 if claim.is_fact else tables.half_width(values)


def explain(claim, values):
    """Return what the verdict rests on."""
    seeds = format_seeds(len(values))
    if claim.is_fact:
        return REASONS["code"]
    if claim.is_bound and not claim.tolerance:
        return REASONS["confidence"].format(seeds=seeds)
    return REASONS["tolerance"].format(tolerance=claim.tolerance, seeds=seeds)


def format_values(values, unit):
    """Return mean ± standard deviation with as many digits as fit the size of the mean."""
    mean = abs(values.mean())
    if 0 < mean < 1e-3:
        return f"{values.mean():.4g}"
    return tables.mean_std(values, digits=0 if mean >= 1000 else 2 if mean >= 10 or unit in ("%", "points") else 4)


def count_verdicts(claims, verdicts):
    """Return {report: {kind: count}}."""
    counts = {claim.report: dict.fromkeys(KINDS, 0) for claim in claims.values()}
    for name, verdict in verdicts.items():
        counts[claims[name].report][verdict.kind] += 1
    return counts


def read_values(file, field, needs_gpu=False):
    """Return the field's values, a float array with one entry per seed that all of its terms have.

    Raises:
        NotRun: no full run has written the file, or none on a GPU where one is needed.
        UserError: the file is damaged.
        ValueError: the file has no such field.
    """
    terms = TERM.findall(field)
    if file.startswith("common."):
        return np.atleast_1d(evaluate(field, {term: compute_fact(term) for term in terms})).astype(float)
    path = cli.ROOT / file
    if not path.exists() or not (path.parent / "run.json").exists():
        raise NotRun(command_for(file))
    run = cli.read_json(path.parent / "run.json")
    if run.get("scale") != "full" or run.get("shortened"):
        raise NotRun(command_for(file))
    if needs_gpu and run.get("device_type") != "cuda":
        raise NotRun(command_for(file).removesuffix(" --device cuda") + " --device cuda")
    if path.suffix == ".npz":
        histories = tables.load_histories(path)
        values = {term: look_up_history(histories, term) for term in terms}
    else:
        rows = tables.read_csv(path) if path.suffix == ".csv" else cli.read_json(path)
        values = {term: look_up_rows(rows if isinstance(rows, list) else [rows], term) for term in terms}
    seeds = sorted(set.intersection(*map(set, values.values())))
    if not seeds:
        missing = [term for term in terms if not values[term]]
        raise ValueError(f"{path.name} has no {', '.join(missing) or 'seed with all of ' + field}")
    return evaluate(field, {term: np.array([values[term][seed] for seed in seeds], float) for term in terms})


def look_up_rows(rows, term):
    """Return {seed: value} of a term in the rows of a table; a row that names no seed has its position instead."""
    name, wanted = split_term(term)
    matches = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    return {
        row.get("seed", position): float(row[name]) for position, row in enumerate(matches) if row.get(name) is not None
    }


def look_up_history(histories, term):
    """Return {seed: value} of a term in histories; NaN where training stopped before the epoch, so it never agrees."""
    name, wanted = split_term(term)
    epoch = int(wanted["epoch"])
    position = epoch - 1 if epoch > 0 else epoch
    return {
        seed: history[name][position] if epoch <= len(history[name]) else np.nan
        for (config, seed), history in histories.items()
        if config == wanted["config"] and name in history
    }


def command_for(file):
    """Return the command that writes a file or folder of outputs."""
    task, _, name, *_ = [*file.split("/"), ""]
    if name == "batch_size":
        return f"python {task}/batch_size.py --scale full"
    if task != "project3_wrn":
        return f"python {task}/main.py --scale full"
    if name in STUDIES:
        return f"python {task}/{name}.py --scale full{'' if name == 'ensemble' else ' --device cuda'}"
    return f"python {task}/main.py --model {name} --scale full"


def evaluate(expression, values):
    """Evaluate an expression, given {term: number or array}.

    Raises:
        ValueError: it is not an expression of + - * / over terms.
    """
    names = {term: f"t{place}" for place, term in enumerate(dict.fromkeys(TERM.findall(expression)))}
    variables = {name: values[term] for term, name in names.items()}

    def compute(node):
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](compute(node.left), compute(node.right))
        if isinstance(node, ast.Name):
            return variables[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        raise ValueError(f"{expression!r} is more than terms and + - * /")

    try:
        return compute(ast.parse(TERM.sub(lambda match: names[match[0]], expression), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{expression!r} is not an expression") from error


def split_term(term):
    """Split `name[key=value,...]` into its name and a dict."""
    name, _, inside = term.rstrip("]").partition("[")
    return name, dict(part.split("=", 1) for part in inside.split(",") if part)


def compute_fact(term):
    name, arguments = split_term(term)
    if name not in FACTS:
        raise ValueError(f"no fact is called {name}")
    return FACTS[name](**arguments)
