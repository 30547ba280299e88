"""Result files and pages from strangers: what cannot be used is named in one line, and nothing on a page is run."""

import base64
import dataclasses
import html
import json
import os
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import markupsafe
import matplotlib.pyplot
import numpy as np
import pytest

from common import cli, plots, tables
from common.support.errors import UserError
from grading import build, outputs, strings
from project3_wrn import ensemble, improvements, label_audit, result_files
from project3_wrn import main as project3
from task1_loss_curves import main as task1
from task2_regularization import main as task2
from task3_hparams import main as task3
from task4_architectures import ablations, batch_size
from task4_architectures import main as task4
from tests.conftest import ROOT, assert_single_error_line

SCRIPTS = {  # the folder of the committed outputs of each script that can redraw them
    "task1_loss_curves/outputs": (task1.main, ()),
    "task2_regularization/outputs": (task2.main, ()),
    "task3_hparams/outputs": (task3.main, ()),
    "task4_architectures/outputs": (task4.main, ()),
    "task4_architectures/outputs/batch_size": (batch_size.main, ()),
    "task4_architectures/outputs/ablations": (ablations.main, ()),
    "project3_wrn/outputs/fast94": (project3.main, ("--model", "fast94")),
    "project3_wrn/outputs_short/improvements": (improvements.main, ()),
    "project3_wrn/outputs_short/label_audit": (label_audit.main, ()),
}
PLAIN = ("text", [], {}, None, 3, [[]], {"": {}}, [1, "text"])
EVIL = "<script>evil()</script>"


def damaged_json(whole, generator):
    """Return the text of a JSON file with one of its values removed, or replaced by one of another type."""
    document = json.loads(whole)
    if generator.integers(4) == 0:
        return json.dumps(PLAIN[generator.integers(len(PLAIN))])
    parent = document
    for _ in range(generator.integers(1, 5)):
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        if not keys:
            break
        key = keys[generator.integers(len(keys))]
        if isinstance(parent[key], (dict, list)) and parent[key] and generator.integers(3):
            parent = parent[key]
        elif generator.integers(2):
            del parent[key]
            break
        else:
            parent[key] = PLAIN[generator.integers(len(PLAIN))]
            break
    return json.dumps(document)


def damaged_csv(whole, generator):
    """Return the text of a CSV file without a column, a row or its head, or with words for numbers."""
    lines = whole.splitlines()
    kind = generator.integers(5)
    if kind == 0:
        return re.sub(r"\d+\.\d+", "word", whole)
    if kind == 1:
        return "\n".join(line.rpartition(",")[0] for line in lines)
    if kind == 2:
        return "\n".join(line.partition(",")[2] for line in lines)
    return "\n".join(lines[1:] if kind == 3 else lines[:1])


def damaged_npz(path, generator):
    """Change an .npz file to one with an array missing, or of another shape, type or value."""
    arrays = {name: np.array(values) for name, values in tables.load_arrays(path).items()}
    name = list(arrays)[generator.integers(len(arrays))]
    kind = generator.integers(6)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = arrays[name][..., :0] if arrays[name].ndim else np.zeros((0, 3))
    elif kind == 2:
        arrays[name] = np.array(["text"])
    elif kind == 3:
        arrays[name] = np.array([{"an": "object"}], dtype=object)
    elif kind == 4:
        arrays = {"a name": arrays[name]}
    else:
        arrays[name] = np.full_like(arrays[name], np.nan, dtype=float)
    np.savez(path, **arrays)


def damage(path, generator):
    """Damage a file of results in one of many ways."""
    whole, kind = path.read_bytes(), generator.integers(8)
    if kind < 2:
        place = generator.integers(len(whole))
        path.write_bytes(whole[:place] if kind else whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    elif kind == 2:
        path.write_bytes((b"", b"text", b"\xff\xfe\x00", b"[" * 100_000)[generator.integers(4)])
    elif path.suffix == ".npz" and kind == 3:
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    elif path.suffix == ".npz":
        damaged_npz(path, generator)
    else:
        change = damaged_json if path.suffix == ".json" else damaged_csv
        path.write_text(change(whole.decode(), generator), encoding="utf-8")


@pytest.fixture
def no_drawing(monkeypatch):
    """Draw no figure: this is about what is read."""
    monkeypatch.setattr(plots, "save", lambda figure, path: matplotlib.pyplot.close(figure))


@pytest.mark.attack("a damaged file of results, redrawn by its script", short=3, whole=90)
def test_redraw(attempt, tmp_path, no_drawing, run_in_process):
    """It ends in one line that names the folder, or writes tables: a number may be another, and NaN is a number."""
    generator = np.random.default_rng(attempt)
    name = list(SCRIPTS)[attempt % len(SCRIPTS)]
    main, flags = SCRIPTS[name]
    folder = tmp_path / name
    shutil.copytree(ROOT / name, folder, ignore=shutil.ignore_patterns("*.png", "*.md", "checkpoints"))
    out = folder if name.endswith("outputs") else folder.parent
    tables_read = ("run.json", "metrics.json", "cost.json", *(("results.csv",) if main is improvements.main else ()))
    read = sorted(path for path in folder.iterdir() if path.suffix == ".npz" or path.name in tables_read)
    path = read[generator.integers(len(read))]
    damage(path, generator)
    process = run_in_process(main, *flags, "--redraw", "--out", out)
    if process.returncode:
        assert_single_error_line(process, str(folder), status=1)


# --- what other scripts take over ---


def write_network(folder, generator):
    """Write the outputs of a network of main.py, as small as they can be, with one seed; return its run.json."""
    recipe = {"epochs": 1, "batch_size": 64, "validation_split": True}
    run = {"model": "lenet", "scale": "quick", "seeds": [0], "recipe": recipe, "git_commit": "a", "started": "b"}
    cli.write_json(folder / "run.json", run)
    cli.write_json(folder / "metrics.json", [{"seed": 0, "train_accuracy": 1.0, "train_loss": 2.0}])
    logits = {f"0/{name}": generator.normal(size=(count, 10)) for name, count in (("test", 500), ("val", 20))}
    tables.save_arrays(folder / "logits.npz", logits)
    tables.save_histories(folder / "loss_history.npz", {("lenet", 0): {"epoch_losses": np.ones(1)}})
    return run


@pytest.mark.attack("damaged files of another script, whose run or logits are taken over", short=10, whole=200)
def test_taking_over(attempt, tmp_path, capsys):
    """The run is trained instead; ensemble.py names the folder."""
    generator = np.random.default_rng(attempt)
    folder = tmp_path / "lenet"
    run_json = write_network(folder, generator)
    settings = result_files.network_settings(run_json, 0)
    own = SimpleNamespace(result=result_files.result_path(tmp_path / "own", "lenet", 0), settings=settings, seed=0)
    assert result_files.find_run(own)[0] == folder and len(ensemble.load_members([folder])) == 1
    other = tmp_path / "study" / "runs" / "lenet-0.npz"
    tables.save_arrays(other, {"settings": np.array(json.dumps(settings)), "test_logits": np.zeros((500, 10))})
    assert result_files.find_run(own)[0] == tmp_path / "study"
    damage(other, generator)
    read = sorted(path for path in folder.iterdir())
    damage(read[generator.integers(len(read))], generator)
    capsys.readouterr()
    found = result_files.find_run(own)
    assert found is None or found[1]["settings"]
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("left out: ") and str(tmp_path) in line for line in lines)
    try:
        members = ensemble.load_members([folder])
    except UserError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
    else:
        assert all(member.test.isfinite().all() and member.test.shape[1] == 10 for member in members)


# --- the grader's page ---


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Return a copy of what grading/build.py reads."""
    root = tmp_path_factory.mktemp("repository")
    for name in {name.split("/")[0] for name in SCRIPTS}:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("runs", "checkpoints", "*.py", "*.pt"))
    (root / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "project3.json", root / "benchmarks")
    return root


@pytest.mark.attack("a damaged file of results, read for the grader's page", short=2, whole=40)
def test_page_of_damaged_files(attempt, copied, tmp_path, monkeypatch, run_in_process):
    """The page marks the folder, or one line names a file or folder; nothing is half written."""
    generator = np.random.default_rng(attempt)
    monkeypatch.setattr(cli, "ROOT", copied)
    kinds = (".json", ".npz", ".csv", ".md")
    read = sorted(path for name in SCRIPTS for path in (copied / name).iterdir() if path.suffix in kinds)
    path = read[generator.integers(len(read))]
    whole = path.read_bytes()
    damage(path, generator)
    try:
        process = run_in_process(build.main, "--single", tmp_path / "page.html")
    finally:
        path.write_bytes(whole)
    if process.returncode:
        assert_single_error_line(process, str(copied), status=1)
        assert not (tmp_path / "page.html").exists()
    else:
        assert (tmp_path / "page.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


HIDDEN = (("x.png", ".png"), ("loss_table.md", ".md"), ("loss_history.npz", ".npz"), ("results.csv", ".csv"))
HOSTILE_TEXTS = (
    EVIL,
    '<img src="x" onerror="evil()">',
    '"><svg onload=evil()>',
    "[a](javascript:evil())",
    "[a](JavaScript&colon;evil())",
    "[a](&#106;avascript:evil())",
    "[a](../../JavaScript&colon;evil())",
    "[a](../../java&Tab;script&colon;evil())",
    "[a](data:text/html,<script>evil()</script>)",
    '[a](x "onclick=evil()")',
    '![a" onerror="evil()](x.png)',
    "<javascript:evil()>",
    "[a]: javascript:evil()\n\n[b][a]",
    "</script><script>evil()</script>",
    "</style><script>evil()</script>",
    "<!-- <script>evil()</script> -->",
    "{{ evil }} {% evil %} {# evil #}",
    "`<script>evil()</script>`",
    "    <script>evil()</script>",
    "| <script>evil()</script> | a |\n| --- | --- |\n| <b onclick=evil()> | b |",
    "<DIV STYLE=evil>",
)


def active_parts(page):
    """Return the elements and attributes of a page's HTML that could run something, or load it from elsewhere."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag in ("script", "svg", "iframe", "object", "embed", "style", "base", "form", "link", "meta"):
                found.append(tag)
            for name, value in attributes:
                address = (value or "").strip().lower()
                runs = re.match(r"[a-z][\w+.-]*:", address) and not address.startswith(("http:", "https:"))
                ours = name == "style" and re.fullmatch(r"[\d.%;: a-z-]+", address) and "evil" not in address
                if ours:
                    continue
                if name.startswith("on") or name in ("style", "srcdoc") or (name in ("href", "src") and runs):
                    found.append(f"{tag} {name}={address[:80]}")

    Reader().feed(page)
    return sorted(found)


@pytest.mark.attack("code in an output page, as HTML, as a link or as a template")
def test_code_in_an_output_page(tmp_path, monkeypatch, record_property):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    record_property("tried", len(HOSTILE_TEXTS))
    for text in HOSTILE_TEXTS:
        page = outputs.part_to_html(f"{text}\n\n{text}\n", tmp_path / "task" / "outputs", 3)
        assert not active_parts(page), page
        assert not active_parts(outputs.embed(outputs.link_from(page, tmp_path / "grading"))), page


@pytest.mark.attack("code in what run.json, tables and claims say, on the grader's page")
def test_code_in_results(copied, tmp_path, monkeypatch, record_property):
    monkeypatch.setattr(cli, "ROOT", copied)
    before = active_parts(build.render(build.judge_all(build.read_claims())))
    folder, text = copied / "task1_loss_curves" / "outputs", "\n".join(HOSTILE_TEXTS)
    saved = {name: (folder / name).read_bytes() for name in ("run.json", "results.csv")}
    rows = tables.read_csv(folder / "results.csv")
    hostile = dict.fromkeys(("device", "git_commit", "command", "data", "python"), text)
    record_property("tried", len(HOSTILE_TEXTS))
    try:
        cli.write_json(folder / "run.json", json.loads(saved["run.json"]) | hostile | {"versions": {text: text}})
        tables.write_csv(folder / "results.csv", [*rows, rows[0] | {"config": text, "scale": text}])
        claims = build.read_claims()
        name = next(iter(claims))
        claims[name] = dataclasses.replace(claims[name], en=text, zh=text)
        page = build.render(build.judge_all(claims))
    finally:
        for name, content in saved.items():
            (folder / name).write_bytes(content)
    assert str(markupsafe.escape(text)) in page  # as text
    assert active_parts(page) == before


@pytest.mark.attack("a page that links to files outside the repository, or to files whose names are HTML")
def test_links_of_a_page(tmp_path, monkeypatch, record_property):
    """The single page has none of their content inside, and runs nothing."""
    root = tmp_path / "repository"
    folder = root / "task" / "outputs"
    folder.mkdir(parents=True)
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret", encoding="utf-8")
    monkeypatch.setattr(cli, "ROOT", root)
    up = "../../../secret.txt"
    links = [up, up.replace(".", "&period;"), up.replace("/", "&sol;"), f"x/../{up}", str(secret), secret.as_uri()]
    if os.name == "posix":
        (folder / "link.txt").symlink_to(secret)
        links.append("link.txt")
    record_property("tried", len(links) + 1)
    for link in links:
        for text in (f"[a]({link})", f"![a]({link})", f'href="{link}"', f'[a](x "{link}")'):
            try:
                page = outputs.embed(outputs.part_to_html(text, folder, 3))
            except ValueError:  # the folder is then marked as damaged
                continue
            assert base64.b64encode(secret.read_bytes()).decode() not in page, text
    name = 'a" onclick="evil()" b="<script>.txt'
    if os.name == "posix":
        (folder / name).write_text("text", encoding="utf-8")
        page = outputs.embed(f'<a href="task/outputs/{html.escape(name)}">a</a>')
        assert "base64" in page and active_parts(page) == ["a href=data:text/plain;base64,dgv4da=="]


@pytest.mark.attack("hidden files in a folder of outputs, named as figures, pages and arrays")
def test_hidden_files(copied, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", copied)
    name = "task1_loss_curves/outputs"
    before = outputs.load(name, strings.GROUPS["task1"], 3)
    hidden = [copied / name / f".{file}.abcd1234{suffix}" for file, suffix in HIDDEN]
    for path in hidden:
        path.write_text(EVIL, encoding="utf-8")
    try:
        assert outputs.load(name, strings.GROUPS["task1"], 3) == before and before.state == "done"
    finally:
        for path in hidden:
            path.unlink()
