"""common/support/environment.sh: which Python it chooses, and what it installs there by uv or pip. Both are stubs."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stubs are shell scripts")
SUPPORT = "common/support"
MAKE = f'. {SUPPORT}/environment.sh; make_environment && echo "chosen: $PYTHON"'

# A Python without packages until something is installed with it. It logs what it is asked for.
PYTHON = """#!/bin/bash
case "$*" in
    *"import torch"*) [ -e "$STATE/installed" ] ;;
    *version_info*) ;;
    *nvidia.py) echo "$INDEX" ;;
    *disk_usage*) echo "$FREE" ;;
    *tomllib*) echo "torch>=2.9" ;;
    *urlopen*) [ -z "$NO_WHEELS" ] ;;
    *cuda_problem*) [ -z "$CARD" ] || [ -e "$STATE/wheels" ] ;; # only PyTorch's own wheels can use this card
    "-m venv"*) mkdir -p .venv/bin && [ -z "$NO_VENV" ] && cp "$0" .venv/bin/python ;;
    "-m pip install"*)
        echo "$0 $*" >>"$STATE/log"
        case "$*" in
            *--index-url*) [ -z "$NO_WHEELS" ] && touch "$STATE/wheels" ;;
            *) cp "${!#}" "$STATE/constraints" ;;
        esac && touch "$STATE/installed"
        ;;
esac
"""
UV = """#!/bin/bash
echo "uv $* ($UV_DEFAULT_INDEX)" >>"$STATE/log"
[ -z "$UV_FAILS" ] || exit 2
case "$1 $2" in
    venv*) mkdir -p .venv/bin && cp "$(command -v python3)" .venv/bin/python ;;
    *)
        case "$*" in
            *--index-url*) [ -z "$NO_WHEELS" ] ;;
            *) cp "${!#}" "$STATE/constraints" ;;
        esac && touch "$STATE/installed"
        ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Return make(*stubs, **settings): the process of make_environment in a folder of its own, and the log of stubs."""
    here = tmp_path / "课程 作业"
    (here / SUPPORT).mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", f"{SUPPORT}/environment.sh"):
        shutil.copy(ROOT / name, here / name)
    programs, state = tmp_path / "bin", tmp_path / "state"
    state.mkdir()
    programs.mkdir()

    def put(name, text):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)

    def start(uv=False, mac=False, script=MAKE, **settings):
        for name in ("python3", "python"):
            put(name, PYTHON)
        if uv:
            put("uv", UV)
        if mac:
            put("uname", '#!/bin/sh\n[ "$1" = -s ] && echo Darwin || echo x86_64\n')
        defaults = {"INDEX": "cpu", "FREE": "57", "NO_VENV": "", "NO_WHEELS": "", "UV_FAILS": "", "CARD": ""}
        process = subprocess.run(
            ["bash", "-u", "-c", script],
            cwd=here,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={"PATH": f"{programs}:/usr/bin:/bin", "STATE": str(state), **defaults, **settings},
        )
        log = (state / "log").read_text(encoding="utf-8") if (state / "log").exists() else ""
        return process, log.splitlines()

    start.here, start.state = here, state
    return start


@pytest.mark.parametrize("uv", [False, True])
@pytest.mark.parametrize("no_wheels", ["", "yes"])
def test_uv_and_pip_install_the_same_versions(make, uv, no_wheels):
    process, log = make(uv, NO_WHEELS=no_wheels)
    assert process.returncode == 0 and "chosen: .venv/bin/python" in process.stdout, process.stderr
    assert "about 0.5 GB" in process.stdout and ("about 3 GB" in process.stdout) == bool(no_wheels)
    by = r"uv (venv|pip)" if uv else r"\.venv/bin/python -m pip"
    assert log and all(re.match(by, line) for line in log)
    pins = re.sub(" --hash.*", "", (ROOT / "constraints.txt").read_text(encoding="utf-8")).splitlines()
    of_torch = [line for line in pins if re.match("torch(vision)?==", line)]
    wheels = next(line for line in log if "--index-url" in line)
    assert "/whl/cpu" in wheels and all(pin in wheels for pin in of_torch) and len(of_torch) == 2
    versions = (make.state / "constraints").read_text(encoding="utf-8").splitlines()
    assert versions == [line for line in pins if no_wheels or line not in of_torch]
    assert (make.here / ".venv" / "index").read_text(encoding="utf-8") == ("default\n" if no_wheels else "cpu\n")
    assert [path.name for path in make.here.iterdir() if path.name.startswith("tmp")] == []


def test_pip_where_uv_fails(make):
    process, log = make(True, UV_FAILS="yes", INDEX="")
    assert process.returncode == 0 and "trying pip" in process.stdout, process.stderr
    assert log[-1].startswith(".venv/bin/python -m pip install -r ")


def test_uv_uses_the_mirror_that_pip_is_set_to(make):
    _, log = make(True, PIP_INDEX_URL="https://mirror.example/simple", INDEX="")
    assert log and all(line.endswith("(https://mirror.example/simple)") for line in log)


def test_the_current_python_where_no_environment_can_be_made(make):
    """As in Colab, whose Python has no ensurepip."""
    process, log = make(NO_VENV="yes")
    assert process.returncode == 0 and "chosen: python3" in process.stdout, process.stderr
    assert "cannot make a virtual environment" in process.stdout and "installing into python3 itself" in process.stdout
    assert log and all("/bin/python3 -m pip install" in line for line in log)
    assert not (make.here / ".venv").exists()


def test_a_python_that_has_the_packages_is_used_as_it_is(make):
    (make.state / "installed").touch()
    process, log = make()
    assert process.returncode == 0 and "chosen: python3" in process.stdout and log == []


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"FREE": "3", "INDEX": "cu130"}, "only 3 GB are free on this disk, and the packages take about 7 GB"),
        ({"FREE": "3", "NO_WHEELS": "yes"}, "only 3 GB are free on this disk, and the packages take about 7 GB"),
        ({"FREE": "1"}, "only 1 GB are free on this disk, and the packages take about 2 GB"),
        ({"mac": True}, "no wheels for Intel Macs since torch 2.2, and this needs torch 2."),
    ],
)
def test_what_cannot_be_set_up_is_one_line(make, setting, line):
    process, log = make(**setting)
    assert process.returncode == 1 and process.stderr.startswith("error: ") and line in process.stderr
    assert process.stderr.count("\n") == 1 and not [words for words in log if "-r " in words]


def test_the_floor_of_torch_is_that_of_pyproject(make):
    """The installed torch is new enough, until pyproject.toml asks for a newer one; no other file names the floor."""
    project = make.here / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    (floor,) = re.findall(r'"torch>=([\d.]+)"', text)
    for other in (ROOT / ".github/workflows/tests.yml", ROOT / SUPPORT / "environment.sh"):
        assert floor not in other.read_text(encoding="utf-8")
    can_import = f". {SUPPORT}/environment.sh; can_import '{sys.executable}'"
    assert make(script=can_import)[0].returncode == 0
    project.write_text(text.replace(f"torch>={floor}", "torch>=99.0"), encoding="utf-8")
    assert make(script=can_import)[0].returncode == 1


NEW = {  # what bash 3.2 of macOS does not know
    r"\b(mapfile|readarray|coproc)\b": "mapfile -t lines",
    r"\b(declare|local|typeset) -[a-zA-Z]*[An]": "local -n name=$1",
    r"\$\{\w+(\[[^]]*\])?(\^|,|@[A-Za-z])": "${name^^}",
    r"\$\{\w+\[-\d": "${list[-1]}",
    r"\|&|&>>|;;?&": "a |& b",
    r"\bwait -n\b|printf '?%\(": "wait -n",
}


def test_scripts_run_in_the_bash_of_macos():
    assert all(re.search(pattern, example) for pattern, example in NEW.items())
    scripts = [ROOT / "run_all.sh", ROOT / "tests" / "run.sh", ROOT / SUPPORT / "environment.sh"]
    for script in scripts:
        for line in script.read_text(encoding="utf-8").splitlines():
            assert not [pattern for pattern in NEW if re.search(pattern, line)], line
            empty = re.findall(r'(?<!\+)"\$\{(groups|workers|passed)\[@\]\}"', line)
            assert not empty, f"an empty list is an error there: {line}"
