"""SIGKILL, as a power cut or a lack of memory ends a process: the same command afterwards ends as if nothing had been.

"As if nothing had been" is every array of every .npz, every weight and every cell of every CSV the same to the bit,
except for seconds.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from common import tables
from common.support import machine
from common.support.files import is_temporary
from tests.conftest import ROOT, run_python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is not the same there")

START = ROOT / "tests" / "faults" / "start.py"
KILLS = 4  # of one training, until it may finish
NETWORK = ("project3_wrn/main.py", "--model", "fast_small", "--recipe", "fast94", "--seeds", "1", "--epochs", "2")
STARTS = {
    "task 1": ("task1_loss_curves/main.py", "--seeds", "2", "--epochs", "2"),
    "task 3": ("task3_hparams/main.py", "--seeds", "1", "--epochs", "1"),
    "task 4": ("task4_architectures/main.py", "--seeds", "1", "--epochs", "1"),
    "project 3, fp32": (*NETWORK, "--precision", "fp32", "--convolutions", "direct"),
    "project 3, Winograd": (*NETWORK, "--precision", "fp32", "--convolutions", "winograd"),
    "project 3, bf16": (*NETWORK, "--precision", "bf16"),
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Return straight(name): (results, seconds) of a start that nothing stops."""
    done = {}

    def start(name):
        if name not in done:
            if "bf16" in name and machine.choose_precision("auto", "cpu") != "bf16":
                pytest.skip("this CPU has no fast bf16")
            folder, started = tmp_path_factory.mktemp("straight"), time.monotonic()
            process = run_python(*command(name, folder))
            assert process.returncode == 0, process.stderr
            done[name] = results(folder), time.monotonic() - started
        return done[name]

    return start


def command(name, folder):
    script, *flags = STARTS[name]
    return (START, ROOT / script, *flags, "--scale", "quick", "--device", "cpu", "--out", folder)


def results(folder):
    """Return {file: content} of the arrays, weights and tables in a folder of outputs, without seconds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        assert not is_temporary(path), path
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".npz":
            arrays = tables.load_arrays(path)
            found[name] = {key: array.tobytes() for key, array in arrays.items() if measured(key)}
        elif path.suffix == ".pt":
            weights = torch.load(path, weights_only=True)
            found[name] = {key: np.asarray(value).tobytes() for key, value in weights.items()}
        elif path.suffix == ".csv" and path.name != "log.csv":
            found[name] = [{key: cell for key, cell in row.items() if measured(key)} for row in tables.read_csv(path)]
    return found


def measured(name):
    """Return whether a value is the same in every start: it is no time, and does not depend on one."""
    return not any(word in name for word in ("seconds", "started", "git_commit", "time", "speed"))


def assert_resumes(name, folder, expected):
    process = run_python(*command(name, folder))
    assert process.returncode == 0, process.stderr
    found = results(folder)
    assert found.keys() == expected.keys()
    for file, content in expected.items():
        assert found[file] == content, file


def start_and_kill(words, seconds, whole_group):
    """Start a command, and kill it after these seconds; return whether it was still running."""
    child = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        child.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        if whole_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        else:  # its workers notice
            child.kill()
        child.wait()
        return True


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.attack("SIGKILL at a random moment of a start, again and again, then the same command", short=0, whole=1)
def test_killed_at_random_moments(name, attempt, straight, tmp_path, record_property):
    expected, seconds = straight(name)
    moments = random.Random(f"{name} {attempt}")
    kills = sum(start_and_kill(command(name, tmp_path), moments.uniform(0, seconds), kill % 2) for kill in range(KILLS))
    record_property("tried", kills)
    assert_resumes(name, tmp_path, expected)


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.attack("SIGKILL while a file is written, again and again, then the same command", short=0, whole=1)
def test_killed_in_a_write(name, attempt, straight, tmp_path, record_property):
    expected, _ = straight(name)
    places, kills = random.Random(f"{name} {attempt}"), 0
    for _ in range(KILLS):
        process = killed_in_write(command(name, tmp_path), places.randint(1, 40))
        kills += process.returncode == -signal.SIGKILL
    record_property("tried", kills)
    assert kills, "no kill came before the end"
    assert_resumes(name, tmp_path, expected)


@pytest.mark.attack("SIGKILL in a quick start of project 3, then the same command", short=1, whole=2)
def test_killed_twice(attempt, straight, tmp_path):
    name = "project 3, fp32"
    expected, seconds = straight(name)
    start_and_kill(command(name, tmp_path), random.Random(attempt).uniform(0.4, 0.9) * seconds, True)
    killed_in_write(command(name, tmp_path), 3 + attempt)
    assert_resumes(name, tmp_path, expected)


def killed_in_write(words, number):
    """Start a command that kills itself at this write of a file; return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "KILL_AT_WRITE": str(number)},
        start_new_session=True,
    )
