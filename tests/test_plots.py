"""What every figure shares: its two languages, its title, its colors and its file."""

import warnings

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
    monkeypatch.setattr(plots.font_manager, "findSystemFonts", list)
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
