"""Ctrl-C, SIGTERM and SIGHUP: within 5 s there is one line, the status is 128 + the signal, and nothing runs on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from common import tables
from tests.conftest import BASH, ROOT, run_python
from tests.faults.starts import START

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are not the same there")

SECONDS = 5  # until a start that a signal has reached is over
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SCRIPTS = {
    "task 1": ("task1_loss_curves/main.py", "--epochs", "50"),
    "task 3": ("task3_hparams/main.py", "--epochs", "50"),
    "project 3": ("project3_wrn/main.py", "--model", "fast_small", "--recipe", "fast94", "--epochs", "50"),
}


def start(*words):
    """Start a command in a session of its own, as a terminal does; signals are not ignored in it."""
    return subprocess.Popen(
        [*map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in SIGNALS],
    )


def wait_for_checkpoint(child, folder):
    """Wait until a training has written one; return its path."""
    while child.poll() is None:
        if found := list(folder.rglob("checkpoints/**/[a-z]*-[0-9].pt")):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(child.communicate()[1])


def running_in(session):
    """Return the processes of a session, as Linux lists them, without those that have ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(stat.parent.name)
    return found


def assert_ended(child, sent, number, *, lines=1):
    errors = child.communicate(timeout=60)[1]
    seconds = time.monotonic() - sent
    said = [line for line in errors.splitlines() if "stopped by" in line]
    assert child.returncode == 128 + number, errors
    assert len(said) == lines and "Rerun the same command" in said[0] and "Traceback" not in errors, errors
    assert seconds < SECONDS, f"{seconds:.1f} s"
    if sys.platform == "linux":
        time.sleep(0.2)
        assert not running_in(child.pid)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("to_group", [False, True], ids=["process", "group"])
@pytest.mark.attack("Ctrl-C, SIGTERM or SIGHUP while a network trains", short=0, whole=3)
def test_a_signal_in_training(name, to_group, attempt, tmp_path):
    """To the process alone, as by `kill`, or to its whole group, as by a terminal or `timeout`."""
    number, (script, *flags) = SIGNALS[attempt], SCRIPTS[name]
    words = (START, ROOT / script, *flags, "--scale", "quick", "--device", "cpu", "--out", tmp_path)
    child = start(sys.executable, *words)
    wait_for_checkpoint(child, tmp_path)
    sent = time.monotonic()
    (os.killpg if to_group else os.kill)(child.pid, number)
    assert_ended(child, sent, number)
    assert not list(tmp_path.rglob("results.csv"))


@pytest.mark.attack("Ctrl-C in a training, which is then resumed")
def test_a_stopped_task_resumes_where_it_stopped(attempt, tmp_path):
    words = (START, ROOT / "task1_loss_curves" / "main.py", "--scale", "quick", "--device", "cpu")
    words = (*words, "--seeds", "1", "--epochs", "3", "--out", tmp_path)
    child = start(sys.executable, *words)
    checkpoint = wait_for_checkpoint(child, tmp_path)
    sent = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert_ended(child, sent, signal.SIGINT)
    before = torch.load(checkpoint, weights_only=True)
    history, partial = before["history"].get("batch_losses", []), before["partial"]
    kept = torch.cat([*history, *([partial["losses"]] if partial else [])]).flatten().numpy()
    assert 0 < len(kept) < 3 * 350
    resumed = run_python(*words)
    assert resumed.returncode == 0 and "Traceback" not in resumed.stderr, resumed.stderr
    losses = tables.load_arrays(tmp_path / "loss_history.npz")["batch_losses"]
    assert len(losses) == 3 * 350 and np.array_equal(losses[: len(kept)], kept)


@pytest.mark.attack("SIGTERM or SIGHUP to run_all.sh alone while a network trains", short=0, whole=2)
def test_a_signal_to_run_all(attempt, tmp_path):
    """It reaches the script that trains, which bash itself does not pass it on to."""
    number = (signal.SIGTERM, signal.SIGHUP)[attempt]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, clone], check=True)
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    child = subprocess.Popen(
        [BASH, "run_all.sh", "--scale", "quick", "--device", "cpu", "task3_hparams"],
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while child.poll() is None and not list(clone.rglob("log.csv")):
        time.sleep(0.05)
    sent = time.monotonic()
    child.send_signal(number)
    assert_ended(child, sent, number, lines=2)  # the script's and its own


@pytest.mark.attack("a signal in the first seconds, while Python still imports", short=1, whole=9)
def test_a_signal_while_python_imports(attempt, tmp_path):
    """From a script's first lines on; in the tenth of a second before them nothing of ours can answer."""
    number, script = SIGNALS[attempt % 3], ("project3_wrn/main.py", "task1_loss_curves/main.py")[attempt % 2]
    child = start(sys.executable, "-X", "importtime", ROOT / script, "--scale", "quick", "--out", tmp_path)
    for line in child.stderr:  # one per import that has ended
        if "common.support.signals" in line:
            break
    time.sleep(0.2 + 0.2 * attempt)  # the line after the import has run
    sent = time.monotonic()
    child.send_signal(number)
    assert_ended(child, sent, number)
