"""The result table of both READMEs, filled from the committed outputs by grading/build.py."""

import re

import numpy as np

from common import cli, tables

REPORTED = {
    "task1_loss_curves": {"baseline": "49 / 50.68"},
    "task2_regularization": {
        "no_regularization": "61.35",
        "baseline": "50.68",
        "strong_regularization": "10.00",
        "l2": "",
        "dropout": "",
    },
    "task3_hparams": {
        "baseline": "50.68",
        "high_lr": "22.29",
        "low_lr": "40.21",
        "more_epochs": "54.93",
        "no_regularization": "61.35",
        "strong_regularization": "10.00",
        "no_momentum": "36.51",
        "no_regularization_more_epochs": "",
    },
    "task4_architectures": {"lenet": "36.30", "lenet_batch_100": "36.30", "lightweight_resnet": "63.37"},
    "project3_wrn": {"resnet18": "95.77", "wrn28_10": "96.45", "fast94": "", "fast95": "", "fast96": ""},
}
BLOCK = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)", re.DOTALL)


READMES = {"README.md": "en", "README.zh-CN.md": "zh"}
WORDS = {
    "en": ("task", "run", "report", "ours", "seed", "seeds", "not yet run at full scale"),
    "zh": ("任务", "实验", "报告", "本项目", "个种子", "个种子", "尚未以完整规模运行"),
}


def result_rows(lang="en"):
    """The report's number and ours, a run a row."""
    *head, one_seed, seeds, not_yet = WORDS[lang]
    rows = []
    for task, runs in REPORTED.items():
        accuracies = read_accuracies(cli.ROOT / task / "outputs")
        for run, reported in runs.items():
            mine = accuracies.get(run)
            ours = not_yet
            if mine is not None:
                ours = f"{tables.mean_std(mine)} ({len(mine)} {seeds if len(mine) > 1 else one_seed})"
            rows.append(dict(zip(head, (task, run, reported, ours))))
    return rows


def read_accuracies(outputs):
    """{run: test accuracies of its seeds} of a task's results.csv and batch_results.csv, or of the metrics.json of each of project 3's networks."""
    accuracies = {}
    for path in (outputs / "results.csv", outputs / "batch_results.csv"):
        accuracies |= tables.accuracies(path) if path.exists() else {}
    for path in outputs.glob("*/metrics.json"):
        accuracies[path.parent.name] = np.array([entry["test_accuracy"] for entry in cli.read_json(path)])
    return accuracies


def filled(text, lang):
    return BLOCK.sub(lambda match: match[1] + tables.markdown(result_rows(lang)) + match[2], text)


def fill():
    for name, lang in READMES.items():
        path = cli.ROOT / name
        text = path.read_text(encoding="utf-8")
        if filled(text, lang) != text:  # it may be read-only where nothing is to be written
            tables.write_text(path, filled(text, lang))
