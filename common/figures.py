"""Figures from saved histories, in English or Chinese. What is drawn is given in English; `Style.text` translates it."""

import logging

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from common import tables
from common.files import atomic
from common.translations import CHINESE

GLYPHS = "训练损失轮次准确率"  # a font that has these has the rest of our labels
LIKELY = (
    "NotoSansCJK",
    "NotoSansSC",
    "SourceHanSans",
    "wqy",
    "simhei",
    "msyh",
    "PingFang",
    "Hiragino",
    "STHeiti",
    "simsun",
    "uming",
    "ukai",
    "Droid",
)
QUICK = "QUICK: a moment on the embedded sample, not the report's experiment"


class Style:
    """A language and a scale: `text` for every label in a figure, `save` for every figure."""

    def __init__(self, lang="en", scale="full"):
        self.quick = scale == "quick"
        self.words = {}
        matplotlib.rcParams.update(matplotlib.rcParamsDefault | {"backend": "agg"})
        plt.rcParams.update(
            {
                "axes.grid": True,
                "grid.alpha": 0.3,
                "figure.dpi": 110,
                "savefig.bbox": "tight",
                "axes.unicode_minus": False,
            }
        )
        if lang == "zh":
            family = chinese_font()
            if family:
                logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # such a font has few weights
                self.words = CHINESE
                plt.rcParams.update({"font.family": [family, "DejaVu Sans"]})
            else:
                print(
                    "no installed font has Chinese glyphs: the figures are in English (Debian: apt install fonts-noto-cjk)"
                )

    def text(self, words):
        """The label in the figure's language; as it is where no translation is known."""
        return self.words.get(words, words)

    def save(self, figure, path):
        if self.quick:
            figure.text(0.5, 1.0, self.text(QUICK), ha="center", va="bottom", color="firebrick", fontweight="bold")
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
        plt.close(figure)


def chinese_font():
    """Family name of an installed font that has our glyphs, None if there is none. Looks at the files: matplotlib's cache may be old."""
    paths = font_manager.findSystemFonts()
    likely = [
        path
        for name in LIKELY
        for path in sorted(paths)
        if name.lower() in path.lower().replace("-", "").replace(" ", "")
    ]
    for path in [*likely, *(path for path in sorted(paths) if path not in likely)]:
        try:
            font = FT2Font(path)
        except RuntimeError:  # not a font that FreeType reads
            continue
        if all(ord(glyph) in font.get_charmap() for glyph in GLYPHS):
            font_manager.fontManager.addfont(path)
            return font.family_name
    return None


def moving_average(values, window):
    """Means of `window` neighbours; len(values) - window + 1 of them."""
    return np.convolve(values, np.ones(window) / window, mode="valid")


def loss_figure(path, history, title, style, window=100):
    """Two panels (assignment, section 3.1.3): the loss of every batch under its moving average, and the mean of every epoch."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 8), layout="constrained")
    losses, indices = history["batch_losses"], history["batch_indices"]
    upper.plot(indices, losses, linewidth=0.3, alpha=0.4, label=style.text("Batch loss"))
    if len(losses) >= window:
        upper.plot(
            indices[window - 1 :],
            moving_average(losses, window),
            color="C3",
            linewidth=1,
            label=style.text("Moving average of 100 batches"),
        )
    upper.set(
        xlabel=style.text("Batch"), ylabel=style.text("Training loss"), title=style.text("Training loss per batch")
    )
    upper.set_ylim(0, np.percentile(losses[np.isfinite(losses)], 99.9) * 1.1)  # a diverged run has some that are not
    upper.legend(loc="upper right")
    epochs = np.arange(1, len(history["epoch_losses"]) + 1)
    lower.plot(epochs, history["epoch_losses"], "o-")
    for epoch, loss in zip(epochs, history["epoch_losses"]):
        lower.annotate(f"{loss:.3f}", (epoch, loss), textcoords="offset points", xytext=(4, 6))
    lower.set(
        xlabel=style.text("Epoch"),
        ylabel=style.text("Mean training loss"),
        title=style.text("Mean training loss per epoch"),
        xticks=epochs,
    )
    lower.margins(x=0.06, y=0.15)
    figure.suptitle(title)
    style.save(figure, path)


def curves(axes, histories, field, style, ylabel):
    """One line a run over the epochs: the mean over its seeds, in a band of one standard deviation."""
    for position, run in enumerate(dict.fromkeys(run for run, _ in histories)):
        trainings = [history[field].astype(float) for (name, _), history in histories.items() if name == run]
        longest = max(map(len, trainings))  # one that diverged may have stopped early
        values = np.array([np.pad(line, (0, longest - len(line)), constant_values=np.nan) for line in trainings])
        epochs = np.arange(1, values.shape[1] + 1)
        color = f"C{position % 10}"
        axes.plot(
            epochs,
            values.mean(0),
            marker="o",
            markersize=3,
            color=color,
            label=style.text(run),
        )
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            axes.fill_between(
                epochs, values.mean(0) - spread, values.mean(0) + spread, color=color, alpha=0.15, linewidth=0
            )
    axes.set(xlabel=style.text("Epoch"), ylabel=style.text(ylabel))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))


def bars(axes, values, style, ylabel):
    """One bar a run: mean over its seeds with one standard deviation, the mean written above."""
    for position, numbers in enumerate(values.values()):
        mean, spread = numbers.mean(), tables.std(numbers)
        axes.bar(position, mean, yerr=spread, capsize=3, color=f"C{position % 10}")
        axes.annotate(
            f"{mean:.1f}",
            (position, mean + spread),
            ha="center",
            va="bottom",
            fontsize=8,
            xytext=(0, 1),
            textcoords="offset points",
        )
    axes.set_xticks(range(len(values)), [style.text(run) for run in values], rotation=25, ha="right")
    axes.set_ylabel(style.text(ylabel))
    axes.margins(y=0.12)
