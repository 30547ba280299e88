"""The READMEs: their links lead somewhere, their commands exist, and their generated parts are up to date."""

import re
from urllib.parse import unquote

import pytest

from common import cli
from common.models import MODELS
from grading import readmes, reliability
from project3_wrn import options
from project3_wrn.method.recipes import RECIPES

PAIRS = [(cli.ROOT / folder / "README.md", cli.ROOT / folder / "README.zh-CN.md") for folder in readmes.FOLDERS]
READMES = [path for pair in PAIRS for path in pair]
DOCUMENTS = [*READMES, cli.ROOT / "CONTRIBUTING.md", cli.ROOT / "benchmarks" / "README.md"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"--[a-z][a-z-]*")


def name_of(path):
    return path.relative_to(cli.ROOT).as_posix()


def prose(path):
    """Return a document's text without its code blocks."""
    return CODE.sub("", path.read_text(encoding="utf-8"))


def headings(path):
    return re.findall(r"^(#+) (.*)$", prose(path), re.MULTILINE)


def anchors(path):
    """Return the anchors that GitHub gives the headings of a document."""
    found = []
    for _, heading in headings(path):
        words = re.sub(r"\]\(.*?\)", "", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{count}" if count else slug)
    return found


def commands(path):
    """Return the commands of a document's shell blocks, without comments."""
    lines = [
        line
        for kind, body in CODE.findall(path.read_text(encoding="utf-8"))
        if kind == "bash"
        for line in body.splitlines()
    ]
    return [line.partition("#")[0].strip() for line in lines]


def broken_links(path):
    """Return the links of a document that lead nowhere; those to other sites are not followed."""
    broken = []
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_or_heading(path):
    assert LINK.search(prose(path))
    assert broken_links(path) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`: c\n\n# A b c\n\n[x](none.md) [y](#a-b-c-1) ![z](page.md#a-b-c) [w](page.md#d)", encoding="utf-8"
    )
    assert broken_links(page) == ["none.md", "page.md#d"]


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda path: name_of(path))
def test_both_languages_have_the_same_headings_and_commands(english, chinese):
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    assert commands(english) == commands(chinese) != []
    written = [readmes.PART.sub("", prose(path)) for path in (english, chinese)]
    assert len(LINK.findall(written[0])) == len(LINK.findall(written[1])) > 0


@pytest.mark.parametrize("path", DOCUMENTS[:-1], ids=name_of)
def test_scripts_flags_and_names_of_the_commands_exist(path):
    known = [command for command in commands(path) if re.match(r"(\.venv/bin/)?python |bash |torchrun ", command)]
    assert known
    for command in known:
        script = next(word for word in command.split() if word.endswith((".py", ".sh")))
        assert (cli.ROOT / script).is_file(), command
        flags = set(FLAG.findall(command)) - {"--nproc_per_node", "--nproc"}
        assert flags <= flags_of(script), command
        for flag, names in (("--model", MODELS), ("--recipe", RECIPES)):
            assert all(name in names for name in re.findall(rf"{flag} (\w+)", command)), command


def flags_of(script):
    """Return the flags that a script has: those of its parser, or those that its source names."""
    if script == "project3_wrn/main.py":
        return set(FLAG.findall(options.make_parser("").format_help()))
    source = (cli.ROOT / script).read_text(encoding="utf-8")
    shared = cli.make_parser("").format_help() if "run_task" in source or "runner" in source else ""
    return set(FLAG.findall(source + shared))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_flags_that_the_text_names_exist(path):
    scripts = [*cli.ROOT.glob("task*/*.py"), *cli.ROOT.glob("project3_wrn/*.py"), *cli.ROOT.glob("*/build.py")]
    known = set().union(
        *(flags_of(name_of(script)) for script in scripts), flags_of("run_all.sh"), flags_of("tests/run.sh")
    )
    named = {flag for span in re.findall(r"`([^`\n]+)`", prose(path)) for flag in FLAG.findall(span)}
    assert named <= known


# --- the generated parts ---


@pytest.fixture(scope="module")
def verdicts():
    return readmes.count_verdicts(readmes.judge_all(readmes.read_claims()))


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_the_generated_parts_are_those_of_the_committed_outputs(path, verdicts):
    written = path.read_text(encoding="utf-8")
    folder, lang = name_of(path.parent), readmes.NAMES[path.name]
    pages = [match[3] for match in readmes.PART.finditer(written) if match[2] == "page"]
    assert bool(pages) == (path.parent != cli.ROOT)
    for page in pages:
        assert (path.parent / page).exists() or (path.parent / page.replace("outputs/", "outputs_short/")).exists()
    assert readmes.fill_parts(written, folder, lang, verdicts) == written, "run: python grading/build.py"


def test_stale_parts_are_written_again_and_the_rest_is_kept(verdicts):
    original = (cli.ROOT / "README.md").read_text(encoding="utf-8")
    stale = readmes.PART.sub(r"\1stale\n\4", original)
    assert stale.count("stale\n") == 2
    filled = readmes.fill_parts(f"Before.\n{stale}After.\n", "", "en", verdicts)
    assert filled == f"Before.\n{original}After.\n" == readmes.fill_parts(filled, "", "en", verdicts)


def test_a_page_in_a_readme(tmp_path, monkeypatch):
    """Its title is gone, headings are one level lower, links lead from the folder, and figures are in the language."""
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    study = tmp_path / "task" / "outputs" / "study"
    study.mkdir(parents=True)
    body = "# T\n\nA [b](../c.md#d) [e](#f) [g](https://h.i/j)\n\n![k](x{}.png)\n\n## S\n\nText # 1.\n"
    (study / "page.md").write_text(body.format(""), encoding="utf-8")
    (study / "x.png").touch()
    english = "A [b](outputs/c.md#d) [e](#f) [g](https://h.i/j)\n\n![k](outputs/study/x.png)\n\n### S\n\nText # 1.\n"
    name = "outputs/study/page.md"
    assert readmes.format_page("task", name, "en") == english
    assert readmes.format_page("task", name, "zh") == english  # where there is no Chinese page
    (study / "page.zh.md").write_text(body.format(".zh"), encoding="utf-8")
    assert readmes.format_page("task", name, "zh") == english  # where there is no Chinese figure
    (study / "x.zh.png").touch()
    assert readmes.format_page("task", name, "zh") == english.replace("x.png", "x.zh.png")
    assert readmes.format_page("task", name, "en") == english
    (tmp_path / "task" / "outputs").rename(tmp_path / "task" / "outputs_short")
    assert "(outputs_short/study/x.png)" in readmes.format_page("task", name, "en")
    assert readmes.format_page("task", "outputs/none.md", "en") == "not yet run\n"


def test_every_area_of_the_attacks_has_a_row():
    areas = {path.stem.removeprefix("test_") for path in reliability.FOLDER.glob("test_*.py")}
    assert areas == reliability.AREAS.keys()


def test_headline_counts_each_reported_accuracy_once(monkeypatch):
    """An accuracy that two tasks compare is inside only if it is inside of both intervals."""
    reported = {"task_a": {"lenet": 50.0, "baseline": 60.0}, "task_b": {"baseline": 50.0}}
    ours = {"task_a": {"lenet": [49, 50, 51], "baseline": [60, 60.5, 61]}, "task_b": {"baseline": [80, 81, 82]}}
    monkeypatch.setattr(readmes, "ACCURACY", reported)
    monkeypatch.setattr(readmes, "ASSIGNMENT", list(reported))
    monkeypatch.setattr(readmes, "read_accuracies", ours.get)
    assert "1 of the 2 test accuracies" in readmes.compare_accuracies().en


def test_nothing_has_been_run_yet(tmp_path, monkeypatch, verdicts):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    headline = readmes.format_headline(verdicts, "en")
    assert headline.count("\n") == 2 and "recipe, since no GPU was available: ResNet-18, ResNet-34" in headline
    assert readmes.format_results("en").count("| not yet run |") == len(readmes.ROWS)
