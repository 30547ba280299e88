"""Fill the generated parts of the READMEs: headline numbers, tables of results and reliability, pages of the tasks.

A part stands between `<!-- NAME -->` and `<!-- end of NAME -->`. NAME is headline, results, reliability, or
`page: FILE`: a task's Markdown page without its title, its headings one level lower. README.zh-CN.md has all of it in
Chinese.
"""

import posixpath
import re
from typing import NamedTuple

import numpy as np

from common import cli, tables
from common.reported import ACCURACY, NETWORKS, TASK1_ACCURACY
from common.support.translations import Text, label
from grading import reliability, summary
from grading.claims import read_claims
from grading.outputs import page_in, relative
from grading.strings import KINDS
from grading.verdicts import count_verdicts, judge_all

NAMES = {"README.md": "en", "README.zh-CN.md": "zh"}
FOLDERS = ("", *ACCURACY)  # that have READMEs
ASSIGNMENT = [task for task in ACCURACY if task.startswith("task")]
PART = re.compile(r"(<!-- (headline|results|reliability|page)(?:: (\S+))? -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
TITLE = re.compile(r"\A# .*\n+")
HEADING = re.compile(r"^(?=#+ )", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s]+")


class Row(NamedTuple):
    """One row of the table of results: a configuration of a task, and where its code and its page are."""

    name: Text
    question: Text
    task: str
    config: str
    code: str = "main.py"
    page: str = ""  # in outputs/


ROWS = (
    Row(
        Text("Task 1: the baseline, LeNet", "任务一：基准配置（LeNet）"),
        Text("How does the training loss fall, batch by batch?", "训练损失如何逐批次下降？"),
        "task1_loss_curves",
        "baseline",
        page="loss_table.md",
    ),
    Row(
        Text("Task 2: no L2, no dropout", "任务二：不用 L2 与 Dropout"),
        Text("Do L2 and dropout help, and at what strength?", "L2 与 Dropout 有用吗？强度多大合适？"),
        "task2_regularization",
        "no_regularization",
        page="comparison.md",
    ),
    Row(
        Text("Task 3: learning rate times ten", "任务三：学习率取十倍"),
        Text("What does the learning rate change?", "学习率有什么影响？"),
        "task3_hparams",
        "high_lr",
        page="hyperparameters.md",
    ),
    Row(
        Text("Task 3: twice the epochs", "任务三：轮数加倍"),
        Text("What do more epochs change?", "多训练几轮有什么影响？"),
        "task3_hparams",
        "more_epochs",
        page="hyperparameters.md",
    ),
    Row(
        Text("Task 4: LeNet", "任务四：LeNet"),
        Text("How good is LeNet in the same training?", "同样的训练下，LeNet 有多好？"),
        "task4_architectures",
        "lenet",
        page="architectures.md",
    ),
    Row(
        Text("Task 4: LightweightResNet", "任务四：LightweightResNet"),
        Text("How much better is a small residual network?", "小型残差网络好多少？"),
        "task4_architectures",
        "lightweight_resnet",
        page="architectures.md",
    ),
    Row(
        Text("Task 4: LeNet, batch size 100", "任务四：LeNet，批大小 100"),
        Text("Which batch size did the report use?", "报告用的批大小是多少？"),
        "task4_architectures",
        "lenet_batch_100",
        "batch_size.py",
        "batch_size/batch_size.md",
    ),
    Row(
        Text("Project 3: ResNet-18", "项目三：ResNet-18"),
        Text("How accurate is the report's recipe?", "报告的训练方案能达到多高的准确率？"),
        "project3_wrn",
        "resnet18",
        page="resnet18/performance.md",
    ),
    Row(
        Text("Project 3: WRN-28-10", "项目三：WRN-28-10"),
        Text("Is a wide network more accurate?", "更宽的网络准确率更高吗？"),
        "project3_wrn",
        "wrn28_10",
        page="wrn28_10/performance.md",
    ),
    Row(
        Text("Project 3: fast94", "项目三：fast94"),
        Text("What can a CPU reach in minutes?", "CPU 在几分钟内能达到多高的准确率？"),
        "project3_wrn",
        "fast94",
        page="fast94/performance.md",
    ),
)
COLUMNS = (
    Text("run", "实验"),
    Text("question", "问题"),
    Text("report, %", "报告，%"),
    Text("ours, %", "我们的结果，%"),
    Text("code", "代码"),
    Text("output", "输出"),
)
SEEDS = Text("{accuracy} ({count} seeds)", "{accuracy}（{count} 个种子）")
MISSING = Text("not yet run", "尚未运行")

AGREEMENT = Text(
    "**{inside} of the {all} test accuracies** in the assignment's report lie in our 95% prediction interval: where "
    "one more run of ours would fall with a probability of 95%. The widest interval, that of {widest}, is ± {width} "
    "points.",
    "作业报告的 {all} 个测试准确率中，**{inside} 个**落在我们的 95% 预测区间内"
    "（若再训练一次，结果有 95% 的概率落在该区间）。"
    "其中最宽的区间为 ± {width} 个百分点（{widest}）。",
)
FAST = Text(
    "**{accuracy}%** test accuracy ({seeds} seeds) is what `fast94` reaches in {minutes} minutes of training per seed "
    "on {cores} CPU cores; the logits of its {share}% least certain images are averaged over {views} views. This small "
    "network and its recipe, made for speed, are not in the report.",
    "`fast94` 的测试准确率为 **{accuracy}%**（{seeds} 个种子；最不确定的 {share}% 图像取 {views} 个视图的平均），"
    "在 {cores} 个 CPU 核上每个种子只需训练 {minutes} 分钟。"
    "这个小网络及其训练方案为速度而设计，不在报告之中。",
)
CLAIMS = Text(
    "**{reproduced} of the {all} claims** of both reports are reproduced, and {consistent} more agree with the "
    "report's own numbers. {failed} fail, {contradict} contradict the report itself, {open} depend on what it does not "
    "state, and {waiting} have not been run in full, most of them for want of a GPU.",
    "两份报告的 {all} 条论断中，**{reproduced} 条得到复现**，另有 {consistent} 条与报告自身的数字相符；"
    "{failed} 条不成立，{contradict} 条自相矛盾，{open} 条取决于报告未说明之处；"
    "{waiting} 条尚未完整运行，多数是因为没有 GPU。",
)
MISSING_NETWORKS = Text(
    "Not yet trained by the report's recipe, since no GPU was available: {names}.",
    "由于没有可用的 GPU，尚未按报告的方案训练 {names}。",
)


def fill():
    """Write the generated parts of all READMEs again."""
    verdicts = count_verdicts(judge_all(read_claims()))
    for folder in FOLDERS:
        for name in NAMES:
            path = cli.ROOT / folder / name
            written = path.read_text(encoding="utf-8")
            filled = fill_parts(written, folder, NAMES[name], verdicts)
            if filled != written:  # a README that is up to date may be read-only
                tables.write_text(path, filled)


def fill_parts(document, folder, lang, verdicts):
    """Return a README's text with its generated parts filled in.

    verdicts: {report: {kind: count}}, as count_verdicts returns them.
    """

    def fill_part(match):
        start, name, page, end = match.groups()
        if name == "page":
            body = format_page(folder, page, lang)
        elif name == "headline":
            body = format_headline(verdicts, lang)
        else:
            body = {"results": format_results, "reliability": reliability.format_table}[name](lang)
        return f"{start}\n{body}\n{end}"

    return PART.sub(fill_part, document)


def format_page(folder, name, lang):
    """Return a page of a task as a part of the README in the task's folder.

    Where a study has no full run, its page is that of the shortened one.
    """
    root = cli.ROOT / folder
    if not (root / name).exists():
        name = name.replace("outputs/", "outputs_short/")
    if not (root / name).exists():
        return getattr(MISSING, lang) + "\n"
    body = HEADING.sub("#", TITLE.sub("", page_in(root / name, lang).read_text(encoding="utf-8")))
    return LINK.sub(lambda match: link_from(root, posixpath.dirname(name), match[0]), body)


def link_from(root, folder, target):
    """Return a link of a page in `folder` as one from `root`.

    A Chinese figure that is not there, since no font could draw it, is the English one.
    """
    link = posixpath.normpath(posixpath.join(folder, target))
    return link if (root / link.partition("#")[0]).exists() else link.replace(".zh.png", ".png")


def format_headline(verdicts, lang):
    """Return the headline numbers as a list in a language, "en" or "zh"."""
    counts = {kind: sum(kinds[kind] for kinds in verdicts.values()) for kind in KINDS}
    claims = CLAIMS.format(**summary.tally(counts))
    networks = read_accuracies("project3_wrn")
    missing = [label(config) for config in NETWORKS if config not in networks]
    lines = [compare_accuracies(), claims, describe_fast94()]
    if missing:
        lines.append(MISSING_NETWORKS.format(names=tables.list_texts(missing)))
    lines += [finding for _, finding in summary.findings()]
    return "".join(f"- {getattr(line, lang)}\n" for line in lines if line)


def compare_accuracies():
    """Return how many of the assignment's different test accuracies lie in our intervals wherever they are compared.

    None if no task has been run.
    """
    comparisons, widths = [], {}
    for task in ASSIGNMENT:
        accuracies = read_accuracies(task)
        for config in ACCURACY[task].keys() & accuracies:
            widths[config] = tables.prediction_half_width(accuracies[config])
            comparisons.append((reported(task, config), np.array(accuracies[config])))
    if not widths:
        return None
    inside = summary.find_inside(comparisons)
    widest = max(widths, key=widths.get)
    return AGREEMENT.format(
        inside=sum(inside.values()), all=len(inside), widest=label(widest), width=f"{widths[widest]:.0f}"
    )


def describe_fast94():
    """Return the accuracy and the time of fast94, None if it has not been run."""
    folder = cli.ROOT / "project3_wrn" / "outputs" / "fast94"
    if not (folder / "metrics.json").exists():
        return None
    entries, run = cli.read_json(folder / "metrics.json", list), cli.read_json(folder / "run.json")
    return FAST.format(
        accuracy=tables.mean_std([entry["test_accuracy"] for entry in entries]),
        seeds=len(entries),
        minutes=f"{np.mean([entry['training_seconds'] for entry in entries]) / 60:.0f}",
        cores=run["cores"],
        share=f"{100 * run['recipe']['tta_fraction']:.0f}",
        views=run["recipe"]["tta_views"],
    )


def format_results(lang):
    """Return the table of results in a language, "en" or "zh"."""
    return tables.markdown(
        [dict(zip((getattr(column, lang) for column in COLUMNS), format_row(row, lang))) for row in ROWS]
    )


def format_row(row, lang):
    """Return the cells of one row of the table of results."""
    accuracies = read_accuracies(row.task).get(row.config)
    ours = MISSING
    if accuracies is not None:
        ours = SEEDS.format(accuracy=tables.mean_std(accuracies), count=len(accuracies))
    page = page_in(cli.ROOT / row.task / "outputs" / row.page, lang)
    return (
        getattr(row.name, lang),
        getattr(row.question, lang),
        " / ".join(map(summary.format_number, reported(row.task, row.config))) or tables.DASH,
        getattr(ours, lang),
        f"[{row.code}]({row.task}/{row.code})",
        f"[{posixpath.basename(row.page)}]({relative(page)})" if page.exists() else tables.DASH,
    )


def reported(task, config):
    """Return the test accuracies that the report gives for a configuration, with those that ours may explain."""
    if task == "task1_loss_curves":  # whose report gives two
        return TASK1_ACCURACY
    config = {"lenet_batch_100": "lenet"}.get(config, config)
    return [ACCURACY[task][config]] if config in ACCURACY[task] else []


def read_accuracies(task):
    """Return {configuration: test accuracies of its seeds} of a task's outputs."""
    outputs, accuracies = cli.ROOT / task / "outputs", {}
    for path in (outputs / "results.csv", outputs / "batch_size" / "results.csv"):
        if path.exists():
            accuracies.update(tables.accuracies(path))
    for path in outputs.glob("*/metrics.json"):  # the networks of project 3
        accuracies[path.parent.name] = [entry["test_accuracy"] for entry in cli.read_json(path, list)]
    return accuracies
