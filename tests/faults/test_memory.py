"""Memory: none is lost over steps, epochs and evaluations, and each task at full scale stays below 2 GiB per process.

The starts at full scale are tried with --faults, where CIFAR-10 is on disk: in data/, or in the folder that the
environment variable CIFAR10 names.
"""

import ctypes
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common import data, evaluation, sweep, training
from common.support import checkpoints, cifar_files, download
from common.support.checkpoints import Checkpoint
from project3_wrn.method.recipes import RECIPES
from project3_wrn.method.train import Backend, build
from tests.conftest import ROOT, TASKS

EPOCHS = 12  # of 100 steps: memory after epoch 2 is compared with that after epoch 12
GROWTH = 4  # MB; a training that keeps its batches of 4 would grow by 50
PROC = Path("/proc/self/statm")
LIMIT = 2 << 30  # bytes
SECONDS = {"task1_loss_curves": 75, "task4_architectures": 45}  # until the peak, after the first evaluation
CONFIG = dict(model="lenet", epochs=EPOCHS, batch_size=4, lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5)
CPU = torch.device("cpu")


def resident():
    """Return the resident memory of this process in MB, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(PROC.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def stack(train_set):
    job = sweep.Job({"a": CONFIG, "b": CONFIG | {"lr": 0.002}}, [0, 1])
    return sweep.make_learner(job, train_set, CPU, "fp32")


def single(train_set):
    return sweep.make_learner(sweep.Job({"a": CONFIG | {"model": "lightweight_resnet"}}, [0]), train_set, CPU, "fp32")


def fast(train_set):
    recipe = dataclasses.replace(RECIPES["fast94"], epochs=EPOCHS, batch_size=2, low_res_epochs=EPOCHS)
    return build("fast94", recipe, 0, train_set[:200], Backend())[:2]


NETWORKS = {"a stack": stack, "a single network": single, "a fast network": fast}


@pytest.mark.attack(
    f"1,000 steps with evaluations and checkpoints; memory grows by less than {GROWTH} MB", whole=len(NETWORKS)
)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process has")
def test_a_training_does_not_grow(attempt, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)
    learner, batches = list(NETWORKS.values())[attempt](sample[0][:400])
    assert len(batches) == 100
    memory = []

    def evaluate():
        logits = evaluation.predict(learner.logits, sample[1], data.TUTORIAL_STATS)
        return {"test_accuracy": evaluation.accuracy(logits, sample[1].labels)}

    training.fit(
        learner,
        batches,
        EPOCHS,
        evaluate=evaluate,
        checkpoint=Checkpoint(tmp_path / "run.pt"),
        on_epoch=lambda epoch, history: memory.append(resident()),
    )
    assert len(memory) == EPOCHS
    assert memory[-1] - memory[1] < GROWTH, [round(value - memory[1], 1) for value in memory]


def cifar10():
    """Return the folder of CIFAR-10 that is on disk here, or None."""
    for folder in (os.environ.get("CIFAR10"), download.FOLDER):
        for place in (Path(folder), Path(folder) / download.BINARY) if folder else ():
            if all((place / name).is_file() for name in cifar_files.FILES):
                return place
    return None


def processes_below(root):
    """Return the ids of a process and of all that it started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(path.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def memory_of(process):
    """Return the peak of a process's resident memory and its proportional share of what it has now, in bytes."""
    try:
        status, share = (Path(f"/proc/{process}/{name}").read_text() for name in ("status", "smaps_rollup"))
        return tuple(
            int(text.partition(name)[2].split()[0]) * 1024 for text, name in ((status, "VmHWM:"), (share, "Pss:"))
        )
    except (OSError, IndexError):  # it has ended
        return 0, 0


@pytest.mark.attack("the peak of each process of a task at full scale is below 2 GiB", whole=len(TASKS))
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say")
def test_the_peak_of_a_task_at_full_scale(attempt, tmp_path, request):
    folder = cifar10()
    if not request.config.getoption("--faults") or not folder:
        pytest.skip("takes a minute per task and needs CIFAR-10: with --faults")
    task = TASKS[attempt]
    words = ["--scale", "full", "--device", "cpu", "--seeds", "2", "--data", folder, "--out", tmp_path]
    command = [sys.executable, ROOT / task / "main.py", *words]
    deadline, peak, together = time.monotonic() + SECONDS.get(task, 60), 0, 0
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as main:
        try:
            while time.monotonic() < deadline and main.poll() is None:
                measured = [memory_of(process) for process in processes_below(main.pid)]
                peak = max(peak, *(own for own, _ in measured))
                together = max(together, sum(share for _, share in measured))
                time.sleep(0.5)
            assert main.poll() is None, "it ended early"
        finally:
            os.killpg(main.pid, signal.SIGKILL)
    print(f"{task}: {peak / 1e9:.2f} GB in one process, {together / 1e9:.2f} GB together")
    assert LIMIT / 4 < peak < LIMIT
