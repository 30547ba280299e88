"""The reports' claims: claims.csv, one row per claim.

A claim's `check` is one of
    run           our seeds against `value`, by the rules of rules.py;
    fact          what the code or the data are, against `value`;
    computed      `against`, an expression over the values of other claims, against `value`;
    contradicted  `against` says something else. Where the two agree, the claim is checked as `run`;
    pair          the other side of the contradiction of the claim `against`, with which it is shown as one.

`file` and `field` say where our number is: evidence.py. " & " joins files that are read together, " or " joins sources
of which the first one that has been run is taken, " | " joins settings that the report leaves open, each of which is
judged, with its own `configuration`. One field serves several files.

`zh` is verbatim from the report where `quote` is "yes" (…… for what is left out), else our Chinese text. `brief_zh` is
what is claimed in a few words, for the page's list of claims that are not reproduced; in English that is the part of
`en` before its colon or comma.
The Chinese cells are empty where the English text serves both, `value_zh` also where only the unit is translated.
`p_value` is a term: the p of a comparison of two methods on one test set.
"""

import csv
import re
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from common.support.errors import UserError
from common.support.translations import Text, translate
from grading.evidence import find_terms, is_code
from grading.rules import is_value
from grading.strings import UNITS

CLAIMS = Path(__file__).parent / "claims.csv"
CHECKS = ("run", "fact", "computed", "contradicted", "pair")
TOGETHER, ALTERNATIVE, SETTING = " & ", " or ", " | "


class Source(NamedTuple):
    """Where a number is: files that are read together, relative to the repository, and a field of them."""

    files: tuple[str, ...]
    field: str

    @property
    def link(self):
        """The file to show to a reader."""
        return "grading/facts.py" if is_code(self.files[0]) else self.files[0]


class Setting(NamedTuple):
    """One way to run what a claim is about; of its sources the first one that has been run counts."""

    sources: tuple[Source, ...]
    configuration: Text


@dataclass(frozen=True)
class Claim:
    """One row of claims.csv."""

    id: str
    report: str
    section: str
    zh: str
    quote: str
    en: str
    brief_zh: str
    quantity: str
    quantity_zh: str
    value: str
    unit: str
    value_zh: str
    configuration: str
    configuration_zh: str
    check: str
    file: str
    field: str
    against: str
    p_value: str

    @property
    def is_quote(self):
        return bool(self.quote)

    @property
    def needs_gpu(self):
        return "on a GPU" in self.configuration

    @property
    def value_text(self):
        exact = not self.value[0].isdigit() or Decimal(self.value).as_tuple().exponent <= 0
        number = self.value if exact else f"{int(Decimal(self.value)):,}"
        space = "" if self.unit in ("", "%") else " "
        chinese = f"{number.replace('not ', '不 ')}{space}{UNITS.get(self.unit, self.unit)}"
        return Text(f"{number}{space}{self.unit}", self.value_zh or chinese)

    @property
    def brief(self):
        return Text(re.split("[:,]", self.en)[0], self.brief_zh or self.zh)

    @property
    def quantity_text(self):
        return Text(self.quantity, self.quantity_zh or self.quantity)

    @property
    def settings(self):
        """The Settings in which the claim can be checked; none where it has no file."""
        files = self.file.split(SETTING) if self.file else []
        english = self.configuration.split(SETTING)
        chinese = self.configuration_zh.split(SETTING) if self.configuration_zh else english
        texts = [Text(translate(en, "en"), zh) for en, zh in zip(english, chinese)]
        return [
            Setting(_sources(file, field), text)
            for file, field, text in zip(
                files, _spread(self.field, SETTING, len(files)), _spread(texts, None, len(files))
            )
        ]


def _sources(files, fields_):
    files = files.split(ALTERNATIVE)
    return tuple(
        Source(tuple(file.split(TOGETHER)), field)
        for file, field in zip(files, _spread(fields_, ALTERNATIVE, len(files)))
    )


def _spread(values, separator, count):
    """Split values at a separator; a single one serves all."""
    values = values.split(separator) if separator else values
    return list(values) * count if len(values) == 1 else values


def read_claims(path=CLAIMS):
    """Read the claims as {id: Claim}.

    Raises:
        UserError: the file has other columns, or a claim has an unknown check, a value that is not a number or a bound,
            another number of fields or configurations than of settings, or is against one that does not exist.
    """
    columns = [field.name for field in fields(Claim)]
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise UserError(f"{path} has other columns than {', '.join(columns)}")
        claims = {row["id"]: Claim(**row) for row in reader}
    for claim in claims.values():
        if problem := find_mistake(claim, claims):
            raise UserError(f"claim {claim.id}: {problem}")
    return claims


def find_mistake(claim, claims):
    """Return what is wrong with a row, empty where nothing is."""
    if claim.check not in CHECKS:
        return f"no check is called {claim.check!r}"
    if not is_value(claim.value):
        return f"{claim.value!r} is not a number or a bound"
    unknown = [name for name in find_terms(claim.against) if name not in claims]
    if unknown:
        return f"it is against {', '.join(unknown)}, which does not exist"
    if bool(claim.against) != (claim.check in ("computed", "contradicted", "pair")):
        return f"a check {claim.check!r} is{' not' if claim.against else ''} against other claims"
    if claim.check == "pair" and (claims[claim.against].check, claims[claim.against].against) != (
        "contradicted",
        claim.id,
    ):
        return f"{claim.against} is not against it"
    if claim.check in ("run", "fact") and not claim.settings:
        return "it has no file"
    settings = len(claim.file.split(SETTING)) if claim.file else 1
    for texts in (claim.configuration, claim.configuration_zh or claim.configuration):
        if len(texts.split(SETTING)) != settings:
            return f"it has {settings} settings and other configurations"
    if len(claim.field.split(SETTING)) not in (1, settings):
        return f"it has {settings} settings and other fields"
    return ""
