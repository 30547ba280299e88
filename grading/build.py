"""The grader's page: every output, and the two reports' claims beside what was measured.

    python grading/build.py [--out FOLDER]

Reads what the tasks have written and trains nothing. Writes grading/index.html (one file, both languages, figures beside it where
the tasks wrote them) and grading/claims.md, and fills the READMEs' result table; with --out the page and the claims only.
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import jinja2
import markdown
import markupsafe  # which jinja2 brings

from common import cli, tables
from common.support import files
from common.support.errors import UserError
from common.support.translations import CHINESE
from grading import readme, sentences, verdicts
from grading.words import WORDS, in_chinese

SECTIONS = (  # folder of outputs, its page, title in English and Chinese
    ("task1_loss_curves/outputs", "loss_table.md", "Task 1: loss curves", "任务一：损失曲线"),
    ("task2_regularization/outputs", "comparison.md", "Task 2: regularisation", "任务二：正则化"),
    ("task3_hparams/outputs", "hyperparameters.md", "Task 3: hyperparameters", "任务三：超参数"),
    ("task4_architectures/outputs", "architectures.md", "Task 4: architectures", "任务四：网络架构"),
    ("project3_wrn/outputs/resnet18", "performance.md", "Project 3: ResNet-18", "项目三：ResNet-18"),
    ("project3_wrn/outputs/wrn28_10", "performance.md", "Project 3: WRN-28-10", "项目三：WRN-28-10"),
    ("project3_wrn/outputs/fast94", "performance.md", "Project 3: fast94", "项目三：fast94"),
    ("project3_wrn/outputs/fast95", "performance.md", "Project 3: fast95", "项目三：fast95"),
    ("project3_wrn/outputs/fast96", "performance.md", "Project 3: fast96", "项目三：fast96"),
    ("project3_wrn/outputs/compare_models", "comparison.md", "Project 3: the networks compared", "项目三：模型对比"),
    ("project3_wrn/outputs/batch_epoch_grid", "grid.md", "Project 3: batch size and epochs", "项目三：批次大小与轮次"),
    ("project3_wrn/outputs/improvements", "improvements.md", "Project 3: improvements", "项目三：改进"),
    ("project3_wrn/outputs/ensemble", "ensemble.md", "Project 3: ensemble", "项目三：集成"),
    ("project3_wrn/outputs/label_audit", "audit.md", "Project 3: label audit", "项目三：标签审查"),
)


@dataclass
class Section:
    """One folder of outputs as the page shows it; `state` is done, shortened, quick, damaged or missing."""

    folder: str
    en: str
    zh: str
    state: str = "done"
    why: str = ""
    run: dict = field(default_factory=dict)
    seconds: str = ""
    html: str = ""
    figures: list = field(default_factory=list)
    sentences: list = field(default_factory=list)

    @property
    def anchor(self):
        return self.folder.replace("/outputs", "").replace("/", "-")


def load_section(folder, page, en, zh, out):
    section = Section(folder, en, zh)
    path = cli.ROOT / folder
    if not (path / "run.json").exists():
        section.state, section.why = "missing", verdicts.sources.command(folder)
        return section
    try:
        section.run = cli.read_json(path / "run.json")
        if not {"scale", "device", "seeds"} <= section.run.keys() and "members" not in section.run:
            raise UserError(f"{folder}/run.json is of an older shape; run the task again")
        text = (path / page).read_text(encoding="utf-8")
        section.sentences = sentences.of(folder)
        section.seconds = training_seconds(path)
    except (UserError, OSError, ValueError, KeyError) as error:
        section.state, section.why = "damaged", f"{folder}: {error}"
        return section
    if section.run["scale"] != "full":
        section.state = "quick"
    elif section.run.get("shortened"):
        section.state = "shortened"
    section.html = to_html(text)
    section.figures = [
        {"src": Path(os.path.relpath(figure, out)).as_posix(), "name": figure.stem.replace("_", " ")}
        for figure in sorted(path.glob("*.png"))
        if not files.is_temporary(figure)
    ]
    return section


def training_seconds(folder):
    """Of all runs and seeds together, however often they were stopped; empty where nothing was trained."""
    spent = [row["seconds"] for path in folder.glob("*results.csv") for row in tables.read_csv(path)]
    if (folder / "metrics.json").exists():
        spent += [entry["training_seconds"] for entry in cli.read_json(folder / "metrics.json")]
    return f"{sum(map(float, spent)):,.0f}" if spent else ""


def code(sentence):
    """A sentence as HTML, what stands between backticks as code."""
    return markupsafe.Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(sentence))))


def to_html(text):
    """The page of a task as HTML: its title left out, its headings two levels lower, its tables able to scroll."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    html = markdown.markdown(body, extensions=["tables"]).replace("<h2>", "<h4>").replace("</h2>", "</h4>")
    html = html.replace("<table>", '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>')
    # long names may break at their underscores
    html = re.sub(r"(?<=<td>)\w+_\w+(?=</td>)", lambda name: name[0].replace("_", "_<wbr>"), html)
    return html.replace("</table>", "</table></div>")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER", help="where the page goes (report/)")
    options = parser.parse_args()
    build(options.out)
    if options.out == HERE:
        readme.fill()
    print(f"the page: {options.out / 'index.html'}")


def build(out):
    out = Path(out).resolve()
    claims = verdicts.read_claims()
    judged = verdicts.judge_all(claims)
    sections = [load_section(*row, out) for row in SECTIONS]
    for problem in dict.fromkeys(section.why for section in sections if section.state == "damaged"):
        print(f"left out: {problem}", file=sys.stderr)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = code
    page = environment.get_template("page.html.j2").render(
        claims=claims,
        verdicts=judged,
        says=verdicts.says,
        in_chinese=in_chinese,
        counts=verdicts.counts(claims, judged),
        kinds=verdicts.KINDS,
        sections=sections,
        summary=list(zip(readme.result_rows("en"), readme.result_rows("zh"))),
        chinese=CHINESE,
        words=WORDS,
    )
    tables.write_text(out / "index.html", page)
    tables.write_text(out / "claims.md", claims_page(claims, judged))


def claims_page(claims, judged):
    """All claims as Markdown, the reports apart."""
    lines = [
        "# The claims of the two reports, and what was measured",
        "",
        "Made by `python grading/build.py` from grading/claims.csv and the outputs.",
        "",
    ]
    for report, numbers in verdicts.counts(claims, judged).items():
        rows = []
        for name, claim in claims.items():
            if claim["report"] == report:
                verdict = judged[name]
                rows.append(
                    {
                        "id": name,
                        "section": claim["section"],
                        "claim": f"{claim['en']}（{claim['zh']}）",
                        "says": verdicts.says(claim),
                        "verdict": verdict.kind,
                        "measured": f"{verdict.measured} ({claim['configuration']})" if verdict.measured else "",
                        "why": verdict.why[0],
                    }
                )
        told = ", ".join(f"{count} {kind}" for kind, count in numbers.items())
        lines += [
            f"## {report}: {told}",
            "",
            tables.markdown([{k: str(v).replace("|", "\\|") for k, v in row.items()} for row in rows]),
        ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    cli.entry_point(main)
