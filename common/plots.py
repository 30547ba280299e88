"""Figures from saved histories, in English or Chinese: draw in English, `save` translates."""

import logging
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Annotation, Text

from common import tables
from common.support.files import atomic
from common.support.translations import CHINESE, ENGLISH

WINDOW = 100  # batches of a moving average
# Of configurations, in their order. A line may lie exactly on an earlier one, which must still be seen.
LINES, MARKERS = ("-", "--", "-", ":", "-", "--", ":", "-."), "osD^vP*X"
GLYPHS = "训练损失轮次准确率"  # a font that has these has the rest of our labels
# parts of the file names of Chinese fonts, with spaces and hyphens removed; these files are tried first
LIKELY = (
    *("notosanscjk", "notosanssc", "sourcehansans", "wqy", "simhei", "msyh", "pingfang"),
    *("hiragino", "stheiti", "simsun", "uming", "ukai", "droid"),
)
QUICK = "QUICK RUN on the embedded sample; not comparable with the report"
TITLE_SIZE, FACTS_SIZE = 13, 9.5  # points
FACTS_PER_INCH = 12.5  # characters of this size
# The look of the figures that follow. `setup` sets it, as it sets matplotlib's rcParams.
_look = {"quick": False, "labels": ENGLISH}


def setup(lang: str = "en", scale: str = "full") -> None:
    """Set the look, the language (`en` or `zh`) and the scale of the figures that follow.

    Prints one line and stays with English where no installed font has Chinese glyphs.
    """
    matplotlib.rcParams.update(matplotlib.rcParamsDefault | {"backend": "agg"})
    plt.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 110, "savefig.bbox": "tight"})
    plt.rcParams.update({"axes.unicode_minus": False})
    _look.update(quick=scale == "quick", labels=ENGLISH)
    if lang == "zh":
        if family := chinese_font():
            logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # such a font has few weights
            plt.rcParams.update({"font.family": [family, "DejaVu Sans"]})
            _look.update(labels=CHINESE)
        else:
            print("no installed font has Chinese glyphs: figures are in English (Debian: apt install fonts-noto-cjk)")


def about(figure: Figure, title: str, *facts: str) -> None:
    """Write `title` above a figure, and below it, smaller, the facts that it depends on: network, seeds, epochs, scale.

    A constrained layout keeps room for both.
    """
    lines = []
    for fact in facts:
        if lines and len(lines[-1]) + len(fact) < FACTS_PER_INCH * figure.get_figwidth():
            lines[-1] += f", {fact}"
        else:
            lines.append(fact)
    # the empty lines are the room for the facts, which have a size of their own
    heading = figure.suptitle(title + "\n" * len(lines), fontsize=TITLE_SIZE)
    place = {"xy": (0.5, 0), "xycoords": heading, "ha": "center", "va": "bottom"}
    figure.add_artist(Annotation("\n".join(lines), **place, fontsize=FACTS_SIZE, color="0.35"))


def save(figure: Figure, path: Path) -> None:
    """Translate every label of `figure`, mark it where the scale is quick, and write it to `path` as a PNG."""
    if _look["quick"]:
        figure.text(0.5, 1.0, QUICK, ha="center", va="bottom", color="firebrick", fontweight="bold")
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # drawing makes the labels of ticks anew unless they are set
            ticks = [label.get_text() for label in axis.get_ticklabels()]
            if ticks != (translated := [translate(text) for text in ticks]):
                axis.set_ticks(axis.get_ticklocs(), translated)
    for text in figure.findobj(Text):
        text.set_text(translate(text.get_text()))
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)


def translate(text: str) -> str:
    """Replace every label in `text` that the figures' language has a name for, the longest first."""
    labels = _look["labels"]
    known = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.sub(rf"(?<!\w)({known})(?!\w)", lambda match: labels[match[0]], text)


def chinese_font() -> str | None:
    """Return the family name of an installed font that has our glyphs, or None.

    Looks at the font files, as matplotlib's cache may be old.
    """
    paths = sorted(font_manager.findSystemFonts())
    names = {path: path.lower().replace("-", "").replace(" ", "") for path in paths}
    likely = [path for part in LIKELY for path in paths if part in names[path]]
    for path in dict.fromkeys([*likely, *paths]):
        try:
            font = FT2Font(path)
        except RuntimeError:  # not a font that FreeType reads
            continue
        if all(ord(glyph) in font.get_charmap() for glyph in GLYPHS):
            font_manager.fontManager.addfont(path)
            return font.family_name
    return None


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Average `window` neighbors: (N,) -> (N - window + 1,)."""
    return np.convolve(values, np.ones(window) / window, mode="valid")


def loss_figure(path: Path, history: dict[str, np.ndarray], title: str) -> None:
    """Draw the loss of every batch with its moving average, and the mean of every epoch (assignment, section 3.1.3)."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 8), layout="constrained")
    losses, indices = history["batch_losses"], history["batch_indices"]
    upper.plot(indices, losses, linewidth=0.3, alpha=0.4, label="Batch loss")
    if len(losses) >= WINDOW:
        average, label = moving_average(losses, WINDOW), f"Moving average of {WINDOW} batches"
        upper.plot(indices[WINDOW - 1 :], average, color="C3", linewidth=1, label=label)
    upper.set(xlabel="Batch", ylabel="Training loss", title="Training loss per batch")
    # leave outliers out, and losses of a diverged run that are not finite
    upper.set_ylim(0, np.percentile(losses[np.isfinite(losses)], 99.9) * 1.1)
    upper.legend(loc="upper right")
    epochs = np.arange(1, len(history["epoch_losses"]) + 1)
    lower.plot(epochs, history["epoch_losses"], "o-")
    for epoch, loss in zip(epochs, history["epoch_losses"]):
        lower.annotate(f"{loss:.3f}", (epoch, loss), textcoords="offset points", xytext=(4, 6))
    lower.set(xlabel="Epoch", ylabel="Mean training loss", title="Mean training loss per epoch", xticks=epochs)
    lower.margins(x=0.1, y=0.15)
    figure.suptitle(title)
    save(figure, path)


def curves(axes: Axes, histories: tables.Histories, field: str, ylabel: str) -> None:
    """Draw one line per configuration over the epochs: the mean over its seeds, in a band of one standard deviation."""
    for position, config in enumerate(dict.fromkeys(config for config, _ in histories)):
        runs = [history[field].astype(float) for (name, _), history in histories.items() if name == config]
        longest = max(map(len, runs))  # a diverged run may have stopped early
        values = np.array([np.pad(run, (0, longest - len(run)), constant_values=np.nan) for run in runs])
        epochs = np.arange(1, longest + 1)
        color = f"C{position % 10}"
        style = {"linestyle": LINES[position % len(LINES)], "marker": MARKERS[position % len(MARKERS)]}
        axes.plot(epochs, values.mean(0), **style, markersize=4, color=color, label=config)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            band = (values.mean(0) - spread, values.mean(0) + spread)
            axes.fill_between(epochs, *band, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="Epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))


def bars(axes: Axes, values: dict[str, np.ndarray], ylabel: str) -> None:
    """Draw one bar per configuration: the mean over its seeds, written above it, with one standard deviation."""
    for position, numbers in enumerate(values.values()):
        mean, spread = numbers.mean(), tables.std(numbers)
        axes.bar(position, mean, yerr=spread, capsize=3, color=f"C{position % 10}")
        place = {"ha": "center", "va": "bottom", "fontsize": 8, "xytext": (0, 1), "textcoords": "offset points"}
        axes.annotate(f"{mean:.1f}", (position, mean + spread), **place)
    axes.set_xticks(range(len(values)), list(values), rotation=25, ha="right")
    axes.set_ylabel(ylabel)
    axes.margins(y=0.12)
