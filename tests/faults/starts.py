"""Short starts of the tasks, and what of their results must be the same each time."""

from pathlib import Path

import numpy as np
import torch

from common import tables
from common.support.files import is_temporary
from tests.conftest import ROOT

START = ROOT / "tests" / "faults" / "start.py"
NETWORK = ("project3_wrn/main.py", "--model", "fast_small", "--recipe", "fast94", "--seeds", "1", "--epochs", "2")
STARTS = {
    "task 1": ("task1_loss_curves/main.py", "--seeds", "2", "--epochs", "2"),
    "task 3": ("task3_hparams/main.py", "--seeds", "1", "--epochs", "1"),
    "task 4": ("task4_architectures/main.py", "--seeds", "1", "--epochs", "1"),
    "project 3, fp32": (*NETWORK, "--precision", "fp32", "--convolutions", "direct"),
    "project 3, Winograd": (*NETWORK, "--precision", "fp32", "--convolutions", "winograd"),
    "project 3, bf16": (*NETWORK, "--precision", "bf16"),
}
TIMES = ("seconds", "started", "git_commit", "time", "speed")  # in the names of what is another each time


def command(name: str, folder: Path) -> tuple:
    """Return the arguments for Python that make the start `name` write to `folder`, with a checkpoint every 0.2 s."""
    script, *flags = STARTS[name]
    return (START, ROOT / script, *flags, "--scale", "quick", "--device", "cpu", "--out", folder)


def results(folder: Path) -> dict:
    """Return {file: content} of the arrays, weights and tables in a folder of outputs, without what is a time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        assert not is_temporary(path), path
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".npz":
            arrays = tables.load_arrays(path)
            found[name] = {key: array.tobytes() for key, array in arrays.items() if not is_time(key)}
        elif path.suffix == ".pt":
            weights = torch.load(path, weights_only=True)
            found[name] = {key: np.asarray(value).tobytes() for key, value in weights.items()}
        elif path.suffix == ".csv" and path.name != "log.csv":
            rows = tables.read_csv(path)
            found[name] = [{key: cell for key, cell in row.items() if not is_time(key)} for row in rows]
    assert found
    return found


def is_time(name):
    """Return whether a value of this name is a time, or depends on one."""
    return any(word in name for word in TIMES)


def assert_same(found: dict, expected: dict):
    """Assert that two `results` are the same, and name the first file that is not."""
    assert found.keys() == expected.keys()
    for file, content in expected.items():
        assert found[file] == content, file
