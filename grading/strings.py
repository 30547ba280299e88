"""The page's texts in English and Chinese. Those of the claims are in claims.csv."""

from typing import NamedTuple


class Text(NamedTuple):
    """One text in both languages."""

    en: str
    zh: str

    def format(self, **values):
        """Fill the placeholders of both languages; a value that is itself a Text is filled in language by language."""
        return Text(
            *(
                template.format(**{name: v[lang] if isinstance(v, Text) else v for name, v in values.items()})
                for lang, template in enumerate(self)
            )
        )


SECTIONS = {  # folder of outputs: title
    "task1_loss_curves/outputs": Text("Task 1: loss curves", "任务一：损失曲线"),
    "task2_regularization/outputs": Text("Task 2: regularization", "任务二：正则化"),
    "task3_hparams/outputs": Text("Task 3: hyperparameters", "任务三：超参数"),
    "task4_architectures/outputs": Text("Task 4: architectures", "任务四：网络架构"),
    "task4_architectures/outputs/batch_size": Text("Task 4: batch size", "任务四：批次大小"),
    "project3_wrn/outputs/resnet18": Text("Project 3: ResNet-18", "项目三：ResNet-18"),
    "project3_wrn/outputs/wrn28_10": Text("Project 3: WRN-28-10", "项目三：WRN-28-10"),
    "project3_wrn/outputs/fast94": Text("Project 3: fast94", "项目三：fast94"),
    "project3_wrn/outputs/fast95": Text("Project 3: fast95", "项目三：fast95"),
    "project3_wrn/outputs/fast96": Text("Project 3: fast96", "项目三：fast96"),
    "project3_wrn/outputs/compare_models": Text("Project 3: comparison of networks", "项目三：模型对比"),
    "project3_wrn/outputs/batch_epoch_grid": Text("Project 3: batch size and epochs", "项目三：批次大小与轮次"),
    "project3_wrn/outputs/improvements": Text("Project 3: improvements", "项目三：改进"),
    "project3_wrn/outputs/ensemble": Text("Project 3: ensemble", "项目三：集成"),
    "project3_wrn/outputs/label_audit": Text("Project 3: label audit", "项目三：标签审查"),
}

REPORTS = {
    "assignment": Text("The assignment", "第一次作业"),
    "project3": Text("Project 3", "项目三"),
}

KINDS = {  # of verdicts
    "reproduced": Text("reproduced", "已复现"),
    "not reproduced": Text("not reproduced", "未复现"),
    "consistent": Text("consistent with its own numbers", "与自身数字一致"),
    "contradicted": Text("contradicted", "自相矛盾"),
    "not yet run": Text("not yet run", "尚未运行"),
}

MEANINGS = (  # of the kinds of verdict
    "our number lies within the tolerance of the report's, or on the claimed side of a bound.",
    "it does not.",
    "the report's other numbers, put into the calculation under *why*, give the claimed number.",
    "another claim of the same report says something else.",
    "no full-scale run has written the file that is needed; *why* has the command.",
)

REASONS = {  # for a verdict
    "other claim": Text("{id} says {value}", "{id} 为 {value}"),
    "one seed": Text("one seed cannot rule out chance", "单个种子无法排除偶然"),
    "code": Text("computed from the code", "取自代码"),
    "confidence": Text("95% confidence, {seeds}", "95% 置信，{seeds}"),
    "tolerance": Text("± {tolerance} allowed, {seeds}", "允许 ± {tolerance}，{seeds}"),
}

STATES = {  # of a folder of outputs
    "done": Text("full scale", "完整规模"),
    "shortened": Text("shortened: not the report's epochs or network", "缩短：轮次或网络与报告不同"),
    "quick": Text("QUICK RUN on the embedded sample", "快速模式：仅内置小样本"),
    "damaged": Text("damaged, left out", "文件损坏，已略去"),
    "missing": Text("not yet run at full scale", "尚未以完整规模运行"),
}

ONE_SEED = Text("1 seed", "1 个种子")
SEEDS = Text("{count} seeds", "{count} 个种子")
ACCURACY = Text("{accuracy} ({seeds})", "{accuracy} ({seeds})")
RESULT_COLUMNS = (  # of the READMEs' tables
    Text("task", "任务"),
    Text("configuration", "配置"),
    Text("report", "报告"),
    Text("ours", "本项目"),
)

PAGE = {
    "title": Text("CIFAR-10 coursework: what was measured", "CIFAR-10 课程实验：实测结果"),
    "lead": Text(
        "The experiments of two lab reports, repeated: every output, and each claim of the reports next to what was "
        "measured. What has not been run at full scale is marked.",
        "两份实验报告的实验重跑结果：所有输出，以及报告各条论断与实测结果的对照。尚未以完整规模运行的部分均有标明。",
    ),
    "skip": Text("Skip to the content", "跳到正文"),
    "summary": Text("The reports' numbers and ours", "报告的数字与我们的数字"),
    "task": Text("Task", "任务"),
    "configuration": Text("Configuration", "配置"),
    "reported": Text("Reported", "报告数值"),
    "ours": Text("Ours: test accuracy, %", "我们的测试准确率，%"),
    "verdicts": Text("Verdicts", "判定汇总"),
    "claims": Text("The claims", "逐条论断"),
    "report": Text("Report", "报告"),
    "all": Text("all", "全部"),
    "verdict": Text("Verdict", "判定"),
    "shown": Text("claims shown", "条论断"),
    "id": Text("id", "id"),
    "section": Text("Section", "章节"),
    "claim": Text("Claim", "论断"),
    "measured": Text("Measured", "实测"),
    "why": Text("Why", "依据"),
    "command": Text("Command:", "运行命令："),
    "details": Text("Tables and notes", "表格与说明（英文）"),
    "figures": Text("Figures", "图"),
    "close": Text("Close", "关闭"),
    "runs": Text("What was run", "运行记录"),
    "checksum": Text(
        "Before anything is trained, CIFAR-10's files are checked against the MD5s of the official binary version, "
        "wherever they came from.",
        "无论来源如何，训练之前都会用官方二进制版本的 MD5 逐一校验 CIFAR-10 的文件。",
    ),
    "folder": Text("Outputs", "输出目录"),
    "state": Text("State", "状态"),
    "machine": Text("Machine", "机器"),
    "seeds": Text("Seeds", "种子"),
    "seconds": Text("Seconds of training", "训练用时（秒）"),
    "versions": Text("Versions", "版本"),
    "data": Text("Data", "数据"),
    "commit": Text("Commit", "提交"),
    "changed": Text("with uncommitted changes", "含当时未提交的修改"),
}


def format_seeds(count):
    return SEEDS.format(count=count) if count > 1 else ONE_SEED
