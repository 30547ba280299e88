"""What the page says itself, in English and Chinese, and the words of claims.csv's values and configurations."""

import re

from common.data import CLASSES
from common.support.translations import CHINESE

WORDS = {
    "title": ("CIFAR-10 coursework: what was measured", "CIFAR-10 课程实验：实测结果"),
    "lead": (
        "The experiments of two lab reports, run again: every output, and the reports' claims beside what was measured. What has not been run at full scale says so.",
        "两份实验报告的实验重跑结果：所有输出，以及报告各条论断与实测结果的对照。尚未以完整规模运行的部分均有标明。",
    ),
    "summary": ("The reports' numbers and ours", "报告的数字与我们的数字"),
    "task": ("Task", "任务"),
    "run": ("Run", "实验"),
    "ours": ("Ours: test accuracy, %", "我们的测试准确率，%"),
    "verdicts": ("Verdicts", "判定汇总"),
    "claims": ("The claims", "逐条论断"),
    "runs": ("What was run", "运行记录"),
    "report": ("Report", "报告"),
    "assignment": ("The assignment", "第一次作业"),
    "project3": ("Project 3", "项目三"),
    "all": ("all", "全部"),
    "verdict": ("Verdict", "判定"),
    "reproduced": ("reproduced", "已复现"),
    "not reproduced": ("not reproduced", "未复现"),
    "consistent": ("consistent with its own numbers", "与自身数字一致"),
    "contradicted": ("contradicted", "自相矛盾"),
    "not yet run": ("not yet run", "尚未运行"),
    "section": ("Section", "章节"),
    "claim": ("Claim", "论断"),
    "says": ("Report says", "报告数值"),
    "measured": ("Measured", "实测"),
    "why": ("Why", "依据"),
    "shown": ("claims shown", "条论断"),
    "folder": ("Outputs", "输出目录"),
    "machine": ("Machine", "机器"),
    "seeds": ("Seeds", "种子"),
    "seconds": ("Seconds of training", "训练用时（秒）"),
    "versions": ("Versions", "版本"),
    "data": ("Data", "数据"),
    "commit": ("Commit", "提交"),
    "changed": ("with changes not committed then", "含当时未提交的修改"),
    "state": ("State", "状态"),
    "done": ("full scale", "完整规模"),
    "shortened": ("shortened: not the report's epochs", "缩短：不是报告的轮次"),
    "quick": ("QUICK: a moment on the embedded sample", "快速模式：仅内置小样本"),
    "damaged": ("damaged, left out", "文件损坏，已略去"),
    "missing": ("not yet run at full scale", "尚未以完整规模运行"),
    "command": ("This would run it:", "运行命令："),
    "details": ("Tables and notes", "表格与说明（英文）"),
    "figures": ("Figures", "图"),
    "close": ("Close", "关闭"),
    "checksum": (
        "Whatever its source, CIFAR-10 is checked file by file against the MD5s of the official binary version before anything is trained.",
        "无论来源如何，训练之前都会用官方二进制版本的 MD5 逐一校验 CIFAR-10 的文件。",
    ),
    "skip": ("Skip to the content", "跳到正文"),
}

PHRASES = {
    "0.04 ms is a hundredth of a step": "0.04 毫秒为一步的百分之一",
    "0.4 points are two standard errors where 400 of 10,000 differ": "10,000 张中有 400 张不同时，0.4 个百分点为两个标准误",
    "9:1 split": "9:1 划分",
    "L2": "仅 L2",
    "ResNet-18 with a stem for 32x32": "适配 32x32 首层的 ResNet-18",
    "a gap between training and test": "训练与测试之间有差距",
    "batch x epoch grid": "批次与轮次网格",
    "best member by validation": "按验证集选出的最佳成员",
    "both at batch 64": "批次均为 64",
    "both on 32x32": "均以 32x32 输入",
    "chapter 2's model": "第二章的模型",
    "chapter 2's model (as ResNet-18)": "第二章的模型（按 ResNet-18）",
    "cosine": "余弦退火",
    "ensemble": "集成",
    "lightweight_resnet beside torchvision's ResNet-18": "轻量级 ResNet 与 torchvision 的 ResNet-18",
    "low": "较低",
    "mean probability": "平均概率",
    "next to nothing": "几乎为零",
    "not said which": "未写明哪一种",
    "on 32x32": "以 32x32 输入",
    "on a GPU": "在 GPU 上",
    "on a GPU (the report's is an NVIDIA A10)": "在 GPU 上（报告用 NVIDIA A10）",
    "one network alone": "仅一个网络",
    "post-activation": "后激活",
    "pre-activation": "预激活",
    "recipe": "训练配方",
    "table": "表格",
    "text": "正文",
    "text of 2.3": "2.3 正文",
    "table 1.7's WideResNet 28-10": "表 1.7 的 WideResNet 28-10",
    "the report names none": "报告未写明",
    "the same members": "相同的成员",
    "torchvision's resnet18": "torchvision 的 resnet18",
    "underfitting": "欠拟合",
    "with VGG-16": "含 VGG-16",
    "without VGG-16": "不含 VGG-16",
}
JOINTS = {", ": "，", "; ": "，", " and ": " 与 "}
COUNTED = {"points": "个百分点", "epochs": "轮", "images": "张", "ms": "毫秒", "s": "秒", "nats": "nat"}


def in_chinese(text):
    """A value or a configuration of claims.csv in Chinese, phrase by phrase; names of networks stay as they are."""
    if text in PHRASES:
        return PHRASES[text]
    return "".join(map(phrase, re.split("(, |; | and )", text)))


def phrase(text):
    if text in JOINTS:
        return JOINTS[text]
    if text in PHRASES:
        return PHRASES[text]
    if taken := re.fullmatch(f"({'|'.join(CLASSES)}) for ({'|'.join(CLASSES)})", text):
        return f"{CHINESE[taken[1]]}误判为{CHINESE[taken[2]]}"
    if named := re.fullmatch(r"(batch|task|table) ([\d.]+)", text):
        return {"batch": "批次 ", "task": "任务 ", "table": "表 "}[named[1]] + named[2]
    if counted := re.fullmatch(rf"([<>]?[-\d.e]+) ({'|'.join(COUNTED)})", text):
        return f"{counted[1]} {COUNTED[counted[2]]}"
    return CHINESE.get(text, text)
