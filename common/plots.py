"""Figures from saved histories, in English or Chinese: what is drawn is given in English, and `save` translates it."""

import logging
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from common import tables
from common.support.files import atomic
from common.support.translations import CHINESE, ENGLISH

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
QUICK = "QUICK RUN on the embedded sample; not comparable with the report"
_drawn = {
    "quick": False,
    "labels": ENGLISH,
}  # of the figures to come, as `setup` has it; matplotlib's own settings are global too


def setup(lang="en", scale="full"):
    """Set the look, the language (`en` or `zh`) and the scale of the figures that follow.

    Prints one line and stays with English where no installed font has Chinese glyphs.
    """
    matplotlib.rcParams.update(matplotlib.rcParamsDefault | {"backend": "agg"})
    plt.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 110, "savefig.bbox": "tight"})
    plt.rcParams.update({"axes.unicode_minus": False})
    _drawn.update(quick=scale == "quick", labels=ENGLISH)
    if lang == "zh":
        if family := chinese_font():
            logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # such a font has few weights
            plt.rcParams.update({"font.family": [family, "DejaVu Sans"]})
            _drawn.update(labels=CHINESE)
        else:
            print("no installed font has Chinese glyphs: figures are in English (Debian: apt install fonts-noto-cjk)")


def save(figure, path):
    """Translate every label of `figure`, mark it where the scale is quick, and write it to `path` as a PNG."""
    if _drawn["quick"]:
        figure.text(0.5, 1.0, QUICK, ha="center", va="bottom", color="firebrick", fontweight="bold")
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # labels of ticks are made anew when drawn, unless they are set
            ticks = [label.get_text() for label in axis.get_ticklabels()]
            if ticks != (translated := [translate(text) for text in ticks]):
                axis.set_ticks(axis.get_ticklocs(), translated)
    for text in figure.findobj(Text):
        text.set_text(translate(text.get_text()))
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)


def translate(text):
    """Replace the labels and names in `text` that are known, the longest first, by those of the figures' language."""
    labels = _drawn["labels"]
    known = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.sub(rf"(?<!\w)({known})(?!\w)", lambda found: labels[found[0]], text)


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


def loss_figure(path, history, title, window=100):
    """Two panels (assignment, section 3.1.3): the loss of every batch under its moving average, and the mean of every epoch."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 8), layout="constrained")
    losses, indices = history["batch_losses"], history["batch_indices"]
    upper.plot(indices, losses, linewidth=0.3, alpha=0.4, label="Batch loss")
    if len(losses) >= window:
        upper.plot(
            indices[window - 1 :],
            moving_average(losses, window),
            color="C3",
            linewidth=1,
            label="Moving average of 100 batches",
        )
    upper.set(xlabel="Batch", ylabel="Training loss", title="Training loss per batch")
    upper.set_ylim(0, np.percentile(losses[np.isfinite(losses)], 99.9) * 1.1)  # a diverged run has some that are not
    upper.legend(loc="upper right")
    epochs = np.arange(1, len(history["epoch_losses"]) + 1)
    lower.plot(epochs, history["epoch_losses"], "o-")
    for epoch, loss in zip(epochs, history["epoch_losses"]):
        lower.annotate(f"{loss:.3f}", (epoch, loss), textcoords="offset points", xytext=(4, 6))
    lower.set(
        xlabel="Epoch",
        ylabel="Mean training loss",
        title="Mean training loss per epoch",
        xticks=epochs,
    )
    lower.margins(x=0.06, y=0.15)
    figure.suptitle(title)
    save(figure, path)


def curves(axes, histories, field, ylabel):
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
            label=run,
        )
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            axes.fill_between(
                epochs, values.mean(0) - spread, values.mean(0) + spread, color=color, alpha=0.15, linewidth=0
            )
    axes.set(xlabel="Epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))


def bars(axes, values, ylabel):
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
    axes.set_xticks(range(len(values)), [run for run in values], rotation=25, ha="right")
    axes.set_ylabel(ylabel)
    axes.margins(y=0.12)
