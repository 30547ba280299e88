"""Figures from saved histories: drawn with code names and English labels, saved in English and in Chinese."""

import functools
import importlib.util
import io
import logging
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.image import AxesImage
from matplotlib.text import Annotation, Text
from PIL import Image  # matplotlib depends on it

from common.support.files import atomic
from common.support.translations import translate

# Okabe and Ito's colors (Wong, Points of view: Color blindness, Nature Methods 8:441, 2011), which color-blind readers
# can tell apart: blue, orange, green, vermilion, purple, sky blue, black; grey instead of yellow, which is hard to see.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999")
# Of configurations, in their order. A line may lie exactly on an earlier one, which must still be seen.
LINES, MARKERS = ("-", "--", "-", ":", "-", "--", ":", "-."), "osD^vP*X"
DPI = 200
PALETTE = 256  # colors of a figure without photos: its PNG has a third of the size
GLYPHS = "训练损失轮次准确率"  # a font that has these has the rest of our labels
# parts of the file names of Chinese fonts, with spaces and hyphens removed; these files are tried first
LIKELY = (
    *("notosanscjk", "notosanssc", "sourcehansans", "wqy", "simhei", "msyh", "pingfang"),
    *("hiragino", "stheiti", "simsun", "uming", "ukai", "droid"),
)
FONT_PACKAGE = "pylopdf-fonts-zh-cn"  # on PyPI: Noto Sans SC, 17 MB, SIL Open Font License
QUICK = "QUICK RUN on the embedded sample; not comparable with the report"
TITLE_SIZE, FACTS_SIZE, FACTS_GAP = 13, 9.5, 4  # points; the gap is below the facts
FACTS_PER_INCH = 12.5  # characters of this size
CHINESE_LINES = 1.5  # distance of lines: Chinese letters are as high as a line
# The look of the figures that follow. `setup` sets it, as it sets matplotlib's rcParams.
_look = {"quick": False}


def setup(scale: str = "full") -> None:
    """Set the look and the scale of the figures that follow."""
    matplotlib.rcParams.update(matplotlib.rcParamsDefault | {"backend": "agg"})
    plt.rcParams.update({"axes.prop_cycle": plt.cycler(color=COLORS), "axes.unicode_minus": False})
    plt.rcParams.update({"axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3})
    plt.rcParams.update({"savefig.dpi": DPI, "savefig.bbox": "tight"})
    _look.update(quick=scale == "quick")


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
    place = {"xy": (0.5, 0), "xycoords": heading, "xytext": (0, FACTS_GAP), "textcoords": "offset points"}
    look = {"ha": "center", "va": "bottom", "fontsize": FACTS_SIZE, "color": "0.35"}
    figure.add_artist(Annotation("\n".join(lines), **place, **look))


def count(number: int, noun: str) -> str:
    """Return a number and its noun as a fact: 1 seed, 5 seeds."""
    return f"{number} {noun}{'s' if number > 1 else ''}"


def style(position: int) -> dict:
    """Return color, line style and marker of the configuration at `position`, as arguments of `Axes.plot`."""
    return {
        "color": f"C{position % len(COLORS)}",
        "linestyle": LINES[position % len(LINES)],
        "marker": MARKERS[position % len(MARKERS)],
    }


def legend(figure: Figure, columns: int = 4) -> None:
    """Draw one legend below all panels of a figure with a constrained layout, each label of theirs once."""
    handles = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(columns, len(handles)))


def save(figure: Figure, path: Path, chinese: dict[str, str] | None = None) -> None:
    """Write a figure to `path` as a PNG, in English, and next to it in Chinese (x.zh.png) where a font has the glyphs.

    chinese: what whole texts are in Chinese, where they are not put together from the labels of translations.py.
    Marks the figure where the scale is quick, and closes it.
    """
    if _look["quick"]:
        figure.text(0.5, 1.0, QUICK, ha="center", va="bottom", color="firebrick", fontweight="bold")
    axes_of_ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [(axis, [label.get_text() for label in axis.get_ticklabels()]) for axis in axes_of_ticks]
    # numbers stay as they are, and a layout may change how many there are
    ticks = [(axis, labels) for axis, labels in ticks if any(map(has_name, labels))]
    texts = [(text, text.get_text()) for text in figure.findobj(Text)]
    relabel(ticks, texts, "en")
    write_png(figure, path)
    if family := chinese_font():
        families = [family, *plt.rcParamsDefault["font.family"]]
        with plt.rc_context({"font.family": families}):  # for the labels of ticks that drawing makes
            for text, content in texts:
                text.set_fontfamily(families)
                if "\n" in content:
                    text.set_linespacing(CHINESE_LINES)
            relabel(ticks, texts, "zh", chinese)
            write_png(figure, path.with_suffix(".zh" + path.suffix))
    plt.close(figure)


def relabel(ticks: list, texts: list, language: str, known: dict[str, str] | None = None) -> None:
    """Set the texts of a figure to what `language` calls them.

    ticks: pairs (axis, its labels as drawn), of axes with named ticks. texts: pairs (Text, its content as drawn).
    known: what whole texts are in the language.
    """
    known = known or {}
    for axis, labels in ticks:  # drawing makes the labels of ticks anew unless they are set
        axis.set_ticks(axis.get_ticklocs(), [known.get(label) or translate(label, language) for label in labels])
    for text, content in texts:
        text.set_text(known.get(content) or translate(content, language))


def has_name(text: str) -> bool:
    """Return whether `text` has a label that a language has another name for."""
    return any(translate(text, language) != text for language in ("en", "zh"))


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, with a palette unless it shows photos."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    picture = Image.open(buffer).convert("RGB")
    if not any(image.get_array().ndim == 3 for image in figure.findobj(AxesImage)):
        picture = picture.quantize(PALETTE)
    with atomic(path) as temporary:
        picture.save(temporary, format="png", optimize=True, dpi=(DPI, DPI))


@functools.cache
def chinese_font() -> str | None:
    """Return the family name of an installed font that has our glyphs; print one line and return None if there is none.

    Looks at the font files, of the system and of FONT_PACKAGE, as matplotlib's cache may be old; regular weights come
    first. Of a collection it prefers the face for simplified Chinese; matplotlib before 3.11 reads only the first face,
    in Noto's the Japanese one.
    """
    package = importlib.util.find_spec(FONT_PACKAGE.replace("-", "_"))
    files = font_manager.findSystemFonts()
    if package:
        files += font_manager.findSystemFonts(package.submodule_search_locations)
    regular_first = sorted(files, key=lambda path: ("regular" not in path.lower(), path))
    names = {path: path.lower().replace("-", "").replace(" ", "") for path in regular_first}
    likely = [path for part in LIKELY for path in regular_first if part in names[path]]
    for path in dict.fromkeys([*likely, *regular_first]):
        try:
            font = FT2Font(path)
        except RuntimeError:  # not a font that FreeType reads
            continue
        if all(ord(glyph) in font.get_charmap() for glyph in GLYPHS):
            logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # such a font has few weights
            font_manager.fontManager.addfont(path)
            faces = [entry.name for entry in font_manager.fontManager.ttflist if str(entry.fname) == path]
            return min(faces, key=lambda name: ("SC" not in name.split(), "Mono" in name))
    print(f"no installed font has Chinese glyphs: figures are in English (python -m pip install {FONT_PACKAGE})")
    return None
