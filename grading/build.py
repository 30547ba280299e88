"""Write the grader's page: every output, and each claim of the two reports next to what was measured.

    python grading/build.py [--out FOLDER] [--single FILE]

It reads what the tasks have written and trains nothing. It writes grading/index.html (both languages in one file; the
figures stay where the tasks wrote them), grading/claims.md and the forest plot, and fills the READMEs' generated parts;
with --out it writes the page, the claims and the plot only, with --single one HTML file that has everything inside.
"""

import os
import re
import sys
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import jinja2
from markupsafe import Markup, escape

from common import cli, tables
from common.support.errors import reading
from common.support.files import locked
from grading import forest, outputs, readmes, strings, summary
from grading.claims import read_claims
from grading.verdicts import count_verdicts, judge_all

CLAIM_ID = re.compile(r"\b[AP]\d{2,3}\b")
FAILING = ("not reproduced", "wrong as stated", "depends on what the report does not say", "contradicts itself")


def main():
    parser = cli.plain_parser(__doc__)
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER", help="folder of the page (grading/)")
    parser.add_argument("--single", type=Path, metavar="FILE", help="one HTML file with everything in it")
    options = parser.parse_args()
    with reading(cli.ROOT):
        if options.single:
            entries = judge_all(read_claims())
            tables.write_text(options.single, outputs.embed(render(entries)))
        else:
            with locked(options.out / ".lock", busy="another process is writing the page"):
                build(options.out)
                if options.out == HERE:
                    readmes.fill()
    print(f"page: {options.single or options.out / 'index.html'}")


def build(out):
    """Write index.html, claims.md and the forest plot to the folder `out`."""
    out = Path(os.path.abspath(out))
    entries = judge_all(read_claims())
    tables.write_text(out / "index.html", outputs.link_from(render(entries), out))
    tables.write_text(out / "claims.md", format_claims(entries))
    forest.draw(out / "forest.png", summary.forest())


def render(entries):
    """Return the page as HTML; its links lead from the root of the repository."""
    sections = {
        key: [outputs.load(folder, title, 4 if len(titles) > 1 else 3) for folder, title in titles.items()]
        for key, titles in strings.FOLDERS.items()
    }
    parts = [part for group in sections.values() for part in group]
    for part in parts:
        if part.problem:
            print(f"left out: {part.problem}", file=sys.stderr)
    groups, counts = summary.forest(), count_verdicts(entries)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["link_claims"] = link_claims
    return environment.get_template("page.html.j2").render(
        sections=sections,
        parts=parts,
        forest=groups,
        numbers=summary.numbers_sentence(groups),
        legend=summary.legend(groups),
        sentences=summary.sentences(counts),
        findings=summary.findings(),
        failures=summary.failures(entries),
        provenance=summary.provenance(parts),
        not_run=summary.not_run(groups),
        counts=counts,
        versions=summary.versions(parts),
        missing=summary.missing(parts, entries),
        entries=entries,
        failing=sorted(
            (entry for entry in entries if entry.verdict.kind in FAILING),
            key=lambda entry: (entry.report, FAILING.index(entry.verdict.kind)),
        ),
        holding=group_entries(entries, lambda entry: (entry.report, entry.claims[0].section), is_holding),
        waiting=group_entries(entries, waits_for, lambda entry: entry.verdict.kind == "not yet run"),
        strings=strings,
        texts=strings.PAGE,
    )


def is_holding(entry):
    return entry.verdict.kind not in (*FAILING, "not yet run")


def waits_for(entry):
    """Return the command that gives an entry its verdict."""
    return entry.verdict.why[0].en


def group_entries(entries, key, condition):
    """Return [(key, entries)] of the entries that fulfill the condition, in the order of their keys."""
    chosen = sorted(filter(condition, entries), key=key)
    return [(name, list(group)) for name, group in groupby(chosen, key)]


def link_claims(text):
    """Return a text as HTML in which every claim's id leads to its row."""
    return Markup(CLAIM_ID.sub(lambda match: f'<a href="#{match[0]}">{match[0]}</a>', str(escape(text))))


def format_claims(entries):
    """Return all claims and verdicts as Markdown, one table per report."""
    lines = [
        "# The claims of the two reports and what was measured",
        "",
        "Written by `python grading/build.py` from grading/claims.csv and the outputs.",
        "",
        *(f"- *{kind.name.en}*: {kind.meaning.en}" for kind in strings.KINDS.values()),
        "",
        "\n\n".join(rule.en for rule in strings.RULES),
    ]
    for report, counts in count_verdicts(entries).items():
        rows = [format_entry(entry) for entry in entries if entry.report == report]
        numbers = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        lines += ["", f"## {report}: {len(rows)} claims: {numbers}", "", tables.markdown(rows).rstrip()]
    return "\n".join(lines) + "\n"


def format_entry(entry):
    """Return an Entry as a row of the Markdown table."""
    verdict = entry.verdict
    shown, sources = verdict.shown, dict.fromkeys(measurement.source for measurement in verdict.shown)
    row = {
        "id": entry.name,
        "section": " / ".join(dict.fromkeys(claim.section for claim in entry.claims)),
        "claim": "<br>".join(
            f"{claim.en}（{'“' + claim.zh + '”' if claim.is_quote else claim.zh}）" for claim in entry.claims
        ),
        "tested": entry.claims[0].quantity,
        "reported": " / ".join(claim.value_text.en for claim in entry.claims),
        "verdict": strings.KINDS[verdict.kind].name.en,
        "measured": "<br>".join(f"{measurement.text} ({measurement.configuration.en})" for measurement in shown),
        "why": "<br>".join([*([verdict.problem] if verdict.problem else []), *(text.en for text in verdict.why)]),
        "number in": "<br>".join(f"[{source.link}](../{source.link}): `{source.field}`" for source in sources),
    }
    return {column: text.replace("|", "\\|") for column, text in row.items()}


if __name__ == "__main__":
    cli.entry_point(main)
