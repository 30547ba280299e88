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

import pytest

from tests.conftest import run_python
from tests.faults.starts import STARTS, assert_same, command, results

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is not the same there")

KILLS = 4  # of one training, until it may finish


def assert_resumes(name, folder, expected):
    process = run_python(*command(name, folder))
    assert process.returncode == 0, process.stderr
    assert_same(results(folder), expected)


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
    expected, seconds, _ = straight(name)
    moments = random.Random(f"{name} {attempt}")
    kills = sum(start_and_kill(command(name, tmp_path), moments.uniform(0, seconds), kill % 2) for kill in range(KILLS))
    record_property("tried", kills)
    assert_resumes(name, tmp_path, expected)


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.attack("SIGKILL while a file is written, again and again, then the same command", short=0, whole=1)
def test_killed_in_a_write(name, attempt, straight, tmp_path, record_property):
    expected, _, _ = straight(name)
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
    expected, seconds, _ = straight(name)
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
