"""A new user's start: a clone with CRLF line endings in a folder with Chinese and a space, and the notebook's cells."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.conftest import BASH, ROOT

NOTEBOOK = ROOT / "notebook.ipynb"
CRLF = {  # what Git for Windows sets
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "core.autocrlf",
    "GIT_CONFIG_VALUE_0": "true",
    "GIT_CONFIG_KEY_1": "core.eol",
    "GIT_CONFIG_VALUE_1": "crlf",
}
in_git = pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a clone")


@in_git
def test_a_clone_with_crlf_has_the_bytes_of_the_repository(tmp_path):
    clone = tmp_path / "课程 作业"
    git = {**os.environ, **CRLF}
    subprocess.run(["git", "clone", "-q", ROOT, clone], env=git, check=True)
    listing = subprocess.run(
        ["git", "ls-tree", "-rz", "HEAD"], cwd=clone, env=git, capture_output=True, check=True
    ).stdout.decode()
    files = [entry.split("\t") for entry in listing.split("\0") if entry]
    assert len(files) > 100
    for facts, name in files:
        content = (clone / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert blob == facts.split()[2], name
    for words in (["--help"], ["--nonsense"]):
        process = subprocess.run([BASH, "run_all.sh", *words], cwd=clone, capture_output=True, text=True, timeout=10)
        assert "usage: bash run_all.sh" in (process.stdout + process.stderr) and "environment" not in process.stdout


def run_cell(cell, names):
    """Run a cell as IPython does: a line `!command` runs a command line, in which {expression} is replaced."""

    def shell(template):
        command = re.sub(r"\{(.+?)\}", lambda match: str(eval(match[1], names)), template)
        process = subprocess.run([BASH, "-c", command], capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
        assert process.returncode == 0, command + process.stdout + process.stderr
        names["printed"].append(process.stdout)

    names["shell"] = shell
    code = re.sub(r"^( *)!(.*)$", lambda match: f"{match[1]}shell({match[2]!r})", "".join(cell), flags=re.MULTILINE)
    exec(compile(code, NOTEBOOK.name, "exec"), names)


@in_git
def test_the_notebook(tmp_path, monkeypatch):
    """Its cells, from an empty folder, on one core. Running them by nbclient would install all of Jupyter for it."""
    shown = []
    display = types.ModuleType("IPython.display")
    display.Markdown = str
    display.Image = lambda path: Path(path).read_bytes()
    display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)

    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (address,) = re.findall(r'ADDRESS = "(.*)"', "".join(cells[0]))
    folder = tmp_path / "课程 作业"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{ROOT.as_posix()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)

    names = {"printed": []}
    for cell in cells:
        run_cell(cell, names)
    _, run, prediction = names["printed"]
    assert "environment: " in run and "done: task1_loss_curves" in run
    assert len(re.findall(r"^ *\d+\.\d+%", prediction, re.MULTILINE)) >= 5
    finding, *pictures = shown
    assert "QUICK" in finding and "\n**" in finding
    assert len(pictures) == 3 and all(picture.startswith(b"\x89PNG") for picture in pictures)
