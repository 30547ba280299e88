"""Each claim of grading/claims.csv beside what was measured. No verdict is typed in: all are computed here."""

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from common import tables
from common.support.errors import UserError
from grading import sources
from grading.words import in_chinese

CLAIMS = Path(__file__).parent / "claims.csv"
COLUMNS = (
    "id",
    "report",
    "section",
    "zh",
    "en",
    "quantity",
    "value",
    "unit",
    "configuration",
    "check",
    "file",
    "field",
    "against",
    "tolerance",
)
KINDS = ("reproduced", "not reproduced", "consistent", "contradicted", "not yet run")


@dataclass
class Verdict:
    kind: str
    measured: str = ""  # what was measured, as text
    why: tuple = ("", "")  # in English and Chinese
    problem: str = field(default="", compare=False)


def read_claims(path=CLAIMS):
    """{id: claim}. Raises UserError where the file is not of this shape."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path} has other columns than {', '.join(COLUMNS)}")
        claims = {row["id"]: row for row in reader}
    for claim in claims.values():
        if claim["check"] not in ("measured", "computed", "contradicted"):
            raise UserError(f"claim {claim['id']}: no check is called {claim['check']!r}")
        if claim["against"] and claim["against"] not in claims:
            raise UserError(f"claim {claim['id']} is against {claim['against']}, which is no claim")
    return claims


def judge(claim, claims):
    """The Verdict on one claim. What is wrong with its source, a damaged file or a field that is not there, is its `problem`."""
    try:
        values = (
            sources.read_values(claim["file"], claim["field"], "on a GPU" in claim["configuration"])
            if claim["file"]
            else None
        )
        missing, problem = "", ""
    except sources.NotRun as error:
        values, missing, problem = None, str(error), ""
    except (UserError, ValueError) as error:
        values, missing, problem = None, sources.command(claim["file"]), str(error)
    measured = "" if values is None else shown(values, claim["unit"])

    if claim["check"] == "contradicted":
        other = claims[claim["against"]]
        if differ(claim, other):
            said = says(other)
            why = (f"{claim['against']} says {said}", f"{claim['against']} 为 {in_chinese(said)}")
            return Verdict("contradicted", measured, why, problem)
    if claim["check"] == "computed":
        computed = float(sources.evaluate(claim["field"], lambda term: float(claims[term]["value"])))
        right = abs(computed - float(claim["value"])) <= float(claim["tolerance"]) + 1e-9
        why = f"{claim['field']} = {computed:.6g}"
        return Verdict("consistent" if right else "contradicted", "", (why, why))
    if values is None:
        return Verdict("not yet run", "", (missing, missing), problem)
    if claim["value"][0] in "<>" and margin(claim, values) is None:
        return Verdict("not yet run", measured, ("one seed says nothing of chance", "单个种子无法排除偶然"))
    return Verdict("reproduced" if agrees(claim, values) else "not reproduced", measured, within(claim, values))


def says(claim):
    """The claim's value, with its unit where it is a number."""
    return (
        f"{claim['value']} {claim['unit']}".strip()
        if re.fullmatch(r"[<>]?[-\d.e]+", claim["value"])
        else claim["value"]
    )


def differ(claim, other):
    try:
        if claim["value"].startswith(">"):
            return float(other["value"]) <= float(claim["value"][1:])
        return abs(float(claim["value"]) - float(other["value"])) > float(claim["tolerance"] or 0)
    except ValueError:
        return claim["value"] != other["value"]


def agrees(claim, values):
    """Within the tolerance of the number; of `>0` and `<0`, beyond it by more than the margin."""
    mean, value = values.mean(), claim["value"]
    if value[0] in "<>":
        bound, margin_ = float(value[1:]), margin(claim, values)
        return mean - margin_ > bound if value[0] == ">" else mean + margin_ < bound
    return abs(mean - float(value)) <= float(claim["tolerance"]) + 1e-12


def margin(claim, values):
    """By how much a mean must be beyond a bound: the claim's tolerance, or half of the 95% confidence interval over the seeds.

    What is taken from the code needs none; of one seed without a tolerance it is None.
    """
    if claim["tolerance"]:
        return float(claim["tolerance"])
    return 0.0 if claim["file"].startswith("common.") else tables.half_width(values)


def within(claim, values):
    """On what the verdict rests."""
    if claim["file"].startswith("common."):
        return "taken from the code", "取自代码"
    seeds = (f"{len(values)} seed{'s' * (len(values) > 1)}", f"{len(values)} 个种子")
    if claim["value"][0] in "<>" and not claim["tolerance"]:
        return f"95% confidence, {seeds[0]}", f"95% 置信，{seeds[1]}"
    return f"± {claim['tolerance']} asked, {seeds[0]}", f"要求 ± {claim['tolerance']}，{seeds[1]}"


def shown(values, unit):
    mean = abs(values.mean())
    digits = 0 if mean >= 1000 else 2 if mean >= 10 or unit in ("%", "points") else 4
    return f"{tables.mean_std(values, digits)}" if mean >= 1e-3 or mean == 0 else f"{values.mean():.4g}"


def judge_all(claims):
    """{id: Verdict} of all claims."""
    return {name: judge(claim, claims) for name, claim in claims.items()}


def counts(claims, verdicts):
    """{report: {kind: count}}."""
    numbers = {
        report: dict.fromkeys(KINDS, 0) for report in dict.fromkeys(claim["report"] for claim in claims.values())
    }
    for name, verdict in verdicts.items():
        numbers[claims[name]["report"]][verdict.kind] += 1
    return numbers
