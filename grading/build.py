"""Write the grader's page: every output, and each claim of the two reports next to what was measured.

    python grading/build.py [--out FOLDER]

It reads what the tasks have written and trains nothing. It writes grading/index.html (one file in both languages; the
figures stay where the tasks wrote them) and grading/claims.md, and fills the READMEs' generated parts; with --out
it writes the page and the claims only.
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import jinja2
import markdown
import numpy as np

from common import cli, tables
from common.reported import ACCURACY, TASK1_ACCURACY
from common.support import files
from common.support.errors import UserError
from common.support.translations import CHINESE
from grading import readmes, strings
from grading.claims import read_claims
from grading.evidence import command_for
from grading.strings import Text
from grading.verdicts import count_verdicts, judge_all

OWN = {  # configurations of ours, with the report's number that they may explain
    "task2_regularization": {"l2": None, "dropout": None},
    "task3_hparams": {"no_regularization_more_epochs": None},
    "task4_architectures": {"lenet_batch_100": ACCURACY["task4_architectures"]["lenet"]},
    "project3_wrn": {"fast94": None, "fast95": None, "fast96": None},
}


@dataclass
class Section:
    """One folder of outputs as the page shows it."""

    folder: str
    title: Text
    state: str = "done"  # of strings.STATES
    note: str = ""  # what is damaged, or the command that would write what is missing
    run: dict = field(default_factory=dict)
    seconds: str = ""
    lead: str = ""  # HTML: the first paragraph of the task's page
    body: str = ""  # HTML: the rest of it
    figures: list = field(default_factory=list)

    @property
    def anchor(self):
        return self.folder.replace("/outputs", "").replace("/", "-")


class Figure(NamedTuple):
    """A figure as the page shows it: its links in both languages, the same where there is one version, and its name."""

    en: str
    zh: str
    name: str


class Result(NamedTuple):
    """One row of the result table."""

    task: str
    config: str
    reported: str
    ours: Text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER", help="folder of the page (grading/)")
    out = parser.parse_args().out
    build(out)
    if out == HERE:
        readmes.fill()
    print(f"page: {out / 'index.html'}")


def build(out):
    """Write index.html and claims.md to the folder `out`."""
    out = Path(out).resolve()
    entries = judge_all(read_claims())
    sections = [load_section(folder, title, out) for folder, title in strings.SECTIONS.items()]
    for section in sections:
        if section.state == "damaged":
            print(f"left out: {section.note}", file=sys.stderr)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("page.html.j2").render(
        entries=entries,
        counts=count_verdicts(entries),
        rules=strings.RULES,
        sections=sections,
        results=read_results(),
        chinese=CHINESE,
        texts=strings.PAGE,
        kinds=strings.KINDS,
        states=strings.STATES,
        reports=strings.REPORTS,
    )
    tables.write_text(out / "index.html", page)
    tables.write_text(out / "claims.md", format_claims(entries))


def load_section(folder, title, out):
    """Return the Section of one folder of outputs, its figures relative to `out`."""
    section = Section(folder, title)
    path = cli.ROOT / folder
    if not (path / "run.json").exists():
        path = cli.ROOT / folder.replace("/outputs/", "/outputs_short/")
    if not (path / "run.json").exists():
        section.state, section.note = "missing", command_for(folder)
        return section
    try:
        section.run = cli.read_json(path / "run.json")
        if not {"scale", "device", "seeds"} <= section.run.keys() and "members" not in section.run:
            raise UserError("run.json has an older format; run the task again")
        for arrays in list_outputs(path, "*.npz"):
            tables.load_arrays(arrays)  # raises where it is damaged
        section.seconds = training_seconds(path)
        pages = [page.read_text(encoding="utf-8") for page in list_outputs(path, "*.md")]
        if not pages:
            raise UserError("no Markdown page; run the task again with --redraw")
    except (UserError, OSError, ValueError, KeyError) as error:
        section.state, section.note = "damaged", f"{folder}: {error}"
        return section
    if section.run["scale"] != "full":
        section.state = "quick"
    elif section.run.get("shortened"):
        section.state = "shortened"
    section.lead, section.body = to_html("\n".join(pages))
    section.figures = [
        Figure(link(figure, out), link(in_chinese(figure), out), figure.stem.replace("_", " "))
        for figure in list_outputs(path, "*.png")
        if not figure.name.endswith(".zh.png")
    ]
    return section


def in_chinese(figure):
    """Return the path of a figure's Chinese version, or of the figure itself where there is none."""
    chinese = figure.with_suffix(".zh.png")
    return chinese if chinese.exists() else figure


def link(path, out):
    """Return the relative link from a file in `out`."""
    return Path(os.path.relpath(path, out)).as_posix()


def list_outputs(folder, pattern):
    """Return the files of a pattern, without those that a killed run left unfinished."""
    return [path for path in sorted(folder.glob(pattern)) if not files.is_temporary(path)]


def training_seconds(folder):
    """Return the seconds of training of all runs together, as text; empty where nothing was trained."""
    spent = [row["seconds"] for path in folder.glob("*results.csv") for row in tables.read_csv(path)]
    if (folder / "metrics.json").exists():
        spent += [entry["training_seconds"] for entry in cli.read_json(folder / "metrics.json")]
    return f"{sum(map(float, spent)):,.0f}" if spent else ""


def to_html(text):
    """Return a task's page as HTML, its first paragraph and the rest: no title, lower headings, tables that scroll."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    html = markdown.markdown(body, extensions=["tables"]).replace("h2>", "h4>")
    # long names may break at their underscores
    html = re.sub(r"(?<=<td>)\w+_\w+(?=</td>)", lambda name: name[0].replace("_", "_<wbr>"), html)
    html = html.replace("<table>", '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>')
    html = html.replace("</table>", "</table></div>")
    lead = re.search("<p>.*?</p>\n?", html, re.DOTALL)
    return (lead[0], html.replace(lead[0], "", 1)) if lead else ("", html)


def read_results():
    """Return the Results of all tasks: test accuracy, the report's and ours."""
    results = []
    for task, reported in ACCURACY.items():
        accuracies = read_accuracies(cli.ROOT / task / "outputs")
        for config, value in {**reported, **OWN.get(task, {})}.items():
            text = "" if value is None else f"{value:.2f}"
            if task == "task1_loss_curves":  # whose report gives two numbers
                text = " / ".join(f"{value:g}" for value in TASK1_ACCURACY)
            results.append(Result(task, config, text, format_accuracy(accuracies.get(config))))
    return results


def read_accuracies(outputs):
    """Return {configuration: test accuracies of its seeds} of a task's outputs."""
    accuracies = {}
    for path in (outputs / "results.csv", outputs / "batch_size" / "results.csv"):
        if path.exists():
            accuracies.update(tables.accuracies(path))
    for path in outputs.glob("*/metrics.json"):  # the networks of project 3
        accuracies[path.parent.name] = np.array([entry["test_accuracy"] for entry in cli.read_json(path)])
    return accuracies


def format_accuracy(values):
    if values is None:
        return strings.STATES["missing"]
    return strings.ACCURACY.format(accuracy=tables.mean_std(values), seeds=strings.format_seeds(len(values)))


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
        summary = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        lines += ["", f"## {report}: {len(rows)} claims: {summary}", "", tables.markdown(rows).rstrip()]
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
