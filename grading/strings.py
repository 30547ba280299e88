"""The page's texts in English and Chinese. Those of the claims are in claims.csv."""

from typing import NamedTuple

from common.support.translations import Text

SECTIONS = {  # folder of outputs: title
    "task1_loss_curves/outputs": Text("Task 1: loss curves", "任务一：损失曲线"),
    "task2_regularization/outputs": Text("Task 2: regularization", "任务二：正则化"),
    "task3_hparams/outputs": Text("Task 3: hyperparameters", "任务三：超参数"),
    "task4_architectures/outputs": Text("Task 4: architectures", "任务四：网络架构"),
    "task4_architectures/outputs/batch_size": Text("Task 4: batch size", "任务四：批大小"),
    "task4_architectures/outputs/ablations": Text("Task 4: ablations", "任务四：消融实验"),
    "project3_wrn/outputs/resnet18": Text("Project 3: ResNet-18", "项目三：ResNet-18"),
    "project3_wrn/outputs/wrn16_8": Text("Project 3: WRN-16-8", "项目三：WRN-16-8"),
    "project3_wrn/outputs/wrn28_10": Text("Project 3: WRN-28-10", "项目三：WRN-28-10"),
    "project3_wrn/outputs/fast94": Text("Project 3: fast94", "项目三：fast94"),
    "project3_wrn/outputs/fast95": Text("Project 3: fast95", "项目三：fast95"),
    "project3_wrn/outputs/fast96": Text("Project 3: fast96", "项目三：fast96"),
    "project3_wrn/outputs/compare_models": Text("Project 3: comparison of networks", "项目三：模型对比"),
    "project3_wrn/outputs/batch_epoch_grid": Text("Project 3: batch size and epochs", "项目三：批大小与轮数"),
    "project3_wrn/outputs/improvements": Text("Project 3: improvements", "项目三：改进"),
    "project3_wrn/outputs/ensemble": Text("Project 3: ensemble", "项目三：集成"),
    "project3_wrn/outputs/label_audit": Text("Project 3: label audit", "项目三：标签审查"),
}

REPORTS = {
    "assignment": Text("The assignment", "第一次作业"),
    "project3": Text("Project 3", "项目三"),
}


class Kind(NamedTuple):
    """A kind of verdict: its name and what it means."""

    name: Text
    meaning: Text


KINDS = {  # of verdicts
    "reproduced": Kind(
        Text("reproduced", "已复现"),
        Text(
            "our runs, the code, the data or the literature agree with the report.",
            "我们的实验、代码、数据或文献与报告一致。",
        ),
    ),
    "not reproduced": Kind(
        Text("not reproduced", "未复现"),
        Text(
            "our runs do not agree with the report.",
            "我们的实验与报告不一致。",
        ),
    ),
    "consistent": Kind(
        Text("consistent", "自洽"),
        Text(
            "the report's other numbers give this number; nothing was run.",
            "由报告的其他数字可以算出该数字；无需实验。",
        ),
    ),
    "contradicts itself": Kind(
        Text("contradicts itself", "自相矛盾"),
        Text(
            "another part of the same report says something else. Both sides count as one, and the last column says "
            "which side our runs take.",
            "同一份报告的另一处说法与之不符。矛盾双方合计为一条，最后一列说明我们的实验支持哪一方。",
        ),
    ),
    "wrong as stated": Kind(
        Text("wrong as stated", "表述有误"),
        Text(
            "the code or the data show that it is wrong; no run can change that.",
            "无论实验结果如何，代码或数据都表明该说法有误。",
        ),
    ),
    "depends on what the report does not say": Kind(
        Text("depends on what the report does not say", "取决于报告未说明之处"),
        Text(
            "the report leaves a setting open, such as the batch size: it is right for one choice and wrong for another.",
            "报告没有说明某项设置（例如批大小）：取一种设置时成立，取另一种时不成立。",
        ),
    ),
    "short run": Kind(
        Text("short run, no verdict", "短实验，不作判定"),
        Text(
            "only a run with a smaller network or fewer epochs has been done; its number is for orientation.",
            "只做过网络更小或轮数更少的实验，其数字仅供参考。",
        ),
    ),
    "not yet run": Kind(
        Text("not yet run", "尚未运行"),
        Text(
            "no full run has given the number, or only one, which has no interval; the last column has the command.",
            "尚无完整实验给出该数字，或只有单次实验，因而没有区间；最后一列给出运行命令。",
        ),
    ),
}

RULES = (  # how a report's number is compared with ours
    Text(
        "A report's number is that of one run, so it is compared with where one more run of ours would lie: it agrees "
        "within our 95% prediction interval, t·s·√(1 + 1/k) around the mean of k seeds with standard deviation s, and "
        "within its own rounding (2.06 stands for 2.055 to 2.065). With few seeds the interval is wide; the last column "
        "says how wide.",
        "报告中的数字来自单次实验，因此与“我们再做一次实验会落在何处”相比较：数字落在 95% 预测区间内即为一致，"
        "区间为 k 个种子的均值 ± t·s·√(1 + 1/k)，s 为标准差；此外允许其自身的舍入误差（2.06 表示 2.055 至 2.065）。种子少时区间较宽，宽度见最后一列。",
    ),
    Text(
        "A direction (> or <) holds where the 95% confidence interval of the differences seed by seed is beyond the "
        "bound; “not >0” holds where it is not. One run has no interval and gets no verdict. Two methods on one "
        "test set are compared by McNemar's test at 5%. A ± is the standard deviation over seeds.",
        "方向性论断（> 或 <）在逐种子之差的 95% 置信区间完全越过界限时成立；“不 >0” 则在未越过时成立。"
        "单次实验没有区间，不作判定。同一测试集上的两种方法用 McNemar 检验（5% 水平）比较。± 后为各种子的标准差。",
    ),
)

NOTHING = Text("", "")
REASONS = {  # for a verdict
    "other claim": Text("{id} says {value}", "与 {id}（{value}）矛盾"),
    "side": Text("our runs agree with {id}", "我们的实验支持 {id}"),
    "both": Text("our runs cannot tell the two apart", "我们的实验无法区分两者"),
    "neither": Text("our runs agree with neither", "我们的实验与两者都不符"),
    "one seed": Text(
        "one run has no interval; for a verdict: {command}", "单次实验没有区间；如需判定，请运行：{command}"
    ),
    "fact": Text("from the code, the data or the literature", "取自代码、数据或文献"),
    "confidence": Text(
        "95% confidence interval of the mean ± {width}, {seeds}", "均值的 95% 置信区间 ± {width}，{seeds}"
    ),
    "prediction": Text("95% prediction interval ± {width}, {seeds}", "95% 预测区间 ± {width}，{seeds}"),
    "p": Text("McNemar's test, p = {p}", "McNemar 检验，p = {p}"),
    "short": Text("{what}", "{what}"),
    "full": Text("in full: {command}", "完整运行：{command}"),
}

UNITS = {  # in Chinese; the others are the same
    "points": "个百分点",
    "nats": "nat",
    "images": "张",
    "epochs": "轮",
    "pixels": "像素",
    "ms": "毫秒",
    "s": "秒",
}

STATES = {  # of a folder of outputs
    "done": Text("full scale", "完整规模"),
    "shortened": Text("shortened: not the report's epochs or network", "缩短：轮次或网络与报告不同"),
    "quick": Text("QUICK RUN on the embedded sample", "快速模式：仅内置小样本"),
    "damaged": Text("damaged, left out", "文件损坏，已略去"),
    "missing": Text("not yet run at full scale", "尚未以完整规模运行"),
}

SHORT_RUN = Text("{model}, {epochs} epochs, {count}", "{model}，{epochs} 轮，{count}")
ROUNDS = Text("{count} rounds", "{count} 轮测量")  # of a benchmark
MEMBERS = Text("{count} members", "{count} 个成员")
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
    "tested": Text("Tested: ", "检验内容："),
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


def join(*texts):
    """Join texts, each in its language."""
    return Text("; ".join(text.en for text in texts), "；".join(text.zh for text in texts))


def format_seeds(count):
    return SEEDS.format(count=count) if count > 1 else ONE_SEED
