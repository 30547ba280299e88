"""run_all.sh: what it starts, what it does after a failure, and what it refuses."""

import re
import subprocess

import pytest

from common.support import files
from tests.conftest import BASH, ROOT, TASKS, assert_single_error_line

STUDIES = ("compare_models", "batch_epoch_grid", "label_audit", "improvements", "ensemble")
QUICK = ("--scale", "quick", "--device", "cpu")


def test_run_all_continues_after_a_failure_and_names_it():
    """Two tasks that another run has locked: both are tried, both are named, the status says so."""
    first, second = TASKS[:2]
    locks = [ROOT / task / "outputs_quick" / "checkpoints" / "lock" for task in (first, second)]
    with files.locked(locks[0], wait=False), files.locked(locks[1], wait=False):
        words = [BASH, "run_all.sh", *QUICK, first, second]
        process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert process.returncode == 1
    assert process.stderr.count("another run of this task") == 2
    assert f"failed: {first}/main.py; {second}/main.py" in process.stderr


def starts_of_run_all(scale, device, *names):
    """Return the starts, one per line, that run_all.sh makes of tasks and scripts."""
    script = (ROOT / "run_all.sh").read_text(encoding="utf-8")
    function = re.search(r"^starts\(\) .*?^}", script, re.DOTALL | re.MULTILINE)[0]
    lists = "\n".join(re.findall(r"^(?:TASK4|PROJECT3)=.*$", script, re.MULTILINE))
    command = (
        f"{lists}\nscale={scale}; device={device}; {function}; for name in {' '.join(names)}; do starts $name; done"
    )
    process = subprocess.run([BASH, "-c", command], capture_output=True, text=True, check=True)
    return process.stdout.splitlines()


@pytest.mark.parametrize(
    ("scale", "device", "models", "studies"),
    [
        ("quick", "cpu", [[]], ()),
        ("quick", "cuda", [[]], ()),
        ("full", "cpu", ["fast94", "fast96"], ()),
        ("full", "cuda", ["resnet18", "wrn28_10", "wrn16_8", "fast94", "fast95", "fast96"], STUDIES),
    ],
)
def test_run_all_starts_every_script_and_each_network_of_project_3(scale, device, models, studies):
    lines = starts_of_run_all(scale, device, *TASKS, "project3_wrn")
    flags = f"--scale {scale} --device {device}"
    names = [f"{task}/main.py" for task in TASKS]
    names += [f"task4_architectures/{name}.py" for name in ("batch_size", "ablations")]
    assert lines[: len(names)] == [f"{name} {flags} --keep-checkpoints" for name in names]
    networks = [line.split() for line in lines[len(names) : len(names) + len(models)]]
    assert all(words[0] == "project3_wrn/main.py" for words in networks)
    assert [words[6:7] for words in networks] == [[name] if name else [] for name in models]
    rest = [line.split()[0] for line in lines[len(names) + len(models) :]]
    assert rest == [f"project3_wrn/{name}.py" for name in studies]


def test_run_all_starts_a_script_by_its_name():
    for name in STUDIES[:-1]:
        (line,) = starts_of_run_all("quick", "cpu", f"project3_wrn/{name}")
        assert line == f"project3_wrn/{name}.py --scale quick --device cpu"
    assert starts_of_run_all("full", "cuda", "project3_wrn/ensemble") == ["project3_wrn/ensemble.py --scale full"]
    (line,) = starts_of_run_all("full", "cuda", "task4_architectures/batch_size")
    assert line == "task4_architectures/batch_size.py --scale full --device cuda --keep-checkpoints"


def test_run_all_knows_every_script():
    """Whatever script is added to project 3 or task 4 is one that run_all.sh starts."""
    script = (ROOT / "run_all.sh").read_text(encoding="utf-8")
    for task, variable in (("task4_architectures", "TASK4"), ("project3_wrn", "PROJECT3")):
        listed = set(re.search(rf"^{variable}=\((.*)\)$", script, re.MULTILINE)[1].split())
        there = {path.stem for path in (ROOT / task).glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
        assert there - {"predict"} <= listed  # it trains nothing and needs a picture


WRONG = (["--nonsense"], ["--scale", "huge"], ["--device", "tpu"], ["task9"], ["project3_wrn/studies"], ["--lang"])


@pytest.mark.parametrize("words", WRONG)
def test_run_all_refuses_what_it_does_not_know(words):
    process = subprocess.run(
        [BASH, "run_all.sh", *words], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert_single_error_line(process, words[-1], status=2)
    assert "usage:" in process.stderr
