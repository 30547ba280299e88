"""The sentences of the pages of tasks 1 to 4 and of what all tasks share in Chinese, by their English templates."""

SENTENCES = {
    # all tasks
    "**QUICK**: a run on the embedded sample; its numbers are not comparable with the report's.": (
        "**QUICK**：仅用内置小样本的快速运行，数字不可与报告比较。"
    ),
    "The 95% interval is a prediction interval: with a probability of 95%, one more training falls in it.": (
        "95% 区间指预测区间：若再训练一次，结果有 95% 的概率落在其中。"
    ),
    "Values are mean ± standard deviation over {seeds} seeds; a deviation that rounds to 0 is left out.": (
        "数值为 {seeds} 个种子的均值 ± 标准差；标准差四舍五入为 0 时省略。"
    ),
    "All values are those of one seed.": "所有数值均来自同一个种子。",
    "mean ± standard deviation over {seeds} seeds": "{seeds} 个种子的均值 ± 标准差",
    "one seed": "仅一个种子",
    "{name} (`{config}`)": "{name}（`{config}`）",
    "**One seed has no prediction interval with which the report's numbers could be compared.**": (
        "**只有一个种子，无法给出预测区间，因此不能判断报告的数字是否相符**。"
    ),
    "## The same training in other tasks": "## 其他任务中的相同训练",
    "One configuration was trained in several tasks: {results}. One seed differs by up to {largest:.2f} points.": (
        "同一配置在多个任务中训练过：{results}。同一种子的结果最多相差 {largest:.2f} 个百分点。"
    ),
    "{result}% ({name}, task {task})": "{result}%（任务 {task}，{name}）",
    "The runs of one seed share initial weights and batches, but each task stacks them with other runs. "
    "This changes the rounding and, with several seeds in one stack, the dropout noise. "
    "Training amplifies such differences: the results are samples of one distribution.": (
        "同一种子的各次训练使用相同的初始权重和批次，但在各任务中与不同的训练堆叠在一起计算。"
        "堆叠方式会改变舍入误差；多个种子堆叠在一起时，Dropout 的随机噪声也会改变。"
        "训练过程会放大这些差异，因此这些结果是同一分布的不同样本。"
    ),
    # task 1
    "Task 1: LeNet's losses compared with the report's": "任务 1：LeNet 的损失与报告的比较",
    "**{inside} of the report's {losses} epoch losses and {accurate} of its {accuracies} test accuracies lie in the "
    "95% prediction interval of our seeds.**": (
        "**报告的 {losses} 个每轮损失中有 {inside} 个、{accuracies} 个测试准确率中有 {accurate} 个"
        "落在我们的 95% 预测区间内**。"
    ),
    "The mean training loss is {first:.3f} nats in the first epoch and {last:.3f} in the last one.": (
        "平均训练损失在第一轮为 {first:.3f} nat，在最后一轮为 {last:.3f} nat。"
    ),
    "The test loss is lowest after the last epoch ({last:.3f}): training has not converged, and the network does not "
    "overfit yet.": "测试损失在最后一轮后最低（{last:.3f}）：训练尚未收敛，网络也还没有过拟合。",
    "The test loss is lowest after epoch {epoch} ({lowest:.3f}); after the last epoch it is {last:.3f}.": (
        "测试损失在第 {epoch} 轮后最低（{lowest:.3f}），最后一轮后为 {last:.3f}。"
    ),
    "In the last epoch of seed {seed}, 90% of the batch losses lie between {low:.2f} and {high:.2f}, while no epoch's "
    "mean differs from the report's by more than {largest:.3f} nats.": (
        "在种子 {seed} 的最后一轮中，90% 的批次损失介于 {low:.2f} 与 {high:.2f} 之间，"
        "而每轮的平均损失与报告的差距都不超过 {largest:.3f} nat。"
    ),
    "## Epoch by epoch (section 4.1)": "## 逐轮比较（4.1 节）",
    "epoch": "轮次",
    "The training loss is the mean over the batches of an epoch, with dropout on; test loss and accuracy are measured "
    "after the epoch.": "训练损失是一轮中各批次损失的均值，此时 Dropout 处于启用状态；测试损失和准确率在该轮结束后测得。",
    "The first epoch's mean minus the loss of a guess, ln {classes} = {chance:.3f}, is {difference}.": (
        "随机猜测的损失为 ln {classes} = {chance:.3f}，第一轮的平均损失与它之差为 {difference}。"
    ),
    "## What it implies for generalization": "## 对泛化能力的推论",
    "From one epoch to the next, the test loss falls in {falls} of {all} cases (every epoch of every seed).": (
        "对每个种子逐轮比较相邻两轮，{all} 次中有 {falls} 次测试损失下降。"
    ),
    "It is below the training loss in {below} of {all} cases; the training loss is measured with dropout on and while "
    "the network still learns.": (
        "{all} 次测量中有 {below} 次测试损失低于训练损失；训练损失是在 Dropout 启用、网络仍在学习时测得的。"
    ),
    "## Test accuracy after the last epoch": "## 最后一轮后的测试准确率",
    # task 2
    "Task 2: L2 and dropout": "任务 2：L2 与 Dropout",
    "**None of {tried} strengths of L2 and dropout is better than no regularization: {worse} are worse, and "
    "{undecided} cannot be told from it.**": (
        "**在试过的 {tried} 种 L2 与 Dropout 强度中，没有一种优于无正则化：{worse} 种更差，{undecided} 种与它无法区分**。"
    ),
    "**Compared with no regularization, {better} of {tried} strengths of L2 and dropout are better, {worse} are worse, "
    "and {undecided} cannot be told from it.**": (
        "**与无正则化相比，试过的 {tried} 种 L2 与 Dropout 强度中有 {better} 种更好，{worse} 种更差，"
        "{undecided} 种与它无法区分**。"
    ),
    "The report's setting, L2 {weight_decay:g} with dropout {dropout:g}, changes the gap between training and test "
    "accuracy from {gap:.2f} to {gap_both:.2f} points and test accuracy by {change} points.": (
        "采用报告的设置（L2 为 {weight_decay:g}，Dropout 为 {dropout:g}）时，训练准确率与测试准确率的差距"
        "从 {gap:.2f} 变为 {gap_both:.2f} 个百分点，测试准确率变化 {change} 个百分点。"
    ),
    "The network underfits: its training loss is {both:.3f} in place of {none:.3f}.": (
        "网络欠拟合：训练损失为 {both:.3f}，而无正则化时为 {none:.3f}。"
    ),
    "After the last epoch, training accuracy minus test accuracy is {none:.2f} points without regularization, "
    "{l2:.2f} with L2, {dropout:.2f} with dropout and {both:.2f} with both ({spread}).": (
        "最后一轮后，训练准确率减测试准确率：无正则化时为 {none:.2f} 个百分点，仅用 L2 时为 {l2:.2f}，"
        "仅用 Dropout 时为 {dropout:.2f}，两者并用时为 {both:.2f}（{spread}）。"
    ),
    "The configuration with the highest mean test accuracy, {best:.2f}%, is: {name}; at the report's setting (dotted "
    "line), L2 alone changes test accuracy by {l2} points and dropout alone by {dropout} ({spread}).": (
        "平均测试准确率最高（{best:.2f}%）的配置是“{name}”；在报告的设置处（点线），仅用 L2 使测试准确率变化 "
        "{l2} 个百分点，仅用 Dropout 使其变化 {dropout} 个百分点（{spread}）。"
    ),
    "## All strengths": "## 所有强度",
    "They are those of the last epoch. The running training loss is the mean over the epoch while training, with "
    "dropout on. Clean values are measured after the epoch in evaluation mode, on 10,000 training images. The gap is "
    "clean training accuracy minus test accuracy.": (
        "各数值均为最后一轮的结果。“训练过程中的损失”是该轮各批次的均值，此时 Dropout 处于启用状态；"
        "“评估模式”的数值在该轮结束后以评估模式在 10,000 幅训练图像上测得。差距为评估模式的训练准确率减测试准确率。"
    ),
    "Each strength is compared with no regularization seed by seed. In parentheses: the mean difference in test "
    "accuracy, in points. It is decided where its 95% interval excludes 0.": (
        "每种强度都在相同种子下与无正则化比较，括号内为测试准确率之差的均值（百分点）。差值的 95% 置信区间不含 0 时才下结论。"
    ),
    "Better: {names}.": "更好：{names}。",
    "Worse: {names}.": "更差：{names}。",
    "Undecided: {names}.": "无法判断：{names}。",
    "{name} ({change})": "{name}（{change}）",
    "The highest mean ({name}, {mean:.2f}%) is the largest of {tried} and lies inside the noise: it does not show that "
    "this strength helps.": (
        "均值最高的是“{name}”（{mean:.2f}%），但它只是 {tried} 种强度中的最大值，仍在噪声范围内，不能说明这一强度有帮助。"
    ),
    "The report's claim that regularization only hurts here (section 4.2.4) does not hold after {epochs} epochs.": (
        "报告认为正则化在此处有害无益（4.2.4 节），这一说法在训练 {epochs} 轮时不成立。"
    ),
    "The report's claim that regularization only hurts here (section 4.2.4) holds after {epochs} epochs for every "
    "strength that can be decided.": (
        "报告认为正则化在此处有害无益（4.2.4 节），训练 {epochs} 轮时，这一说法对所有能下结论的强度都成立。"
    ),
    "The report's claim that regularization only hurts here (section 4.2.4) holds after {epochs} epochs.": (
        "报告认为正则化在此处有害无益（4.2.4 节），这一说法在训练 {epochs} 轮时成立。"
    ),
    "## L2 and dropout compared (section 3.2.3)": "## L2 与 Dropout 的比较（3.2.3 节）",
    "This is the report's comparison, with our values where they can be measured. The time of a step is that of one "
    "network trained alone (benchmarks/step_cost.py).": (
        "下表为报告中的比较；凡能测量的项目均附上我们的数值。每步耗时是单独训练一个网络时测得的（benchmarks/step_cost.py）。"
    ),
    "the same": "无差异",
    "on, off": "训练时启用，测试时关闭",
    "low": "低",
    "medium": "中等",
    "{strength:g} (undecided against 0)": "{strength:g}（与 0 无法区分）",
    "## Table 2": "## 表 2",
    "The fourth row of the report's table 2, ten epochs of the baseline, is part of task 3.": (
        "报告表 2 的第四行（基准配置训练十轮）属于任务 3。"
    ),
    # task 3
    "Task 3: seven configurations, and the next step": "任务 3：七种配置与后续步骤",
    "**{inside} of the report's {all} test accuracies lie in the 95% prediction interval of our seeds.**": (
        "**报告的 {all} 个测试准确率中有 {inside} 个落在我们的 95% 预测区间内**。"
    ),
    "The baseline reaches {baseline:.2f}%. Of the report's changes to it, the best one ({best}) changes test accuracy "
    "by {gain} points, and the worst one ({worst}) by {loss}.": (
        "基准配置达到 {baseline:.2f}%。在报告对它所做的改动中，最好的改动（{best}）使测试准确率变化 {gain} 个百分点，"
        "最差的改动（{worst}）使其变化 {loss} 个百分点。"
    ),
    "The report's recommended next step ({name}) reaches {mean:.2f}%.": "报告建议的后续步骤（{name}）达到 {mean:.2f}%。",
    "Final test accuracy ranges from {lowest:.1f}% ({worst}) to {highest:.1f}% ({best}); hollow marks are the report's "
    "numbers ({spread}).": (
        "最终测试准确率从 {lowest:.1f}%（{worst}）到 {highest:.1f}%（{best}）不等；空心标记为报告的数字（{spread}）。"
    ),
    "The mean training loss of the last epoch ranges from {lowest:.2f} ({low}) to {highest:.2f} ({high}); the band "
    "holds 90% of the batch losses (seed {seed}).": (
        "最后一轮的平均训练损失从 {lowest:.2f}（{low}）到 {highest:.2f}（{high}）不等；"
        "色带包含 90% 的批次损失（种子 {seed}）。"
    ),
    "## Table 1: the configurations": "## 表 1：各配置",
    "The numbers of the configurations are the report's; the last configuration is the one that it recommends to try "
    "next. The batch size is {batch_size}, which the report does not state.": (
        "配置编号沿用报告，最后一种配置是报告建议接下来尝试的。批大小为 {batch_size}，报告没有说明这一数值。"
    ),
    "epochs": "轮数",
    "{number} (ours)": "{number}（新增）",
    "{name}: the report's {report:.2f}% lies outside our prediction interval, {difference} points from our mean. Over "
    "all epochs and seeds our accuracy ranges from {lowest:.2f}% to {highest:.2f}%, which includes it.": (
        "{name}：报告的 {report:.2f}% 在我们的预测区间之外，与我们的均值相差 {difference} 个百分点。"
        "在所有轮次和种子中，我们的准确率介于 {lowest:.2f}% 与 {highest:.2f}% 之间，报告的数字在此范围内。"
    ),
    "{name}: the report's {report:.2f}% lies outside our prediction interval, {difference} points from our mean. Over "
    "all epochs and seeds our accuracy ranges from {lowest:.2f}% to {highest:.2f}%, which excludes it.": (
        "{name}：报告的 {report:.2f}% 在我们的预测区间之外，与我们的均值相差 {difference} 个百分点。"
        "在所有轮次和种子中，我们的准确率介于 {lowest:.2f}% 与 {highest:.2f}% 之间，报告的数字不在此范围内。"
    ),
    "Steps with a low learning rate and steps without momentum have the same long-run size, "
    "learning rate / (1 - momentum) = {size:g}. Seed by seed, their accuracies differ by {difference} points on average.": (
        "低学习率与无动量两种配置的长期等效步长相同：学习率 / (1 - 动量) = {size:g}。"
        "相同种子相比，两者的准确率平均相差 {difference} 个百分点。"
    ),
    "In effect they are one training.": "二者实际上是同一种训练。",
    "The report's two numbers differ by {report} points. The difference of two runs with different seeds has a "
    "standard deviation of {spread:.2f} points.": (
        "报告的两个数字相差 {report} 个百分点，而两次不同种子的训练之差的标准差为 {spread:.2f} 个百分点。"
    ),
    "## Section 3.3.2: the four metrics": "## 3.3.2 节：四项评估指标",
    "Roughness is the mean absolute difference of the training loss's means over consecutive {window} batches: the "
    "lower, the smoother. Epochs are counted until test accuracy first reaches the target (median over seeds, in "
    "parentheses their range). Seconds are those of one seed, trained outside a stack.": (
        "粗糙度：把训练损失每 {window} 个批次取一次均值，相邻均值之差的绝对值的平均，越低表示曲线越平滑。"
        "轮数：测试准确率首次达到目标所需的轮数，取各个种子的中位数，括号内为范围。时间：一个种子不堆叠、单独训练的秒数。"
    ),
    "epochs to {target}%": "达到 {target}% 的轮数",
    "never": "未达到",
    "{median} ({low} to {high})": "{median}（{low}～{high}）",
    "No run has been timed outside a stack yet: `python task3_hparams/main.py --scale full` does it.": (
        "尚未单独训练计时，可运行 `python task3_hparams/main.py --scale full` 完成。"
    ),
    "Twice the epochs take {ratio:.2f} times as long. The seconds are those of {device}, without evaluation and "
    "compilation; on a CPU each run has one core, and one run per core is trained at a time.": (
        "轮数加倍时，用时为原来的 {ratio:.2f} 倍。计时设备为 {device}，不含评估和编译；"
        "在 CPU 上，每次训练占用一个核心，每个核心同时只进行一次训练。"
    ),
    "## Table 2: regularization and accuracy": "## 表 2：正则化与准确率",
    "learns nothing: the loss of a guess is ln {classes} = {loss:.4f}": (
        "没有学到任何东西：随机猜测的损失为 ln {classes} = {loss:.4f}"
    ),
    "highest accuracy and lowest training loss": "准确率最高，训练损失最低",
    "highest accuracy": "准确率最高",
    "underfits: accuracy {change} points, training loss {rise} (compared with {best})": (
        "欠拟合：与“{best}”相比，准确率 {change} 个百分点，训练损失 {rise}"
    ),
    "overfits: accuracy {change} points, training loss {rise} (compared with {best})": (
        "过拟合：与“{best}”相比，准确率 {change} 个百分点，训练损失 {rise}"
    ),
    "## What validation chooses": "## 验证集的选择",
    "The report compares its configurations on the test set. Here each is trained again on 45,000 images, and accuracy "
    "on the other 5,000 chooses.": (
        "报告在测试集上比较各配置。这里用 45,000 幅图像重新训练每种配置，再按其余 5,000 幅图像上的准确率进行选择。"
    ),
    "This part is not finished; `python task3_hparams/main.py --scale full` resumes it.": (
        "这一部分尚未完成，可运行 `python task3_hparams/main.py --scale full` 继续。"
    ),
    "Validation chooses: {best} ({validation:.2f}%; test accuracy {test:.2f}%).": (
        "验证集选出的配置是“{best}”（{validation:.2f}%，测试准确率 {test:.2f}%）。"
    ),
    "The test set ranks all configurations in the same order.": "测试集对所有配置的排序与此相同。",
    "The test set ranks the same one first, but the others in another order.": (
        "测试集上排名第一的是同一配置，但其余配置的排序不同。"
    ),
    "The test set would have chosen another one: {name}.": "若按测试集选择，则会选出另一种配置：{name}。",
    "Validation and test accuracy of a configuration differ by {largest:.2f} points at most.": (
        "同一配置的验证准确率与测试准确率最多相差 {largest:.2f} 个百分点。"
    ),
    # task 4
    "Task 4: LeNet and LightweightResNet": "任务 4：LeNet 与 LightweightResNet",
    "**At batch size {batch_size} LightweightResNet reaches {resnet:.2f}% and LeNet {lenet:.2f}%, a difference of "
    "{difference:.2f} points (report: {report:.2f}).**": (
        "**批大小为 {batch_size} 时，LightweightResNet 达到 {resnet:.2f}%，LeNet 达到 {lenet:.2f}%，"
        "相差 {difference:.2f} 个百分点（报告：{report:.2f}）**。"
    ),
    "With every seed, LightweightResNet is more accurate after {epochs} epochs than LeNet after the last one.": (
        "对每个种子，LightweightResNet 训练 {epochs} 轮后的准确率都高于 LeNet 最后一轮后的准确率。"
    ),
    "Not with every seed is LightweightResNet more accurate after {epochs} epochs than LeNet after the last one.": (
        "LightweightResNet 训练 {epochs} 轮后的准确率并非对每个种子都高于 LeNet 最后一轮后的准确率。"
    ),
    "Neither network overfits much: training accuracy minus test accuracy is {small:.2f} points for LeNet and "
    "{large:.2f} for LightweightResNet.": (
        "两个网络的过拟合都很轻微：训练准确率减测试准确率，LeNet 为 {small:.2f} 个百分点，"
        "LightweightResNet 为 {large:.2f} 个百分点。"
    ),
    "LightweightResNet has the larger gap: training accuracy minus test accuracy is {small:.2f} points for LeNet and "
    "{large:.2f} for LightweightResNet.": (
        "LightweightResNet 的训练与测试差距更大：训练准确率减测试准确率，LeNet 为 {small:.2f} 个百分点，"
        "LightweightResNet 为 {large:.2f} 个百分点。"
    ),
    "LeNet has the larger gap: training accuracy minus test accuracy is {small:.2f} points for LeNet and {large:.2f} for "
    "LightweightResNet.": (
        "LeNet 的训练与测试差距更大：训练准确率减测试准确率，LeNet 为 {small:.2f} 个百分点，"
        "LightweightResNet 为 {large:.2f} 个百分点。"
    ),
    "After the last epoch the seeds lie between {low:.2f}% and {high:.2f}% for LeNet and between {lowest:.2f}% and "
    "{highest:.2f}% for LightweightResNet; hollow marks are the report's numbers ({spread}).": (
        "最后一轮后，LeNet 各个种子的准确率介于 {low:.2f}% 与 {high:.2f}% 之间，LightweightResNet 介于 {lowest:.2f}% 与 "
        "{highest:.2f}% 之间；空心标记为报告的数字（{spread}）。"
    ),
    "## Table 3": "## 表 3",
    "The batch size is {batch_size}; the report does not state its own, and "
    "[batch_size.md](batch_size/batch_size.md) asks which one it was.": (
        "批大小为 {batch_size}；报告没有说明所用的批大小，"
        "[batch_size.zh.md](batch_size/batch_size.zh.md) 探究它可能是多少。"
    ),
    "Training accuracy is measured at the end, in evaluation mode, on 10,000 training images; the gap is training "
    "accuracy minus test accuracy. Seconds are those of one training on {device}, without evaluation (on a CPU, with "
    "one core); the report's are those of an NVIDIA A10.": (
        "训练准确率在训练结束后以评估模式在 10,000 幅训练图像上测得；差距为训练准确率减测试准确率。"
        "时间为在 {device} 上训练一次的秒数，不含评估（在 CPU 上使用一个核心）；报告的时间是在 NVIDIA A10 上测得的。"
    ),
    "{ours} (report: {theirs})": "{ours}（报告：{theirs}）",
    "{ratio:.2f} times": "{ratio:.2f} 倍",
    "{ratio:.2f} times (report: {theirs:.2f})": "{ratio:.2f} 倍（报告：{theirs:.2f}）",
    "The seconds of one network vary by up to {spread:.0f}% (standard deviation over seeds), because the machine was "
    "busy with other work: their ratio says little.": (
        "由于机器同时在执行其他工作，同一网络的训练时间在各个种子之间的标准差最高达 {spread:.0f}%，因此时间之比参考价值不大。"
    ),
    # task 4: the batch size
    "Task 4: the batch size that the report does not state": "任务 4：报告没有说明的批大小",
    "**LeNet's accuracy depends on the batch size: {small:.2f}% at 4 (the report's task 3: {task3:.2f}%) and "
    "{large:.2f}% at 100 (the report's task 4: {task4:.2f}%).**": (
        "**LeNet 的准确率取决于批大小：批大小为 4 时为 {small:.2f}%（报告的任务 3：{task3:.2f}%），"
        "为 100 时为 {large:.2f}%（报告的任务 4：{task4:.2f}%）**。"
    ),
    "Nothing else that the report states differs between these two.": "报告说明的其他设置在这两处没有差别。",
    "Of the report's {all} numbers of task 4, our 95% prediction intervals contain {counts}.": (
        "报告的任务 4 共有 {all} 个数字，落在我们 95% 预测区间内的个数：{counts}。"
    ),
    "{count} at {size}": "批大小 {size} 时为 {count} 个",
    "After the last epoch LeNet reaches {small:.2f}% at batch size {smallest} and {large:.2f}% at {largest}; the "
    "report's {task3:.2f}% and {task4:.2f}% are among the hollow marks ({spread}).": (
        "最后一轮后，LeNet 在批大小为 {smallest} 时达到 {small:.2f}%，为 {largest} 时达到 {large:.2f}%；"
        "空心标记中包括报告的 {task3:.2f}% 和 {task4:.2f}%（{spread}）。"
    ),
    "## The report's numbers at each batch size": "## 各批大小下报告的数字",
    "Some configurations have only {fewest}.": "部分配置只有 {fewest}。",
    "Accuracies are in per cent, losses in nats. In parentheses: whether the report's number lies in our 95% interval. "
    "A distance is the mean absolute difference from the report's {accuracies} accuracies, or from its {losses} "
    "losses, seed by seed. Batch size {main_size} is that of main.py, one folder up.": (
        "准确率以百分数表示，损失以 nat 为单位。括号内表示报告的数字是否落在我们的 95% 区间内。"
        "距离：对每个种子求与报告的 {accuracies} 个准确率（或 {losses} 个损失）之差的绝对值，再取平均。"
        "批大小 {main_size} 的结果来自上一级文件夹中的 main.py。"
    ),
    "the report": "报告",
    "{mean} ({answer})": "{mean}（{answer}）",
    "## Which batch size is nearest": "## 哪个批大小最接近",
    "No batch size has been tried with both networks for all epochs: run main.py and this script.": (
        "还没有任何批大小用两个网络训练满全部轮数：请运行 main.py 和本脚本。"
    ),
    "Only sizes that both networks were trained with for all epochs are compared, seed by seed. One is farther than "
    "the nearest where the 95% interval of the mean difference excludes 0.": (
        "只比较两个网络都完整训练过的批大小。若某批大小与最接近者的平均差的 95% 置信区间不含 0，即认为它明显更远。"
    ),
    "By the report's accuracies, {size} is nearest ({distance} points).": (
        "按报告的准确率，批大小 {size} 最接近（{distance} 个百分点）。"
    ),
    "By the report's training losses, {size} is nearest ({distance} nats).": (
        "按报告的训练损失，批大小 {size} 最接近（{distance} nat）。"
    ),
    "{size} ({distance}) is farther.": "批大小 {size}（{distance}）更远。",
    "{size} ({distance}) cannot be told from it.": "批大小 {size}（{distance}）与它无法区分。",
    # task 4: ablations
    "Task 4: batch norm and shortcuts taken out": "任务 4：去掉批归一化与残差连接",
    "**The whole network has not been trained with these settings: run `python task4_architectures/main.py`.**": (
        "**完整网络尚未按这些设置训练：请运行 `python task4_architectures/main.py`**。"
    ),
    "**The fast start is due to batch norm, as the report says.**": "**正如报告所说，快速起步来自批归一化**。",
    "**Whether the fast start is due to batch norm, as the report says, cannot be decided with these seeds.**": (
        "**报告认为快速起步来自批归一化，现有种子无法判断这是否成立**。"
    ),
    "**Batch norm does not make the fast start; the report says that it does.**": (
        "**快速起步并非来自批归一化，这与报告的说法相反**。"
    ),
    "Shortcuts make the fast rise, as the report says.": "正如报告所说，准确率的快速上升来自残差连接。",
    "Whether shortcuts make the fast rise, as the report says, cannot be decided with these seeds.": (
        "报告认为准确率的快速上升来自残差连接，现有种子无法判断这是否成立。"
    ),
    "Shortcuts do not make the fast rise; the report says that they do.": (
        "准确率的快速上升并非来自残差连接，这与报告的说法相反。"
    ),
    "Compared with the whole network after the last epoch, test accuracy changes by {norm} points without batch norm "
    "and by {shortcuts} points without shortcuts (right: 95% intervals; left: {spread}).": (
        "最后一轮后与完整网络相比，去掉批归一化使测试准确率变化 {norm} 个百分点，"
        "去掉残差连接使其变化 {shortcuts} 个百分点（右图：95% 置信区间；左图：{spread}）。"
    ),
    "Test accuracy of both reduced networks ({spread}).": "两个删减后的网络的测试准确率（{spread}）。",
    "## Start, slope and end": "## 起点、斜率与终点",
    "Every network was trained at batch size {batch_size}; number of epochs: {epochs}. The slope is the rise of test "
    "accuracy per epoch after the first one. Differences from the whole network are taken seed by seed (same batches), "
    "and their ± is half of the 95% interval of the mean.": (
        "所有网络的批大小均为 {batch_size}，训练轮数为 {epochs}。斜率为第一轮之后测试准确率平均每轮的上升幅度。"
        "与完整网络之差在相同种子下计算（批次相同），其 ± 为均值 95% 置信区间的一半。"
    ),
    "the whole network": "完整网络",
    "Start: accuracy after epoch 1 changes by {norm} points without batch norm and by {shortcuts} without shortcuts.": (
        "起点：第 1 轮后的准确率，去掉批归一化后变化 {norm} 个百分点，去掉残差连接后变化 {shortcuts} 个百分点。"
    ),
    "Rise: the slope changes by {shortcuts} points per epoch without shortcuts and by {norm} without batch norm.": (
        "上升：斜率在去掉残差连接后每轮变化 {shortcuts} 个百分点，去掉批归一化后每轮变化 {norm} 个百分点。"
    ),
}
