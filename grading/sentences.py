"""Two or three sentences on what a task's outputs show, in English and Chinese, computed from its numbers so that they stay true."""

import numpy as np

from common import cli, tables


def of(folder):
    """[(English, Chinese)] of a folder of outputs; none where there is nothing to add to its page."""
    task, _, study = folder.partition("/outputs")
    path = cli.ROOT / folder
    told = TASKS.get(task) or STUDIES.get(study.removeprefix("/"))
    if told:
        return told(path)
    return network(path) if (path / "metrics.json").exists() else []


def task1(path):
    histories = tables.load_histories(path / "loss_history_seeds.npz")
    losses = np.mean([history["epoch_losses"] for history in histories.values()], 0)
    accuracy = tables.accuracies(path / "results.csv")["baseline"]
    share = 100 * (losses[0] - losses[1]) / (losses[0] - losses[-1])
    return [
        (
            f"The loss falls from {losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} epochs, {share:.0f}% of it between the first and the second.",
            f"损失在 {len(losses)} 个轮次内从 {losses[0]:.2f} 降到 {losses[-1]:.2f}，其中 {share:.0f}% 发生在第一、二轮次之间。",
        ),
        (
            f"Test accuracy afterwards: {tables.mean_std(accuracy)}%.",
            f"训练后的测试准确率为 {tables.mean_std(accuracy)}%。",
        ),
    ]


def task2(path):
    values = tables.accuracies(path / "results.csv")
    best = max(values, key=lambda run: values[run].mean())
    none, both = values["no_regularization"].mean(), values["baseline"].mean()
    return [
        (
            f"Without regularisation {none:.2f}%, with the report's L2 and dropout {both:.2f}%.",
            f"无正则化为 {none:.2f}%，使用报告的 L2 与 Dropout 为 {both:.2f}%。",
        ),
        (
            f"The best of all strengths tried is `{best}` with {values[best].mean():.2f}%, {values[best].mean() - none:+.2f} points from none.",
            f"所试强度中最好的是 `{best}`，{values[best].mean():.2f}%，与无正则化相差 {values[best].mean() - none:+.2f} 个百分点。",
        ),
    ]


def task3(path):
    values = tables.accuracies(path / "results.csv")
    order = sorted(values, key=lambda run: -values[run].mean())
    best, worst = order[0], order[-1]
    return [
        (
            f"Of the eight runs `{best}` is best ({values[best].mean():.2f}%) and `{worst}` worst ({values[worst].mean():.2f}%).",
            f"八组实验中 `{best}` 最好（{values[best].mean():.2f}%），`{worst}` 最差（{values[worst].mean():.2f}%）。",
        ),
        (
            f"Ten epochs for five raise the baseline by {values['more_epochs'].mean() - values['baseline'].mean():.2f} points, taking regularisation away by {values['no_regularization'].mean() - values['baseline'].mean():.2f}.",
            f"轮次从五增至十使基准提高 {values['more_epochs'].mean() - values['baseline'].mean():.2f} 个百分点，去掉正则化则提高 {values['no_regularization'].mean() - values['baseline'].mean():.2f} 个。",
        ),
    ]


def task4(path):
    values = tables.accuracies(path / "results.csv")
    lenet, resnet = values["lenet"].mean(), values["lightweight_resnet"].mean()
    batches = tables.accuracies(path / "batch_results.csv")
    lenets = {run: numbers.mean() for run, numbers in batches.items() if run.startswith("lenet")}
    low, high = min(lenets, key=lenets.get), max(lenets, key=lenets.get)
    return [
        (
            f"At batch 64 LeNet reaches {lenet:.2f}% and LightweightResNet {resnet:.2f}%, {resnet - lenet:.1f} points more.",
            f"批次大小为 64 时，LeNet 达到 {lenet:.2f}%，轻量级 ResNet 达到 {resnet:.2f}%，高出 {resnet - lenet:.1f} 个百分点。",
        ),
        (
            f"LeNet's accuracy after the same ten epochs hangs on the batch size alone: {lenets[high]:.2f}% at {high.rsplit('_', 1)[1]}, {lenets[low]:.2f}% at {low.rsplit('_', 1)[1]}.",
            f"同样十个轮次，LeNet 的准确率只随批次大小变化：{high.rsplit('_', 1)[1]} 时 {lenets[high]:.2f}%，{low.rsplit('_', 1)[1]} 时 {lenets[low]:.2f}%。",
        ),
    ]


def network(path):
    metrics = cli.read_json(path / "metrics.json")
    accuracy = tables.mean_std([entry["test_accuracy"] for entry in metrics])
    ece = np.mean([entry["ece"] for entry in metrics])
    seconds = np.mean([entry["training_seconds"] for entry in metrics])
    return [
        (
            f"Test accuracy {accuracy}% over {len(metrics)} seed(s), after {seconds:,.0f} s of training; expected calibration error {ece:.3f}.",
            f"{len(metrics)} 个种子的测试准确率 {accuracy}%，训练用时 {seconds:,.0f} 秒；期望校准误差 {ece:.3f}。",
        )
    ]


def improvements(path):
    values = {run: numbers.mean() for run, numbers in tables.accuracies(path / "results.csv").items()}
    base = values.pop("baseline")
    best, worst = max(values, key=values.get), min(values, key=values.get)
    return [
        (
            f"From a baseline of {base:.2f}%, of {len(values)} changes `{best}` gains most ({values[best] - base:+.2f} points) and `{worst}` loses most ({values[worst] - base:+.2f}).",
            f"基准为 {base:.2f}%；{len(values)} 项改动中 `{best}` 提高最多（{values[best] - base:+.2f} 个百分点），`{worst}` 降低最多（{values[worst] - base:+.2f}）。",
        )
    ]


def ensemble(path):
    found = cli.read_json(path / "ensemble.json")
    member = found.pop("best_member")
    best = max(found, key=found.get)
    name = best.replace("_", " ")
    return [
        (
            f"The member that is best on the validation set has {member:.2f}% right; of the ways to combine them `{name}` has most, {found[best]:.2f}% ({found[best] - member:+.2f} points).",
            f"验证集上最好的单个模型为 {member:.2f}%；各种集成方式中 `{name}` 最高，{found[best]:.2f}%（{found[best] - member:+.2f} 个百分点）。",
        )
    ]


def label_audit(path):
    train, test = (tables.read_csv(path / f"{part}_suspects.csv") for part in ("train", "test"))
    known = sum(row.get("found wrong by people") == "yes" for row in test)
    return [
        (
            f"Confident learning doubts {len(train):,} training labels; of the test labels {len(test):,} are not what the networks say, {known} of which people have found wrong.",
            f"置信学习怀疑 {len(train):,} 个训练标签；测试标签中有 {len(test):,} 个与网络的判断不同，其中 {known} 个已由人工认定有误。",
        )
    ]


STUDIES = {"improvements": improvements, "ensemble": ensemble, "label_audit": label_audit}
TASKS = {
    "task1_loss_curves": task1,
    "task2_regularization": task2,
    "task3_hparams": task3,
    "task4_architectures": task4,
}
