"""The READMEs' table of reliability: what tests/faults attacked the program with, how often, and what it survived."""

from common import cli, tables
from common.support.translations import Text

FOLDER = cli.ROOT / "tests" / "faults"
COLUMNS = (Text("attack", "攻击"), Text("tried", "尝试次数"), Text("survived", "通过次数"))
AREAS = {  # the files of tests/faults, in the order of a reader's interest
    "kill": Text(
        "SIGKILL at a random moment or in the middle of a write, then the same command: the same bits",
        "在随机时刻或写文件途中 SIGKILL，再运行同一条命令：结果逐位相同",
    ),
    "signals": Text(
        "Ctrl-C, SIGTERM or SIGHUP: one line within 5 s, and nothing runs on",
        "Ctrl-C、SIGTERM、SIGHUP：5 秒内以一行提示结束，不留下任何进程",
    ),
    "divergence": Text(
        "A loss that is not finite: the last good state stays, and training resumes from it",
        "损失变为无穷大或 NaN：保留此前最后的正常状态，并可从中继续训练",
    ),
    "disk": Text(
        "A full, read-only or missing disk: old files stay as they were",
        "磁盘已满、只读或不存在：旧文件保持不变",
    ),
    "data": Text(
        "Damaged files and archives of CIFAR-10: found, named and repaired",
        "CIFAR-10 的文件或压缩包损坏：能发现、指出并修复",
    ),
    "servers": Text(
        "Hosts that are slow, stall or send something else: the next source is taken",
        "下载服务器过慢、停滞或返回错误内容：换用下一个来源",
    ),
    "hostile": Text(
        "Damaged and crafted checkpoints and weights: refused, nothing in them runs",
        "损坏或恶意构造的检查点与权重：拒绝读取，其中的代码不会执行",
    ),
    "results": Text(
        "Damaged results, and HTML in what a page shows: named in one line, or escaped",
        "损坏的结果文件，以及页面内容中的 HTML：以一行提示指出，或转义",
    ),
    "photos": Text(
        "Damaged and crafted photos: read rightly, or refused in one line",
        "损坏或恶意构造的图片：正确读取，或以一行提示拒绝",
    ),
    "flags": Text(
        "Random command lines: status 0, 1 or 2, one line, never a traceback",
        "随机的命令行参数：退出码为 0、1 或 2，只有一行提示，绝无 traceback",
    ),
    "together": Text(
        "Two processes at once: one waits or is refused, and every file is whole",
        "两个进程同时运行：其中一个等待或被拒绝，所有文件保持完整",
    ),
    "determinism": Text("The same seed again: the same bytes on a CPU", "同一种子再次运行：在 CPU 上逐字节相同"),
    "memory": Text(
        "Memory: none is lost in 1,000 steps; each process of tasks 1 to 4 stays below 2 GiB",
        "内存：1,000 步训练中不增长；任务一至四的每个进程低于 2 GiB",
    ),
    "environment": Text(
        "No HOME, git, npm or compiler; a closed terminal; other locales: results are written all the same",
        "没有 HOME、git、npm 或编译器，终端关闭，或换用其他语言环境：照常写出结果",
    ),
    "supply": Text(
        "Packages and downloads with another hash than the one that is known: not installed, not read",
        "安装包或下载内容的哈希值与已知的不符：不安装，不读取",
    ),
}
RUN = Text(
    "One run of `{command}`: {minutes:.0f} minutes on {cores} cores. {link} lists every attack.",
    "`{command}` 的一次运行：{cores} 核，{minutes:.0f} 分钟。{link} 列出每一种攻击。",
)
MEMORY = Text(
    "Peak memory of the committed runs (`peak_memory_gb` of each run.json): {low:.1f} to {high:.1f} GB per process in "
    "tasks 1 to 4, which train in one process per core; {project3:.1f} GB in project 3, which has one process.",
    "已提交的各次运行的内存峰值（各 run.json 的 `peak_memory_gb`）：任务一至四每个进程 {low:.1f} 至 {high:.1f} GB，"
    "每个核一个进程；项目三只有一个进程，为 {project3:.1f} GB。",
)


def format_table(lang: str) -> str:
    """Return the table in a language, "en" or "zh", with a line on the run that it is from, and one on memory.

    Raises:
        KeyError: a file of tests/faults is not in AREAS.
    """
    rows = tables.read_csv(FOLDER / "results.csv")
    if unknown := {row["area"] for row in rows} - AREAS.keys():
        raise KeyError(f"AREAS lacks {', '.join(sorted(unknown))}")
    cells = []
    for area, name in AREAS.items():
        counts = [[int(row[key]) for key in ("tried", "survived")] for row in rows if row["area"] == area]
        if counts:
            cells.append((getattr(name, lang), *(f"{sum(values):,}" for values in zip(*counts))))
    facts = cli.read_json(FOLDER / "run.json")
    line = RUN.format(**facts, link="[results.csv](tests/faults/results.csv)")
    columns = [getattr(column, lang) for column in COLUMNS]
    paragraphs = [getattr(text, lang) for text in (line, format_memory()) if text]
    return tables.markdown([dict(zip(columns, row)) for row in cells]) + "".join(f"\n{text}\n" for text in paragraphs)


def format_memory() -> Text | None:
    """Return the sentence on the peak memory of the committed runs, None if there are none."""
    assignment, project3 = (read_peaks(tasks) for tasks in ("task*", "project3_wrn"))
    if not (assignment and project3):
        return None
    return MEMORY.format(low=min(assignment), high=max(assignment), project3=max(project3))


def read_peaks(tasks: str) -> list[float]:
    """Return the peak memory in GB of every committed full-scale run of the tasks that match."""
    runs = [cli.read_json(path) for path in cli.ROOT.glob(f"{tasks}/outputs/**/run.json")]
    return [run["peak_memory_gb"] for run in runs if run.get("peak_memory_gb")]
