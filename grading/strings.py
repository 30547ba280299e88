"""The page's texts in English and Chinese. Those of the claims are in claims.csv."""

from typing import NamedTuple

from common.support.translations import Text

NOTHING = Text("", "")

GROUPS = {  # sections of the page, and groups of the forest plot
    "task1": Text("Task 1: loss curves", "任务一：损失曲线"),
    "task2": Text("Task 2: regularization", "任务二：正则化"),
    "task3": Text("Task 3: hyperparameters", "任务三：超参数"),
    "task4": Text("Task 4: architectures", "任务四：网络架构"),
    "project3": Text("Project 3: high accuracy", "项目三：高准确率分类器"),
}
FOLDERS = {  # of outputs, by section: their titles
    "task1": {"task1_loss_curves/outputs": GROUPS["task1"]},
    "task2": {"task2_regularization/outputs": GROUPS["task2"]},
    "task3": {"task3_hparams/outputs": GROUPS["task3"]},
    "task4": {
        "task4_architectures/outputs": Text("LeNet and LightweightResNet", "LeNet 与 LightweightResNet"),
        "task4_architectures/outputs/batch_size": Text("Which batch size?", "批大小是多少？"),
        "task4_architectures/outputs/ablations": Text("Batch norm and shortcuts taken out", "去掉批归一化与残差连接"),
    },
    "project3": {
        "project3_wrn/outputs/resnet18": Text("ResNet-18 by the report's recipe", "按报告方案训练 ResNet-18"),
        "project3_wrn/outputs/wrn28_10": Text("WRN-28-10 by the report's recipe", "按报告方案训练 WRN-28-10"),
        "project3_wrn/outputs/wrn16_8": Text("WRN-16-8 by the report's recipe", "按报告方案训练 WRN-16-8"),
        "project3_wrn/outputs/fast94": Text("fast94: 94% in minutes", "fast94：几分钟达到 94%"),
        "project3_wrn/outputs/fast95": Text("fast95", "fast95"),
        "project3_wrn/outputs/fast96": Text("fast96", "fast96"),
        "project3_wrn/outputs/compare_models": Text("Six networks compared", "六种网络对比"),
        "project3_wrn/outputs/batch_epoch_grid": Text("Batch size and epochs", "批大小与轮数"),
        "project3_wrn/outputs/improvements": Text("What each change gains", "各项改动的作用"),
        "project3_wrn/outputs/ensemble": Text("Ensembles", "集成"),
        "project3_wrn/outputs/label_audit": Text("Labels that look wrong", "可疑的标签"),
    },
}

REPORTS = {
    "assignment": Text("Assignment", "作业"),
    "project3": Text("Project 3", "项目三"),
}

SHORT = {  # in the navigation
    "task1": Text("Task 1", "任务一"),
    "task2": Text("Task 2", "任务二"),
    "task3": Text("Task 3", "任务三"),
    "task4": Text("Task 4", "任务四"),
    "project3": Text("Project 3", "项目三"),
}
LEGEND = {  # of the bars, after a number; the other kinds have their names
    "contradicts itself": Text("contradictory", "自相矛盾"),
    "depends on what the report does not say": Text("open setting", "设置未写明"),
    "short run": Text("short run", "缩短的实验"),
}
COLON, SEMICOLON = Text(": ", "："), Text("; ", "；")

# the first screen
NUMBERS = Text(
    "{inside} of the assignment's {all} test accuracies lie in our 95% prediction intervals. Of project 3's {networks} "
    "networks, {trained} have been trained.",
    "作业报告的 {all} 个测试准确率中，{inside} 个落在我们的 95% 预测区间内；项目三的 {networks} 个网络已训练 {trained} 个。",
)
SUMMARY = {
    "assignment": Text(
        "{reproduced} of the report's {all} claims are reproduced, and {consistent} agree with its own numbers. {failed} "
        "fail ({unreproduced} not reproduced, {wrong} wrong as stated), {contradict} contradict the report itself, {open} depend on settings that it does not state, {waiting} needs "
        "a GPU.",
        "报告的 {all} 条论断中，{reproduced} 条得到复现，{consistent} 条与报告自身的数字相符；{failed} 条不成立（{unreproduced} 条未复现，{wrong} 条表述有误），{contradict} 条自相矛盾，{open} 条取决于报告未说明的设置，{waiting} 条须在 GPU 上训练后才能判定。",
    ),
    "project3": Text(
        "{waiting} of the report's {all} claims need full training runs on a GPU ({short} have a short run). {reproduced} are reproduced, "
        "{consistent} agree with the report's own numbers, {contradict} contradict them, {failed} fail, and {open} depends "
        "on a setting that it omits.",
        "报告的 {all} 条论断中，{waiting} 条须在 GPU 上完整训练后才能判定（其中 {short} 条仅做过缩短的实验）；{reproduced} 条得到复现，{consistent} 条与报告自身的数字相符，{contradict} 条自相矛盾，{failed} 条不成立，{open} 条取决于报告未说明之处。",
    ),
}
ONE_TRAINING = Text(
    "Task 3's runs with a low learning rate and without momentum are in effect one training: lr / (1 − momentum), the size of "
    "their steps, is the same. Our means differ by {ours} points, the report's numbers by {report}.",
    "任务三的“低学习率”与“无动量”实际上是同一种训练：两者的等效步长 lr / (1 − momentum) 相同。我们的两组结果相差 {ours} 个百分点，报告中相差 {report}。",
)
OPEN_BATCH_SIZE = Text(
    "The assignment states no batch size. That alone moves task 4's LeNet from {high}% (batch size {smallest}) to "
    "{low}% (batch size {largest}); the report has {report}%.",
    "作业报告没有写明批大小，而仅此一项就使任务四中 LeNet 的准确率从 {high}%（批大小 {smallest}）变为 {low}%（批大小 {largest}）；报告为 {report}%。",
)
UNDERFITTING = Text(
    "L2 and dropout do harm here: without them LeNet gains {gain} points. In {epochs} epochs it underfits; it does not overfit.",
    "L2 与 Dropout 在这里有害无益：去掉后 LeNet 的准确率提高 {gain} 个百分点。{epochs} 轮之内网络处于欠拟合，而非过拟合。",
)
PROVENANCE = Text(
    "Run on {cores} CPU cores ({machines}), {hours} hours of training in all, {first} to {last}; no GPU was available.",
    "在 {cores} 个 CPU 核（{machines}）上运行，训练共 {hours} 小时，{first} 至 {last}；没有可用的 GPU。",
)
NOT_RUN = Text(
    "Not run: {names} by the report's recipe. The smallest, ResNet-18, takes about {hours} hours per seed without a GPU.",
    "尚未运行：按报告方案训练的 {names}。其中最小的 ResNet-18 在没有 GPU 时每个种子约需 {hours} 小时。",
)
FOREST_TITLE = Text("The reports' test accuracies and ours", "报告的测试准确率与我们的结果")
FOREST_FACTS = Text(
    "dots and lines are ours: mean and 95% prediction interval; numbers: mean ± standard deviation over seeds",
    "实心点与线为我们的均值与 95% 预测区间；右侧数字为不同种子的均值 ± 标准差",
)
L2_ONLY, DROPOUT_ONLY = Text("L2 only", "仅 L2"), Text("dropout only", "仅 Dropout")
LENET_64 = Text("LeNet, batch size 64", "LeNet，批大小 64")
LENET_100 = Text("LeNet, batch size 100", "LeNet，批大小 100")
RESNET_64 = Text("LightweightResNet, batch 64", "LightweightResNet，批大小 64")
RESNET_100 = Text("LightweightResNet, batch 100", "LightweightResNet，批大小 100")


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
        Text("short run, no verdict", "缩短的实验，不作判定"),
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
        "方向性论断（> 或 <）在同种子之差的 95% 置信区间完全越过界限时成立；“不 >0”（不大于 0）则在区间未完全超过 0 时成立。"
        "单次实验没有区间，不作判定。同一测试集上的两种方法用 McNemar 检验（5% 水平）比较。± 后为不同种子的标准差。",
    ),
)

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
    "shortened": Text("shortened: not the report's epochs or network", "缩短的实验：轮数或网络与报告不同"),
    "quick": Text("QUICK RUN on the embedded sample", "小规模快速运行（QUICK）：仅用内置小样本"),
    "damaged": Text("damaged, left out", "文件损坏，已略去"),
    "missing": Text("not yet run at full scale", "尚未以完整规模运行"),
}

TRAINED = Text(
    "{seeds}, {cores} CPU cores, {hours} h of training, commit", "{seeds}，{cores} 个 CPU 核，训练 {hours} 小时，提交"
)
SHORT_RUN = Text("{model}, {epochs} epochs, {count}", "{model}，{epochs} 轮，{count}")
ROUNDS = Text("{count} rounds", "{count} 轮测量")  # of a benchmark
MEMBERS = Text("{count} members", "{count} 个成员")
ONE_SEED = Text("1 seed", "1 个种子")
SEEDS = Text("{count} seeds", "{count} 个种子")

PAGE = {
    "title": Text("CIFAR-10 coursework: do the two reports hold?", "CIFAR-10 课程实验：两份报告是否成立？"),
    "skip": Text("Skip to the content", "跳到正文"),
    "summary": Text("Summary", "概览"),
    "sections": Text("Sections of this page", "本页各节"),
    "findings": Text("Findings", "主要发现"),
    "failed": Text("What a report claims and our runs do not show", "报告如此声称，但我们的实验不支持"),
    "run": Text("What was run", "运行情况"),
    "forest": Text("Test accuracy of every run, %", "每次实验的测试准确率，%"),
    "forest_legend": Text(
        "○ the report · ● ours: mean ± standard deviation over {fewest} to {most} seeds; the line is the 95% prediction interval of one "
        "more run · ✓ the report lies in it",
        "○ 报告 · ● 我们的均值 ± 标准差（{fewest} 至 {most} 个种子）；横线为再做一次实验的 95% 预测区间 · ✓ 报告值在区间内",
    ),
    "configuration": Text("Run", "实验"),
    "reported": Text("Report", "报告"),
    "ours": Text("Ours", "我们的结果"),
    "agrees": Text("Inside", "区间内"),
    "inside": Text("the report's number lies in our interval", "报告的数字在我们的区间内"),
    "outside": Text("the report's number lies outside our interval", "报告的数字在我们的区间外"),
    "no_number": Text("nothing to compare", "无对应数字"),
    "claims": Text("Claims", "逐条论断"),
    "rules": Text("What ±, the interval and the verdicts mean", "±、区间与各种判定的含义"),
    "report": Text("Report", "报告"),
    "all": Text("all", "全部"),
    "verdict": Text("Verdict", "判定"),
    "search": Text("Search", "搜索"),
    "shown": Text("claims shown", "条论断"),
    "failing": Text("What fails, contradicts itself or is open", "不成立、自相矛盾或尚无定论的论断"),
    "section": Text(
        "{report}, section {section}: {count} claims that hold or were shortened",
        "{report}，第 {section} 节：{count} 条成立或仅有缩短实验的论断",
    ),
    "waiting": Text("{count} claims wait for this command:", "{count} 条论断有待运行："),
    "id": Text("Id", "编号"),
    "claim": Text("Claim", "论断"),
    "measured": Text("Measured", "实测"),
    "tested": Text("Tested: ", "检验内容："),
    "details": Text("Tables and notes", "表格与说明"),
    "evidence": Text("Evidence:", "依据："),
    "missing": Text("Not run yet", "尚未运行"),
    "missing_why": Text(
        "No GPU was available for these trainings. A command that was stopped resumes; with --plan it prints the time that "
        "it needs on your machine. The hours are those of one training on 2 CPU cores by our benchmark.",
        "这些训练当时没有可用的 GPU。命令中断后可继续；加上 --plan 则给出在你的机器上所需的时间。小时数为基准测试推算的双核 CPU 上单次训练用时。",
    ),
    "experiment": Text("Experiment", "实验"),
    "command": Text("Command", "命令"),
    "waiting_count": Text("Claims that wait", "有待判定的论断"),
    "hours_here": Text("Hours on 2 cores", "双核小时数"),
    "damaged": Text("Damaged, left out:", "文件损坏，已略去："),
    "runs": Text("Runs", "运行记录"),
    "checksum": Text(
        "Before anything is trained, CIFAR-10's files are checked against the MD5s of the official binary version, "
        "wherever they came from.",
        "无论来源如何，训练之前都会用官方二进制版本的 MD5 逐一校验 CIFAR-10 的文件。",
    ),
    "folder": Text("Outputs", "输出目录"),
    "state": Text("State", "状态"),
    "machine": Text("Machine", "机器"),
    "cores": Text("Cores", "核数"),
    "seeds": Text("Seeds", "种子"),
    "hours": Text("Hours of training", "训练小时"),
    "versions": Text("Versions:", "版本："),
    "commit": Text("Commit", "提交"),
    "changed": Text("with uncommitted changes", "含当时未提交的修改"),
    "more": Text("read on", "详见"),
    "not_run": Text("not run", "尚未运行"),
}


def join(*texts):
    """Join texts, each in its language."""
    return Text("; ".join(text.en for text in texts), "；".join(text.zh for text in texts))


def format_seeds(count):
    return SEEDS.format(count=count) if count > 1 else ONE_SEED
