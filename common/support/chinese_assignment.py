"""The sentences of the pages of tasks 1 to 4 and of what all tasks share in Chinese, by their English templates."""

SENTENCES = {
    "**QUICK**: a run on the embedded sample; its numbers are not comparable with the report's.": (
        "**QUICK**：仅用内置小样本的快速运行，数字不可与报告比较。"
    ),
}
