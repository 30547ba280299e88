import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import cli, data
from tests import small_cifar

ROOT = Path(__file__).resolve().parents[1]
BASH = shutil.which("bash") or "bash"  # on Windows Git's, which is first on its PATH; subprocess would start WSL's
TASKS = ("task1_loss_curves", "task2_regularization", "task3_hparams", "task4_architectures")


def pytest_addoption(parser):
    parser.addoption("--faults", action="store_true", help="try every attack of tests/faults as often as it is worth")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sample():
    return data.load("quick")[:2]


@pytest.fixture
def official(sample, tmp_path, monkeypatch):
    """Return two dicts {name: bytes}, six small binary files and pickles that the checks take for the official ones."""
    return small_cifar.stand_in(sample[1], tmp_path, monkeypatch)


@pytest.fixture
def run_in_process(monkeypatch, capsys):
    """Return run_in_process(main, *arguments): `run_python` in this process, which has torch imported already."""

    def start(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.entry_point(main)
        return subprocess.CompletedProcess(arguments, end.value.code or 0, *capsys.readouterr())

    return start


def run_python(*arguments, **options):
    """Run this Python with `arguments`, without a terminal and stdin; return the finished process with its output."""
    return run(sys.executable, *arguments, **options)


def run(*arguments, cwd=ROOT, timeout=280, cores=None, **environment):
    """Run a command line; return the finished process. cores: how many it may use, where the system can restrict it."""
    restricted = {}
    if cores and hasattr(os, "sched_setaffinity"):
        restricted["preexec_fn"] = lambda: os.sched_setaffinity(
            0, random.sample(sorted(os.sched_getaffinity(0)), cores)
        )
    return subprocess.run(
        [*map(str, arguments)],
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        **restricted,
    )


def assert_single_error_line(process, *parts, status):
    """Assert that a process failed with `status`, one error line that has all of `parts`, and no traceback."""
    errors = [line for line in process.stderr.splitlines() if "error: " in line]
    assert process.returncode == status, process.stderr
    assert len(errors) == 1, process.stderr
    assert "Traceback" not in process.stderr
    for part in parts:
        assert part in errors[0], errors[0]
