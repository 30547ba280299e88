"""What --plan prints: every script's runs with their estimated time and memory, and nothing is trained."""

import re

import pytest
import torch

from common import reported, sweep
from common.support import plan
from tests.conftest import BASH, ROOT, TASKS, run, run_python

TASK4 = tuple(f"task4_architectures/{name}.py" for name in ("batch_size", "ablations"))
SCRIPTS = (*(f"{task}/main.py" for task in TASKS), *TASK4)
STUDIES = ("compare_models", "batch_epoch_grid", "label_audit", "improvements", "ensemble")


def table_rows(text):
    """Return the cells of every row of the tables in a text, without their heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0] not in ("config", "---")]


def test_run_all_prints_the_plan_of_every_task_and_their_total():
    process = run(BASH, "run_all.sh", "--device", "cuda", "--plan", *TASKS)
    assert process.returncode == 0, process.stderr
    titles = re.findall(r"^(\S+) at full scale on cuda:$", process.stdout, re.MULTILINE)
    assert tuple(dict.fromkeys(titles)) == SCRIPTS
    seconds = [int(number) for number in re.findall(r"^about .* \((\d+) s; ", process.stdout, re.MULTILINE)]
    assert process.stdout.splitlines()[-1] == f"total: about {plan.duration(sum(seconds))}"
    assert "H100" in process.stdout
    models = [row[1] for row in table_rows(process.stdout)]
    reduced = {"lightweight_resnet_no_batch_norm", "lightweight_resnet_no_shortcuts"}
    assert set(models) == {"lenet", "lightweight_resnet", *reduced}
    assert models.count("lightweight_resnet") == 1 + 2  # of main.py, and at two batch sizes


def test_run_all_prints_the_plan_of_every_study_of_project_3_and_counts_a_training_once():
    process = run(BASH, "run_all.sh", "--device", "cuda", "--plan", "project3_wrn", timeout=900)
    assert process.returncode == 0, process.stderr
    titles = re.findall(r"^(\S+) at full scale on cuda:$|^(\S+ensemble.py) at full", process.stdout, re.MULTILINE)
    scripts = list(dict.fromkeys("".join(title) for title in titles))
    assert scripts == [f"project3_wrn/{name}.py" for name in ("main", *STUDIES)]
    rows = table_rows(process.stdout)
    assert [row[1] for row in rows[:6]] == ["resnet18", "wrn28_10", "wrn16_8", "fast94", "fast95", "fast96"]
    above = [row[0] for row in rows if row[5] == "trained above"]
    assert above[:4] == ["resnet18", "wrn28_10", "wrn16_8", "mirror"]
    times = dict((row[0], row[5]) for row in rows)
    assert {*reported.NETWORKS, "epochs_100_batch_256", "fold_4", "mixup", "ensemble"} <= times.keys()
    assert times["baseline"] != times["mixup"]  # of its three seeds main.py has one
    assert all(float(row[6]) > 0 for row in rows)  # GB
    seconds = [int(number) for number in re.findall(r"^about .* \((\d+) s; ", process.stdout, re.MULTILINE)]
    assert process.stdout.splitlines()[-1] == f"total: about {plan.duration(sum(seconds))}"


def test_a_training_is_new_once(monkeypatch, tmp_path):
    monkeypatch.delenv("PLANNED", raising=False)
    assert plan.is_new("a") and plan.is_new("a")
    monkeypatch.setenv("PLANNED", str(tmp_path / "list"))
    assert [plan.is_new(name) for name in "aba"] == [True, True, False]


def test_a_plan_writes_nothing_and_follows_the_flags(tmp_path):
    flags = ("--scale", "quick", "--device", "cpu", "--seeds", "3", "--epochs", "7")
    process = run_python(ROOT / "task3_hparams/main.py", "--plan", *flags, "--out", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    rows = table_rows(process.stdout)
    together, *alone, split = rows
    assert [together[0], split[0]] == ["baseline and 7 more", "baseline and 7 more (9:1 split)"]
    assert len(alone) == 8 and alone[0][0] == "baseline"  # for their times
    assert together[2:5] == split[2:5] == ["3", "7", "4"]
    assert all(row[2:5] == ["1", "7", "4"] for row in alone)
    assert not (tmp_path / "out").exists()


def test_image_counts():
    assert plan.image_counts("full", True) == (45_000, 5_000, 10_000)
    assert plan.image_counts("quick", False) == (1400, 0, 500)


def test_a_row_of_a_job():
    base = {"model": "lenet", "epochs": 5, "batch_size": 4, "lr": 0.1, "momentum": 0.9, "weight_decay": 0, "dropout": 0}
    (job,) = sweep.make_jobs({"a": base, "b": {**base, "lr": 0.2}}, [0, 1, 2], seeds_together=True)
    assert sweep.plan_row(job, "full", validation=True, evaluate_train=True) == {
        "name": "a and 1 more (9:1 split)",
        "model": "lenet",
        "epochs": 5,
        "batch_size": 4,
        "seeds": 3,
        "members": 6,
        "stacked": True,
        "train": 45_000,
        "evaluated": 25_000,
    }


def test_costs():
    row = {"model": "fast94", "epochs": 10, "batch_size": 1000, "train": 50_000, "evaluated": 0}
    row |= {"members": 1, "stacked": False}
    seconds, memory = plan.cost(row, "cuda", 1e15)
    flops = 236_294_720 * 3 * 50_000  # tests/test_models.py has a forward pass
    assert seconds == pytest.approx(10 * (flops / (1e15 * plan.SHARE["cuda"]) + 50 * plan.STEP["cuda"]))
    assert plan.cost(row | {"members": 3}, "cuda", 1e15) == (pytest.approx(3 * seconds), memory)
    assert plan.cost(row | {"batch_size": 2000}, "cuda", 1e15)[1] > memory
    assert plan.cost(row | {"passes": 5}, "cuda", 1e15)[0] == pytest.approx(seconds / 2)
    assert plan.cost(row | {"speed": 2}, "cuda", 1e15)[0] < seconds
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(5 * 30 * 30, 7))
    assert plan.activation_count(layers) == 2 * 5 * 30 * 30 + 7
