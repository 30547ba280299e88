"""Random command lines of every script: exit status 0, 1 or 2, one line where it is not 0, no traceback and no hang.

The scripts run in this process. What their flags ask for is read from their own parsers, so a new flag is attacked too.
"""

import argparse
import contextlib
import functools
import importlib
import io
import itertools
import math
import os
import re
import signal
import stat
import subprocess
import sys
import time
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common import cli, data, sweep
from common.models import MODELS
from common.support import download, machine, nvidia
from project3_wrn import predict, runner
from project3_wrn.method import distributed
from project3_wrn.method import train as project3
from project3_wrn.method.recipes import RECIPES
from tests.conftest import BASH, ROOT, TASKS, assert_single_error_line, run, run_python

SCRIPTS = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for folder in ("task*", "project3_wrn", "grading", "benchmarks", "common")
    for path in ROOT.glob(f"{folder}/**/*.py")
    if "\n    cli.entry_point(main)" in path.read_text(encoding="utf-8")
)
TRAINING = [name for name in SCRIPTS if re.match("task|project3_wrn.main", name)]
SECONDS = 60  # until a command line counts as hanging
LARGE = (str(sys.maxsize + 1), "1" + "0" * 30, "1" + "0" * 400, "9" * 5000)
WHOLE = ("0", "1", "2", "3", "6", "8", "12", "20", "32", "60", "99999999", str(sys.maxsize))
REAL = ("0", "1e-320", "0.001", "0.1", "0.5", "0.999", "1", "2", "20", "1e30", str(sys.float_info.max))
NUMBERS = (*WHOLE, *REAL, "-1", "1.0", "1e400", "nan", "inf", "-inf", "٣", "²", *LARGE)
PATHS = ("file", "file/below", "folder", "new", "new/below", "课程 作业", "\udcff", "loop", "n" * 300, "n/" * 3000, ".")
PATHS += ("photo.png", "weights.pt")
WORDS = (
    "",
    " ",
    "-",
    "--",
    "---",
    "-x",
    "--x",
    "--x=1",
    "--=",
    "--out",
    "--se",
    "x" * 100_000,
    "a\nb",
    "\x1b[2J",
    "%s{}",
)
TINY = (60, 20)  # training and test images of a training that is carried out


class Reached(BaseException):
    """The command line was accepted: a training would start."""


def reach(*arguments, **options):
    raise Reached


def parser_of(module):
    """Return the parser that the main of a module makes."""
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", lambda self: reach(found.append(self))),
        contextlib.suppress(Reached),
    ):
        found = []
        module.main()
    return found[0]


def good_values(action):
    """Return a strategy of values of an action such as its parser takes."""
    kind = getattr(action.type, "__name__", "")
    if action.choices:
        return st.sampled_from(list(action.choices))
    if action.metavar == "NAME":
        return st.sampled_from([*MODELS, *RECIPES, "layers.0", "groups.0.convs"])
    return st.sampled_from(WHOLE if "int" in kind else REAL if "float" in kind else PATHS)


def values(action):
    """Return a strategy of values of an action, good and bad ones."""
    bad = st.sampled_from([*WORDS, *NUMBERS, *PATHS]) | st.text(st.characters(exclude_characters="\0"))
    return st.one_of(*[good_values(action)] * 5, bad)


def parts(action, values=values):
    """Return a strategy of lists of words that give an action once."""
    several = st.lists(values(action), max_size=3) if action.nargs == "+" else st.tuples(values(action))
    if not action.option_strings:
        return several
    flag = st.sampled_from(action.option_strings)
    if action.nargs == 0:
        return st.tuples(flag)
    apart = st.tuples(flag, several).map(lambda both: [both[0], *both[1]])
    return apart | st.tuples(flag, values(action)).map(lambda both: [f"{both[0]}={both[1]}"])


def command_lines(module, most=6):
    """Return a strategy of command lines of a script: positional arguments, then flags, some of them twice."""
    actions = parser_of(module)._actions
    needed = st.tuples(*(parts(action) for action in actions if not action.option_strings))
    flags = st.sampled_from([action for action in actions if action.option_strings]).flatmap(parts)
    garbage = st.tuples(st.sampled_from(WORDS))
    lists = st.tuples(needed, st.lists(st.one_of(*[flags] * 12, garbage), max_size=most))
    return lists.map(lambda both: [word for part in (*both[0], *both[1]) for word in part])


def call(main, words):
    """Run `main` with a command line; return the finished process, as `run` does. Fail if it takes SECONDS."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace") for _ in range(2))
    status, argv, started = 0, sys.argv, time.monotonic()
    sys.argv = ["main.py", *words]
    alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.entry_point(main)
    except Reached:
        pass
    except SystemExit as end:
        status = end.code or 0
    finally:
        alarm(0)
        sys.argv = argv
    assert time.monotonic() - started < SECONDS
    texts = [stream.seek(0) or stream.read() for stream in (out, err)]
    return subprocess.CompletedProcess(words, status, *texts)


def alarm(seconds):
    """Raise an error after `seconds`, where the system can; 0 for not any more."""
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"it hangs: {sys.argv}"))
        signal.alarm(seconds)


def survives(process):
    """Assert that a process ended as the user may expect."""
    assert process.returncode in (0, 1, 2), process.stderr
    if process.returncode:
        assert_single_error_line(process, status=process.returncode)
        assert len(process.stderr.split("error: ")[-1].splitlines()) == 1, process.stderr


def files_here():
    """Return the names in the repository's folder, without what tests leave there."""
    return {name for name in os.listdir(ROOT) if name[:1] != "."}


def attack(request, record_property, strategy, check, short, whole):
    """Check many examples of a strategy: always the same, so that a failure is seen again.

    A failing example is not made smaller: one that hangs would be tried hundreds of times.
    """
    number = whole if request.config.getoption("--faults") else short
    checks = list(HealthCheck)
    options = dict(max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=checks)
    options |= dict(phases=[Phase.generate], report_multiple_bugs=False)
    tried = []

    @settings(**options)
    @given(strategy)
    def examples(words):
        tried.append(words)
        check(words)

    examples()
    record_property("tried", len(tried))
    return tried


@pytest.fixture
def place(tmp_path, monkeypatch, sample):
    """Return a folder with what PATHS names, which is the current one. No script writes elsewhere or downloads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not what is asked for")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.png").write_bytes((ROOT / "project3_wrn" / "photo.png").read_bytes())
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "weights.pt")
    monkeypatch.setattr(download, "_remote", lambda: iter(()))
    monkeypatch.setattr(download.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(download, "FOLDER", tmp_path / "data")
    load = data.load
    monkeypatch.setattr(data, "load", lambda scale, folder=None: load(scale, folder) if folder else load("quick"))
    monkeypatch.setattr(cli, "git_commit", lambda: "0" * 40)
    monkeypatch.setattr(machine, "matmul_flops", lambda *_: 1e12)
    monkeypatch.setattr(nvidia, "find_card", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield tmp_path
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def script(request, place, monkeypatch):
    """Return the module of a script, which neither trains nor measures and writes to `place` only."""
    module = importlib.import_module(request.param)
    for name in ("TASK", "HERE", "FOLDER"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, place)
    for name in ("measure", "measure_all", "step_costs", "run_in_new_process", "explain"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, reach)
    monkeypatch.setattr(sweep, "_train_jobs", reach)
    monkeypatch.setattr(runner, "train_all", reach)
    if request.param == "grading.build":
        monkeypatch.setattr(module, "judge_all", lambda claims: [])
        monkeypatch.setattr(module, "render", lambda entries: "page")
        monkeypatch.setattr(module.forest, "draw", lambda *_: None)
        monkeypatch.setattr(module.readmes, "fill", lambda: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("about 1 min (60 s; \n"))
    return module


def test_every_script_is_attacked():
    assert len(SCRIPTS) > 20 and len(TRAINING) >= 7
    for path in ROOT.glob("[a-z]*/**/*.py"):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        if path.parts[len(ROOT.parts)] != "tests" and "__main__" in path.read_text(encoding="utf-8"):
            assert name in SCRIPTS or name in ("common.support.nvidia", "common.support.signals"), name


@pytest.mark.attack("a random command line of a script, good and bad values")
@pytest.mark.parametrize("script", SCRIPTS, indirect=True)
def test_random_flags(script, request, record_property):
    before = files_here()
    attack(
        request, record_property, command_lines(script), lambda words: survives(call(script.main, words)), 12, whole=100
    )
    assert files_here() == before


# --- trainings that are carried out, on TINY images ---


@pytest.fixture
def trainings(place, monkeypatch, sample):
    """Make trainings one epoch long, on TINY images. No tables are written."""
    sets = [dataset[:number] for dataset, number in zip(sample, TINY)]
    monkeypatch.setattr(data, "load", lambda *_: (*sets, "tiny"))
    monkeypatch.setattr(machine, "cores", lambda: 1)
    monkeypatch.setattr(sweep, "COMPILE_FROM", dict.fromkeys(sweep.COMPILE_FROM, math.inf))
    for module in (sweep, project3):
        monkeypatch.setattr(module, "fit", functools.partial(fit_shortly, module.fit))


def fit_shortly(fit, learner, batches, epochs, **options):
    return fit(learner, batches, min(epochs, 1), **options)


def deep_lines(module, start):
    """Return a strategy of command lines: `start`, and flags that change the training."""
    others = ("help", "plan", "redraw", "data", "out", "scale", "device", "model", "recipe", "seeds", "gradcam_layer")
    actions = [action for action in parser_of(module)._actions if action.dest not in others]
    lists = st.lists(
        st.sampled_from(actions).flatmap(lambda action: parts(action, good_values)), min_size=1, max_size=4
    )
    return lists.map(lambda flags: [*start, *(word for part in flags for word in part)])


def trains_or_is_refused(module, words, place):
    """Assert that a command line trains, or is refused by an error that is meant for the user."""
    ending = "\udcff" if sys.platform == "linux" else ""  # a byte that is not UTF-8, where a name may have one
    out = place / f"课程 {len(list(place.iterdir()))}{ending}"
    survives(call(module.main, [*words, "--scale", "quick", "--device", "cpu", "--seeds", "1", "--out", str(out)]))
    for log in out.glob("**/failed/*.log"):
        assert "\ncommon.support.errors.UserError: " in log.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")


@pytest.mark.attack("random numbers and options for a short training")
@pytest.mark.parametrize(
    ("name", "start"),
    [
        *((name, ()) for name in TRAINING if name != "project3_wrn.main"),
        ("project3_wrn.main", ("--model", "lenet")),
        ("project3_wrn.main", ("--model", "fast_small")),
        ("project3_wrn.main", ("--model", "lightweight_resnet", "--auto-augment", "randaugment")),
    ],
)
def test_random_trainings(name, start, trainings, place, request, record_property, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.setattr(module, "write_results", lambda *_, **__: None)
    lines = deep_lines(module, start)
    short, whole = (6, 30) if start else (3, 6)  # a task trains many networks
    attack(request, record_property, lines, lambda words: trains_or_is_refused(module, words, place), short, whole)


# --- what is not a Python script, and what is around one ---

RUN_ALL = ("--scale", "--device", "--data", "--plan", "--fresh", "--help", "-h", "quick", "full", "cpu", "cuda", "auto")
RUN_ALL += ("task1_loss_curves", "task1_loss_curves/", "project3_wrn/main.py", "task4_architectures/batch_size")
STUB = """make_environment() { PYTHON=$PWD/python; }
"""
PYTHON = """#!/bin/sh
[ "$1" != -c ] || echo cpu
"""


@pytest.mark.skipif(os.name == "nt", reason="the stub is a shell script")
@pytest.mark.attack("a random command line of run_all.sh")
def test_random_flags_of_run_all(tmp_path, request, record_property):
    """It runs in a folder of its own, where every script is one that does nothing."""
    support = tmp_path / "common" / "support"
    support.mkdir(parents=True)
    (tmp_path / "run_all.sh").write_bytes((ROOT / "run_all.sh").read_bytes())
    (support / "environment.sh").write_text(STUB)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    for task in TASKS:
        (tmp_path / task / "outputs_quick").mkdir(parents=True)
        (tmp_path / task / "outputs").mkdir()

    def check(words):
        process = run(BASH, "run_all.sh", *words, cwd=tmp_path, timeout=SECONDS, PYTHONIOENCODING="utf-8:replace")
        assert process.returncode in (0, 1, 2), process.stderr
        if process.returncode:
            assert_single_error_line(process, status=2)
            assert "usage: bash run_all.sh" in process.stderr
        else:
            assert process.stderr == ""

    words = st.sampled_from([*RUN_ALL * 2, *(word for word in (*WORDS, *NUMBERS, *PATHS) if word.isprintable())])
    attack(request, record_property, st.lists(words, max_size=6), check, short=20, whole=100)


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_the_tests_say_how_they_are_run_at_once(words):
    process = run(BASH, "tests/run.sh", *words, timeout=10)
    assert process.returncode == 0 and process.stdout.startswith("usage: bash tests/run.sh"), process.stderr
    assert "environment" not in process.stdout


SLOW = {"torchvision", "scipy", "sklearn", "pandas", "timm", "torch._dynamo", "torch._inductor", "sympy"}
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sys.modules)
"""


def test_help_does_not_wait_for_large_packages():
    """Nothing is imported but torch and matplotlib that takes more than a tenth of a second; nor for a wrong flag."""
    process = run_python("-c", IMPORTS, *SCRIPTS)
    assert process.returncode == 0, process.stderr
    assert not SLOW & set(process.stdout.split())


@pytest.mark.attack("a cluster that sets some of torchrun's variables for every process")
def test_some_of_torchruns_variables(monkeypatch, record_property):
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    subsets = [set for count in range(len(names)) for set in itertools.combinations(names, count)]
    for subset in subsets:
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name in subset:
            monkeypatch.setenv(name, "2")
        with distributed.process_group("cpu") as device:
            assert device == "cpu" and distributed.is_main_process() and distributed.world_size() == 1
    record_property("tried", len(subsets))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.attack("results are to be written to a pipe or a device")
def test_what_is_not_a_file_is_not_replaced(place):
    """As root, a rename would put a file in the place of /dev/null."""
    os.mkfifo("pipe")
    process = call(predict.main, ["photo.png", "--out", "pipe"])
    assert_single_error_line(process, "pipe: it is not a file", status=1)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


@pytest.mark.attack("a command line that is not UTF-8, in run.json")
def test_a_command_line_that_is_not_utf_8_can_be_saved(tmp_path):
    cli.write_json(tmp_path / "run.json", {"command": "main.py --out \udcff课"})
    assert cli.read_json(tmp_path / "run.json") == {"command": "main.py --out \udcff课"}
