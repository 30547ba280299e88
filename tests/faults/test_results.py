"""Result files and pages from strangers: what cannot be used is named in one line, and nothing on a page is run."""

import html
import json
import re
import shutil
import zipfile

import matplotlib.figure
import numpy as np
import pytest

from common import cli, data, plots, tables
from common.support.errors import UserError
from grading import build, outputs, readmes, strings, summary
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
    ignored = shutil.ignore_patterns("*.png", "checkpoints", *(("*.md",) if "outputs" in name else ()))
    shutil.copytree(ROOT / name, folder, ignore=ignored)
    out = folder.parent if main in (project3.main, batch_size.main, ablations.main) else folder
    out = folder.parent if main in (improvements.main, label_audit.main) else out
    read = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".npz", ".csv"))
    path = read[generator.integers(len(read))]
    damage(path, generator)
    process = run_in_process(main, *flags, "--redraw", "--out", out)
    if process.returncode:
        assert_single_error_line(process, str(folder), status=1)
