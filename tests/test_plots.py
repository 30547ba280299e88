"""What every figure shares: its two languages, its title, its colors and its file."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from common import plots
from common.plots import plt
from common.support.translations import CHINESE, ENGLISH


@pytest.fixture(autouse=True)
def _look():
    plots.setup()


@pytest.fixture
def written(monkeypatch):
    """Return {name of a file: the texts of the figure, as drawn}, and write none. No Chinese font is needed."""
    texts = {}

    def collect(figure, path):
        figure.canvas.draw()
        texts[path.name] = [text.get_text() for text in figure.findobj(Text) if text.get_text()]

    monkeypatch.setattr(plots, "write_png", collect)
    return texts


def two_panels():
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes in panels:
        axes.plot([1, 2], [1, 2], label="high_lr")
        axes.set(xlabel="Epoch", ylabel="Accuracy, %", title="Test accuracy after each epoch")
    panels[1].set_xticks([1, 2], ["mixup", "cat"])
    return figure


@pytest.mark.filterwarnings("ignore:Glyph")
def test_each_language_names_every_label_from_the_codes_own_name(written, monkeypatch, tmp_path):
    """Also where the English name, MixUp, is not in the Chinese dictionary, and the labels of ticks."""
    monkeypatch.setattr(plots, "chinese_font", lambda: "DejaVu Sans")
    figure = two_panels()
    plots.about(figure, "Final test accuracy", "lenet", "5 seeds", "full scale")
    plots.legend(figure)
    plots.save(figure, tmp_path / "x.png")
    assert list(written) == ["x.png", "x.zh.png"]
    english = ["Final test accuracy\n", "LeNet, 5 seeds, full scale", "high learning rate", "MixUp", "cat", "Epoch"]
    chinese = ["最终测试准确率\n", "LeNet，5 个种子，完整规模", "高学习率", "MixUp", "猫", "轮次", "准确率，%"]
    assert set(english) <= set(written["x.png"]) and set(chinese) <= set(written["x.zh.png"])
    assert not set(english) - {"MixUp"} & set(written["x.zh.png"])
    assert written["x.png"].count("high learning rate") == 1  # one legend for both panels


def test_without_a_chinese_font_figures_are_english_and_say_so_once(written, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plots.font_manager, "findSystemFonts", lambda folders=None: [])
    plots.chinese_font.cache_clear()
    for name in ("x.png", "y.png"):
        plots.save(two_panels(), tmp_path / name)
    plots.chinese_font.cache_clear()
    assert list(written) == ["x.png", "y.png"]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_installed_chinese_font_has_every_glyph_and_the_simplified_face(tmp_path):
    if not (family := plots.chinese_font()):
        pytest.skip("no font with Chinese glyphs is installed")
    assert not family.endswith((" JP", " KR", " TC", " HK"))
    figure, axes = plt.subplots()
    axes.set_title("\n".join(CHINESE))
    axes.set_xticks([0, 1], ["cat", "dog"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(figure, tmp_path / "x.png")
    english, chinese = (np.array(Image.open(tmp_path / name).convert("L")) for name in ("x.png", "x.zh.png"))
    assert english.shape != chinese.shape or (english != chinese).any()


def test_a_stale_font_cache_does_not_make_figures_bold(monkeypatch):
    """Fonts were installed after matplotlib had made its cache, or only the bold one was known to it."""
    if not plots.chinese_font():
        pytest.skip("no font with Chinese glyphs is installed")
    manager, known = plots.font_manager.fontManager, plots.font_manager.fontManager.ttflist
    for stale in ([font for font in known if "CJK" not in font.name], [font for font in known if font.weight == 700]):
        monkeypatch.setattr(manager, "ttflist", list(stale))
        manager._findfont_cached.cache_clear()
        family = plots.chinese_font.__wrapped__()
        path = manager.findfont(plots.font_manager.FontProperties(family), fallback_to_default=False)
        font = plots.FT2Font(path)
        assert all(ord(glyph) in font.get_charmap() for glyph in plots.GLYPHS)
        assert "Bold" not in font.style_name and "Bold" not in str(path)
    manager._findfont_cached.cache_clear()


def test_the_font_of_the_package_is_used_where_the_system_has_none(monkeypatch):
    if not (package := importlib.util.find_spec(plots.FONT_PACKAGE.replace("-", "_"))):
        pytest.skip("the package with a Chinese font is not installed")
    real = plots.font_manager.findSystemFonts
    monkeypatch.setattr(plots.font_manager, "findSystemFonts", lambda folders=None: real(folders) if folders else [])
    monkeypatch.setattr(plots.font_manager.fontManager, "ttflist", list(plots.font_manager.fontManager.ttflist))
    family = plots.chinese_font.__wrapped__()
    assert family == "Noto Sans SC"
    path = plots.font_manager.fontManager.findfont(plots.font_manager.FontProperties(family))
    assert Path(path).resolve().is_relative_to(Path(package.submodule_search_locations[0]).resolve())


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_title_facts_stamp_and_panels_do_not_overlap(monkeypatch, tmp_path, scale):
    boxes = {}

    def collect(figure, path):
        figure.canvas.draw()
        panels = [axes.get_tightbbox() for axes in figure.axes]
        texts = {text.get_text().strip(): text.get_window_extent() for text in figure.findobj(Text)}
        facts = next(box for name, box in texts.items() if name == "LeNet, seed 0")
        title = figure._suptitle.get_window_extent()
        boxes.update(panels=max(box.y1 for box in panels), facts=facts, title=title, stamp=texts.get(plots.QUICK))

    monkeypatch.setattr(plots, "write_png", collect)
    monkeypatch.setattr(plots, "chinese_font", lambda: None)
    plots.setup(scale)
    figure = two_panels()
    plots.about(figure, "A title", "LeNet", "seed 0")
    plots.save(figure, tmp_path / "x.png")
    assert boxes["panels"] < boxes["facts"].y0
    assert boxes["facts"].y1 <= (boxes["title"].y0 + boxes["title"].y1) / 2  # the title is the upper half
    assert (boxes["stamp"] is not None) == (scale == "quick")
    if scale == "quick":
        assert boxes["title"].y1 <= boxes["stamp"].y0


def test_many_facts_take_several_lines_within_the_figure_and_above_the_panels():
    figure = two_panels()
    facts = [f"fact number {number}" for number in range(20)]
    plots.about(figure, "A title", *facts)
    figure.canvas.draw()
    (shown,) = (text for text in figure.findobj(Text) if "fact number 0" in text.get_text())
    box = shown.get_window_extent()
    assert shown.get_text().replace("\n", ", ") == ", ".join(facts) and "\n" in shown.get_text()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    assert box.y0 > max(axes.get_tightbbox().y1 for axes in figure.axes)
    plt.close(figure)


def test_a_file_has_the_resolution_and_the_colors_that_were_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(plots, "chinese_font", lambda: None)
    figure, axes = plt.subplots(figsize=(4, 3), layout="constrained")
    axes.bar(range(8), 1, width=1, color=[f"C{n}" for n in range(8)])
    plots.save(figure, tmp_path / "x.png")
    picture = Image.open(tmp_path / "x.png")
    assert picture.mode == "P" and picture.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    colors = {color for count, color in picture.convert("RGB").getcolors() if count > 1000}
    wanted = [tuple(int(code[n : n + 2], 16) for n in (1, 3, 5)) for code in (*plots.COLORS, "#FFFFFF")]
    for color in wanted:
        assert min(max(abs(a - b) for a, b in zip(color, other)) for other in colors) <= 2
    assert (255, 255, 255) in colors

    figure, axes = plt.subplots()
    axes.imshow(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    plots.save(figure, tmp_path / "photo.png")
    assert Image.open(tmp_path / "photo.png").mode == "RGB"


def test_no_two_configurations_look_the_same():
    looks = [tuple(plots.style(position).items()) for position in range(8)]
    assert len(set(looks)) == 8 and len(set(plots.COLORS)) == 8


def test_english_names_are_not_code_names():
    assert not [name for name in ENGLISH.values() if "_" in name]
