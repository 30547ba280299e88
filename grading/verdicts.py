"""The verdicts on the reports' claims, each computed from the committed outputs or from the code."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common import tables
from common.support.errors import UserError
from grading import evidence, rules
from grading.claims import Claim, Source
from grading.strings import KINDS, NOTHING, REASONS, ROUNDS, Text, format_seeds, join

PER_CENT = ("%", "points")


@dataclass(frozen=True)
class Measurement:
    """What the outputs say of a claim in one setting."""

    configuration: Text
    agrees: bool | None = None  # None without a full run or an interval
    text: str = ""  # our number; of a shortened run where `short` is set
    source: Source | None = None
    why: Text = NOTHING  # what the verdict rests on
    short: bool = False
    problem: str = ""  # what is wrong with the file


@dataclass(frozen=True)
class Verdict:
    """What our numbers say of one entry of the page."""

    kind: str  # of KINDS
    measurements: tuple[Measurement, ...] = ()
    reason: Text = NOTHING

    @property
    def problem(self):
        return " ".join(dict.fromkeys(m.problem for m in self.measurements if m.problem))

    @property
    def shown(self):
        """The measurements that have a number."""
        return [measurement for measurement in self.measurements if measurement.text]

    @property
    def why(self):
        """The reasons of the verdict, each once."""
        texts = [self.reason, *(measurement.why for measurement in self.measurements)]
        return list(dict.fromkeys(text for text in texts if text.en))


class Entry(NamedTuple):
    """What the page shows and counts as one: a claim, or the two sides of a contradiction."""

    claims: tuple[Claim, ...]
    verdict: Verdict

    @property
    def name(self):
        return " / ".join(claim.id for claim in self.claims)

    @property
    def report(self):
        return self.claims[0].report


def judge_all(claims):
    """Return the Entries of all claims, in their order."""
    partners = {claim.against: claim for claim in claims.values() if claim.check == "pair"}
    return [
        Entry((claim, *([partners[name]] if name in partners else [])), judge(claim, claims))
        for name, claim in claims.items()
        if claim.check != "pair"
    ]


def count_verdicts(entries):
    """Return {report: {kind: count}}."""
    counts = {entry.report: dict.fromkeys(KINDS, 0) for entry in entries}
    for entry in entries:
        counts[entry.report][entry.verdict.kind] += 1
    return counts


def judge(claim, claims):
    """Return the Verdict on one claim. A damaged file or a missing field is a problem of its Measurement."""
    if claim.check == "computed":
        return judge_computed(claim, claims)
    measurements = tuple(measure(claim, setting) for setting in claim.settings)
    if claim.check == "contradicted":
        other = claims.get(claim.against)
        conflict = not rules.compatible(claim.value, other.value) if other else not follows(claim, claims)
        if conflict:
            return judge_contradiction(claim, measurements, claims)
    return Verdict(kind_of(claim, measurements), measurements)


def kind_of(claim, measurements):
    """Return the kind of verdict that the settings together give."""
    found = {measurement.agrees for measurement in measurements} - {None}
    if len(found) == 2:
        return "depends on what the report does not say"
    if found:
        wrong = "wrong as stated" if claim.check == "fact" else "not reproduced"
        return "reproduced" if True in found else wrong
    return "short run" if any(measurement.short for measurement in measurements) else "not yet run"


def judge_computed(claim, claims):
    right = follows(claim, claims)
    calculation = format_calculation(claim, claims)
    return Verdict("consistent" if right else "contradicts itself", reason=Text(calculation, calculation))


def judge_contradiction(claim, measurements, claims):
    """Return the Verdict on a claim that another claim, or an expression of others, contradicts.

    It says with which of the two our runs agree.
    """
    other = claims.get(claim.against)
    if other:
        reason = REASONS["other claim"].format(id=other.id, value=other.value_text)
    else:
        calculation = format_calculation(claim, claims)
        reason = Text(calculation, calculation)
        other = dataclasses.replace(claim, value=f"{calculate(claim, claims)[0]:.6g}")  # measured as the claim is
    theirs = tuple(measure(other, setting) for setting in other.settings)
    agreeing = [name for name, own in ((claim.id, measurements), (claim.against, theirs)) if any(m.agrees for m in own)]
    if any(measurement.agrees is not None for measurement in measurements + theirs):
        side = REASONS["both" if len(agreeing) == 2 else "side" if agreeing else "neither"]
        reason = join(reason, side.format(id="".join(agreeing[:1])))
    return Verdict("contradicts itself", measurements, reason)


def follows(claim, claims):
    """Return whether the claim's number follows from other claims' numbers, as far as those are rounded."""
    return rules.holds(claim.value, *calculate(claim, claims))


def calculate(claim, claims):
    """Return the value of the expression `against`, and by how much the rounding of its numbers may change it."""
    numbers = {name: claims[name].value for name in evidence.find_terms(claim.against)}
    exact = {name: float(number) for name, number in numbers.items()}
    value = evidence.evaluate(claim.against, exact)
    shifts = [
        abs(evidence.evaluate(claim.against, {**exact, name: exact[name] + rules.half_unit(number)}) - value)
        for name, number in numbers.items()
    ]
    return value, sum(shifts)


def format_calculation(claim, claims):
    value, _ = calculate(claim, claims)
    return f"{claim.against} = {value:.6g}"


def measure(claim, setting):
    """Return the Measurement of a claim in one setting."""
    commands, problem = [], ""
    for source in setting.sources:
        try:
            values = evidence.read_values(source.files, source.field, claim.needs_gpu)
            return compare(claim, setting, source, values)
        except evidence.NotRun as error:
            commands.append(str(error))
        except (UserError, ValueError) as error:
            commands.append(evidence.command_for_verdict(source.files[0], claim.needs_gpu))
            problem = str(error)
    command = Text(commands[0], commands[0])
    for source in setting.sources:
        files = evidence.short_files(source.files)
        if short := evidence.read_short(files, source.field):
            values, what = short
            why = join(REASONS["short"].format(what=what), REASONS["full"].format(command=command))
            text = format_values(values, claim.unit)
            source = source._replace(files=files)
            return Measurement(setting.configuration, None, text, source, why, short=True, problem=problem)
    return Measurement(setting.configuration, why=command, problem=problem)


def compare(claim, setting, source, values):
    """Return the Measurement of a claim whose numbers are there."""
    text = format_values(values, claim.unit)
    if claim.check == "fact" or evidence.is_code(source.files[0]):
        number = float(np.mean(values))
        return Measurement(setting.configuration, rules.holds(claim.value, number), text, source, REASONS["fact"])
    if claim.p_value:
        p = float(evidence.read_values(source.files, claim.p_value)[0])
        agrees = rules.holds(claim.value, float(values[0])) and p < rules.SIGNIFICANCE
        return Measurement(setting.configuration, agrees, text, source, REASONS["p"].format(p=f"{p:.2g}"))
    agrees = rules.agree(claim.value, values)
    if agrees is None:
        why = REASONS["one seed"].format(command=more_seeds(source))
    elif rules.is_bound(claim.value):
        width = format_number(tables.half_width(values, rules.CONFIDENCE), values, claim.unit)
        why = REASONS["confidence"].format(width=width, seeds=format_count(source, values))
    else:
        width = format_number(tables.prediction_half_width(values, rules.CONFIDENCE), values, claim.unit)
        why = REASONS["prediction"].format(width=width, seeds=format_count(source, values))
    return Measurement(setting.configuration, agrees, text, source, why)


def more_seeds(source):
    """Return the command that gives several values where the one of now gave one."""
    file = source.files[0]
    command = evidence.command_for_verdict(file)
    has_several = evidence.is_benchmark(file) or evidence.SEVERAL_SEEDS in command
    return command + ("" if has_several else evidence.SEVERAL_SEEDS)


def format_count(source, values):
    """Return how many seeds or, of a benchmark, rounds there are."""
    if evidence.is_benchmark(source.files[0]):
        return ROUNDS.format(count=len(values))
    return format_seeds(len(values))


def digits_for(values, unit):
    """Return how many decimals fit the size of the mean; none for a single count."""
    mean = abs(np.mean(values))
    if mean >= 1000 or (len(values) == 1 and mean == round(mean) and unit not in PER_CENT):
        return 0
    return 2 if mean >= 10 or unit in (*PER_CENT, "images", "epochs") else 4


def format_values(values, unit):
    """Return mean ± standard deviation; nothing where a run ended before the epoch."""
    if np.isnan(values).any():
        return ""
    mean = abs(np.mean(values))
    return f"{np.mean(values):.4g}" if 0 < mean < 1e-3 else tables.mean_std(values, digits_for(values, unit))


def format_number(number, values, unit):
    """Return a number with as many decimals as the values have."""
    return f"{number:.{digits_for(values, unit)}f}"
