"""The folders of outputs as the page shows them: the pages that the tasks wrote, as HTML in both languages."""

import base64
import html
import mimetypes
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import markdown
from PIL import Image

from common import cli, tables
from common.support import files
from common.support.errors import UserError, reading
from common.support.translations import Text
from common.tables import DASH
from grading.evidence import command_for
from grading.strings import NOTHING, TRAINED, format_seeds

FIGURE = re.compile(r'<p><img alt="([^"]*)" src="([^"]*)" ?/?></p>\n<p><em>(.*?)</em></p>', re.DOTALL)
LINK = re.compile(r'(href|src)="(?![a-z]+:|[#?])([^"#]+)')
ADDRESS = re.compile(r'(href|src)="([^"]*)"')
OTHER_SCHEME = re.compile(r"(?!https?:)[a-zA-Z][\w+.-]*:")  # such as javascript:
NUMBER_CELL = re.compile(r"<td>(?=[-+−<>]?\d[^<]{0,24}</td>)")
SECTION = "\n## "  # where the part of a page begins that the grader's page folds
# what the page shows of run.json, where it is there
KINDS = {"scale": str, "device": str, "seeds": list, "cores": int, "git_commit": str, "started": str, "versions": dict}
EVIDENCE = ("results.csv", "metrics.json", "loss_history.npz", "run.json")  # the files that a folder's numbers are in


@dataclass
class Outputs:
    """One folder of outputs."""

    folder: str
    title: Text
    state: str = "done"  # of strings.STATES
    problem: str = ""  # what is damaged
    command: str = ""  # writes the folder
    run: dict = field(default_factory=dict)
    seconds: float = 0.0  # of training, all runs
    shown: Text = NOTHING  # HTML: the finding and the key figures
    folded: Text = NOTHING  # HTML: tables and notes
    files: list[str] = field(default_factory=list)  # evidence, relative to the repository

    @property
    def anchor(self):
        return re.sub(r"/outputs(_short)?", "", self.folder).replace("/", "-")

    @property
    def script(self):
        """The script that wrote the folder, relative to the repository."""
        return self.command.split()[1]

    @property
    def commit(self):
        return (self.run.get("git_commit") or "")[:12]

    @property
    def changed(self):
        """Whether the files differed from the commit."""
        return " with changes" in (self.run.get("git_commit") or "")

    @property
    def versions(self):
        return tuple((self.run.get("versions") or {}).items())

    @property
    def trained(self):
        """What was trained on what, before the commit."""
        seeds = format_seeds(len(self.run["seeds"]))
        return TRAINED.format(seeds=seeds, cores=self.run.get("cores", DASH), hours=f"{self.seconds / 3600:.1f}")


def load(folder, title, level):
    """Return the Outputs of a folder, or of the shortened runs that stand in for it.

    level: of the headings in the part that is folded, such as 4 for <h4>.
    """
    outputs = Outputs(folder, title, command=command_for(folder))
    path = cli.ROOT / folder
    if not (path / "run.json").exists():
        outputs.folder = folder.replace("/outputs/", "/outputs_short/")
        path = cli.ROOT / outputs.folder
    if not (path / "run.json").exists():
        outputs.folder, outputs.state = folder, "missing"
        return outputs
    try:
        with reading(path):
            read(outputs, path, level)
    except (UserError, OSError) as error:
        outputs.state, outputs.problem, outputs.run = "damaged", f"{folder}: {error}", {}
        return outputs
    if outputs.run["scale"] != "full":
        outputs.state = "quick"
    elif outputs.run.get("shortened"):
        outputs.state = "shortened"
    outputs.files = [relative(path / name) for name in EVIDENCE if (path / name).exists()]
    return outputs


def read(outputs, path, level):
    """Read what `load` returns from a folder that has a run.json."""
    outputs.run = cli.read_json(path / "run.json")
    if not {"scale", "device", "seeds"} <= outputs.run.keys() and "members" not in outputs.run:
        raise UserError("run.json has an older format; run the task again")
    for name, kind in KINDS.items():
        if not isinstance(outputs.run.get(name), kind | None):
            raise UserError(f"run.json has a {name} that is not of its type")
    for arrays in list_files(path, "*.npz"):
        tables.load_arrays(arrays)  # raises where it is damaged
    outputs.seconds = training_seconds(path)
    pages = [page for page in list_files(path, "*.md") if not page.name.endswith(".zh.md")]
    if not pages:
        raise UserError("no Markdown page; run the task again with --redraw")
    english, chinese = (to_html(pages[0], lang, level) for lang in ("en", "zh"))
    outputs.shown, outputs.folded = map(Text, english, chinese)


def list_files(folder, pattern):
    """Return the files of a pattern, without those that a killed run left unfinished."""
    return [path for path in sorted(folder.glob(pattern)) if not files.is_temporary(path)]


def relative(path):
    """Return a path relative to the repository."""
    return path.relative_to(cli.ROOT).as_posix()


def training_seconds(folder):
    """Return the seconds of training of all runs of a folder together."""
    spent = [row["seconds"] for path in list_files(folder, "*results.csv") for row in tables.read_csv(path)]
    if (folder / "metrics.json").exists():
        spent += [entry["training_seconds"] for entry in cli.read_json(folder / "metrics.json", list)]
    return sum(map(float, spent))


def to_html(page, lang, level):
    """Return a Markdown page as HTML in two parts, before and after its first section.

    Links lead from the repository's root: `link_from` makes them lead from the page.
    """
    text = re.sub(r"^# .*\n", "", page_in(page, lang).read_text(encoding="utf-8"))
    shown, section, folded = text.partition(SECTION)
    return part_to_html(shown, page.parent, level), part_to_html(section + folded, page.parent, level)


def page_in(page, lang):
    """Return the path of a Markdown page in a language, of the English one where there is no other."""
    translated = page.with_suffix(f".{lang}.md")
    return translated if translated.exists() else page


def part_to_html(text, folder, level):
    converter = markdown.Markdown(extensions=["tables"])
    converter.preprocessors.deregister("html_block")  # what is not Markdown is shown as text
    converter.inlinePatterns.deregister("html")
    body = converter.convert(text)
    body = LINK.sub(lambda match: f'{match[1]}="{relative((folder / match[2]).resolve())}', body)
    body = ADDRESS.sub(lambda match: f'{match[1]}="#"' if has_other_scheme(match[2]) else match[0], body)
    body = FIGURE.sub(lambda match: figure(*match.groups()), body)
    body = body.replace("h2>", f"h{level}>").replace("<th>", '<th scope="col">')
    body = NUMBER_CELL.sub('<td class="number">', body)
    return body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def has_other_scheme(address):
    """Return whether a link's address in HTML leads elsewhere than to a file or the web, as a browser reads it."""
    return bool(OTHER_SCHEME.match(re.sub(r"[\x00-\x20]", "", html.unescape(address))))


def figure(title, source, caption):
    """Return a figure as HTML, with the size of its picture, so that nothing moves when it loads."""
    if not (cli.ROOT / source).exists():  # no font had Chinese glyphs
        source = source.replace(".zh.png", ".png")
    width, height = Image.open(cli.ROOT / source).size
    picture = f'<img src="{source}" alt="{title}" width="{width}" height="{height}" loading="lazy">'
    return f'<figure><a href="{source}">{picture}</a><figcaption>{caption}</figcaption></figure>'


def link_from(page, out):
    """Return a page's HTML with its links to files of the repository leading from the folder `out`."""
    prefix = Path(os.path.relpath(cli.ROOT, out)).as_posix()
    return LINK.sub(lambda match: f'{match[1]}="{prefix}/{match[2]}', page)


def embed(page):
    """Return a page's HTML with every file that it links to inside: pictures, and evidence to download."""

    def data(match):
        path = (cli.ROOT / html.unescape(match[2])).resolve()
        if cli.ROOT.resolve() not in path.parents or not path.is_file():
            return match[0]
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        url = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        return f'src="{url}' if match[1] == "src" else f'download="{html.escape(path.name)}" href="{url}'

    return LINK.sub(data, page)
