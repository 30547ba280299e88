"""The grader's page: claims, verdicts, and the page itself in a browser."""

import re
import shutil
from collections import defaultdict

import numpy as np
import pytest

from common import cli, tables
from common.models import MODELS
from common.support.errors import UserError
from grading import build, strings
from grading.claims import (
    Claim,
    NotRun,
    command_for,
    evaluate,
    judge,
    judge_all,
    read_claims,
    read_values,
)
from tests.conftest import ROOT, run_python

NAMES = {  # that are the same in Chinese
    *("CIFAR", "LeNet", "ResNet", "VGG", "Wide", "WideResNet", "Dropout", "Focal", "Loss", "L2", "GPU", "NVIDIA"),
    *("AutoAugment", "RandAugment", "MixUp", "CutMix", "CBAM", "SE", "A10", "nat", "torchvision"),
}
TASK1 = ("task1_loss_curves/outputs", strings.SECTIONS["task1_loss_curves/outputs"])


@pytest.fixture(scope="module")
def claims():
    return read_claims()


def test_every_claim_names_fields_that_exist(claims):
    """A field that its file lacks is a problem; a file that no full run has written yet is not."""
    verdicts = judge_all(claims)
    assert len(verdicts) == len(claims) > 100
    assert not [name for name, verdict in verdicts.items() if verdict.problem]
    assert {verdict.kind for verdict in verdicts.values()} <= set(strings.KINDS)
    for name, claim in claims.items():
        assert re.fullmatch(r"[AP]\d+", name) and claim.zh and claim.en and claim.section, name
        assert (claim.report == "assignment") == (name[0] == "A")
        assert claim.field or claim.check == "contradicted", name


def test_claims_have_their_values_and_configurations_in_chinese(claims):
    """All but numbers, names of networks and code: any other word that has no translation is found here."""
    for text in {text for claim in claims.values() for text in (claim.value_text, claim.configuration_text)}:
        for english in re.findall(r"\b[A-Za-z]\w*", re.sub(r"nn\.\S+", "", text.zh), re.ASCII):
            assert english in MODELS or english in NAMES, f"{text.en}: {english}"
    assert claims["A61"].configuration_text.zh == "LeNet，10 轮，批次 64（报告未写明）"
    assert claims["P101"].configuration_text.zh == "第二章的模型（按 ResNet-18），猫误判为狗"
    assert claims["P101"].value_text == ("66 images", "66 张")


def test_fields_are_expressions_over_terms():
    values = {"a[config=x]": np.array([1.0, 2.0]), "b": 4.0}
    assert evaluate("a[config=x] - b / 2", values).tolist() == [-1, 0]
    assert evaluate("( b + b ) * 10", values) == 80
    for bad in ("b ** 2", "f(b)", "b +", "b if b else b"):
        with pytest.raises(ValueError, match=re.escape(bad)):
            evaluate(bad, defaultdict(lambda: 1.0))


def test_unknown_fields_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    (tmp_path / "run.json").write_text('{"scale": "full"}', encoding="utf-8")
    (tmp_path / "results.csv").write_text("config,seed,test_accuracy\nx,0,50\nx,1,52\n", encoding="utf-8")
    (tmp_path / "metrics.json").write_text('[{"seed": 0, "best_epoch": 8}]', encoding="utf-8")
    tables.save_histories(tmp_path / "history.npz", {("x", 0): {"loss": np.array([2.0, 1.0])}})
    assert read_values("results.csv", "test_accuracy[config=x]").tolist() == [50, 52]
    assert read_values("metrics.json", "best_epoch").tolist() == [8]
    for epoch, loss in ((1, 2), (2, 1), (-1, 1)):
        assert read_values("history.npz", f"loss[config=x,epoch={epoch}]").tolist() == [loss]
    assert np.isnan(read_values("history.npz", "loss[config=x,epoch=3]")).all()  # training stopped before
    for file, term in (
        ("results.csv", "test_accuracy[config=y]"),
        ("results.csv", "accuracy[config=x]"),
        ("results.csv", "test_accuracy[seed=3]"),
        ("metrics.json", "test_accuracy"),
        ("history.npz", "loss[config=y,epoch=1]"),
        ("history.npz", "accuracy[config=x,epoch=1]"),
    ):
        with pytest.raises(ValueError, match=re.escape(term)):
            read_values(file, term)


def claim(**changes):
    blank = dict.fromkeys(Claim.__dataclass_fields__, "")
    usual = dict(id="A1", value="50", unit="%", check="measured", file="f", field="x", tolerance="3")
    return Claim(**{**blank, **usual, **changes})


@pytest.mark.parametrize(
    ("changes", "measured", "kind"),
    [
        ({}, [49.0, 52.0], "reproduced"),
        ({}, [53.5, 53.5], "not reproduced"),
        ({"value": ">0", "tolerance": ""}, [1.0, 1.2, 0.9], "reproduced"),
        ({"value": ">0", "tolerance": ""}, [1.0, -0.9, 0.5], "not reproduced"),  # it may be chance
        ({"value": "<0", "tolerance": ""}, [-1.0, -1.2, -0.9], "reproduced"),
        ({"value": "<0", "tolerance": ""}, [1.0, 1.2, 0.9], "not reproduced"),
        ({"value": ">0", "tolerance": ""}, [1.0], "not yet run"),  # one seed cannot rule out chance
        ({"value": ">0", "tolerance": "0.4"}, [0.5], "reproduced"),
        ({"value": ">0", "tolerance": "0.4"}, [0.3], "not reproduced"),
        ({"check": "contradicted", "against": "B1", "value": ">70"}, [50.0], "contradicted"),  # 70 is not above 70
        ({"check": "contradicted", "against": "B1", "value": ">60", "tolerance": "1"}, [62.0], "reproduced"),
        ({"check": "computed", "field": "B1 - 20"}, None, "consistent"),
        ({"check": "computed", "field": "B1 - 10"}, None, "contradicted"),
        ({"check": "contradicted", "against": "B1"}, [50.0], "contradicted"),
        ({"check": "contradicted", "against": "B1", "tolerance": "25"}, [50.0], "reproduced"),
        ({"check": "contradicted", "against": "C1", "value": "a", "tolerance": ""}, [50.0], "contradicted"),
    ],
)
def test_verdicts_follow_from_the_numbers(monkeypatch, changes, measured, kind):
    monkeypatch.setattr("grading.claims.read_values", lambda *_: np.array(measured))
    others = {"B1": claim(id="B1", value="70"), "C1": claim(id="C1", value="b")}
    if changes.get("check") == "computed":
        changes = {**changes, "file": "", "tolerance": "0"}
    assert judge(claim(**changes), others).kind == kind


def test_what_is_not_run_or_quick_or_shortened_is_not_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    folder = tmp_path / "task9" / "outputs"
    for run in (None, '{"scale": "quick"}', '{"scale": "full", "shortened": true}'):
        if run:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "x.json").write_text('{"a": 1}')
            (folder / "run.json").write_text(run)
        with pytest.raises(NotRun, match=r"python task9/main\.py --scale full"):
            read_values("task9/outputs/x.json", "a")
    (folder / "run.json").write_text('{"scale": "full", "device_type": "cpu"}')
    assert read_values("task9/outputs/x.json", "a").tolist() == [1]
    with pytest.raises(NotRun, match="--device cuda"):
        read_values("task9/outputs/x.json", "a", needs_gpu=True)


@pytest.mark.parametrize("damage", ["cut", "older", "quick"])
def test_a_damaged_output_is_named_and_its_section_marked(monkeypatch, tmp_path, damage):
    task = tmp_path / "task1_loss_curves" / "outputs"
    shutil.copytree(ROOT / "task1_loss_curves" / "outputs", task, ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    path = task / {"cut": "loss_history_seeds.npz", "older": "run.json", "quick": "run.json"}[damage]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        path.write_text({"older": '{"seed": 0}', "quick": path.read_text().replace('"full"', '"quick"')}[damage])
    section = build.load_section(*TASK1, tmp_path)
    assert section.state == ("quick" if damage == "quick" else "damaged")
    if damage != "quick":
        assert path.name in section.note and not section.body


def test_files_that_a_killed_run_left_unfinished_are_ignored(tmp_path, monkeypatch):
    folder = tmp_path / "task1_loss_curves" / "outputs"
    shutil.copytree(cli.ROOT / "task1_loss_curves" / "outputs", folder)
    (folder / ".loss_curves.png.abcd1234.png").write_bytes(b"half")
    (folder / ".loss_history.npz.abcd1234.npz").write_bytes(b"half")
    (folder / ".loss_table.md.abcd1234.md").write_bytes(b"half")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    section = build.load_section(*TASK1, tmp_path)
    assert [figure["name"] for figure in section.figures] == ["loss curves"], section.note
    assert section.state == "done" and "half" not in section.body
    (folder / "loss_table.md").unlink()
    assert build.load_section(*TASK1, tmp_path).state == "damaged"


def test_a_section_leads_with_the_first_paragraph_of_its_page():
    lead, body = build.to_html("# Title\n\n| a_b |\n| --- |\n| c_d |\n\nFirst.\n\n## Head\n\nSecond.")
    assert lead.strip() == "<p>First.</p>"
    assert "First." not in body and "Title" not in body and "<h4>Head</h4>" in body and "<p>Second.</p>" in body
    assert body.count('<div class="scroll"') == body.count("</table></div>") == 1 and "c_<wbr>d" in body
    assert build.to_html("# Title\n\n## Head") == ("", "<h4>Head</h4>")


def test_claims_name_the_command_that_writes_their_file():
    for file, command in {
        "task1_loss_curves/outputs/results.csv": "python task1_loss_curves/main.py --scale full",
        "task4_architectures/outputs/batch_size/results.csv": "python task4_architectures/batch_size.py --scale full",
        "project3_wrn/outputs/resnet18/metrics.json": "python project3_wrn/main.py --model resnet18 --scale full",
        "project3_wrn/outputs/ensemble": "python project3_wrn/ensemble.py --scale full",
        "project3_wrn/outputs/improvements/x.csv": "python project3_wrn/improvements.py --scale full --device cuda",
    }.items():
        assert command_for(file) == command


@pytest.mark.parametrize(("name", "lang"), build.READMES.items())
def test_the_result_table_of_each_readme_is_that_of_the_committed_outputs(name, lang):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert build.RESULTS.search(text)
    assert build.fill_results(text, lang) == text, "run: python grading/build.py"


def test_seconds_of_training_are_those_of_all_runs(tmp_path):
    """The seconds of the last start alone would be too few where a task was resumed."""
    assert build.training_seconds(tmp_path) == ""
    (tmp_path / "results.csv").write_text("config,seconds\na,600.5\nb,399.5\n", encoding="utf-8")
    (tmp_path / "split_results.csv").write_text("config,seconds\na,500\n", encoding="utf-8")
    assert build.training_seconds(tmp_path) == "1,500"
    (tmp_path / "metrics.json").write_text('[{"training_seconds": 1000.2}]', encoding="utf-8")
    assert build.training_seconds(tmp_path) == "2,500"


def test_claims_of_another_shape_are_refused(tmp_path):
    (tmp_path / "claims.csv").write_text("id,claim\nA1,x\n", encoding="utf-8")
    with pytest.raises(UserError, match="other columns"):
        read_claims(tmp_path / "claims.csv")


def test_the_committed_page_is_that_of_the_committed_outputs(tmp_path):
    out = ROOT / "grading"
    build.build(tmp_path)
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == (out / "claims.md").read_text(encoding="utf-8"), (
        "run: python grading/build.py"
    )
    made, committed = (  # with links that do not depend on the folder
        re.sub(
            r'="[^"]*?((?:task\d|project3)\w*/outputs/)', r'="\1', (folder / "index.html").read_text(encoding="utf-8")
        )
        for folder in (tmp_path, out)
    )
    assert made == committed, "run: python grading/build.py"


# --- in a browser ---


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its driver is installed (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def set_width(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_in_a_browser(browser, lang, width, claims):
    set_width(browser, width)
    browser.get((ROOT / "grading" / "index.html").as_uri() + f"?lang={lang}")
    run = browser.execute_script
    assert run("return document.documentElement.scrollWidth") <= width
    title = run("return document.querySelector('h1').innerText")
    assert ("实测结果" in title) == (lang == "zh") and ("measured" in title) == (lang == "en")
    broken = run(
        "return Promise.all([...document.images].filter(i => i.getAttribute('src')).map(async i => {"
        " i.loading = 'eager'; try { await i.decode(); return '' } catch { return i.src } }))"
    )
    assert len(broken) >= 10 and not any(broken)
    assert run("return [...document.images].every(i => i.alt || !i.getAttribute('src'))")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_is_cut_off_in_print(browser):
    set_width(browser, 720)  # a sheet's width
    browser.get((ROOT / "grading" / "index.html").as_uri())
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        elements = "[...document.querySelectorAll('table, img, p')]"
        right = browser.execute_script(f"return Math.max(...{elements}.map(e => e.getBoundingClientRect().right))")
        assert right <= 720
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_filters_language_and_enlarging(browser, claims):
    set_width(browser, 1280)
    browser.get((ROOT / "grading" / "index.html").as_uri())
    run = browser.execute_script
    visible = "return [...document.querySelectorAll('.claims tbody tr')].filter(r => r.offsetParent).map(r => r.id)"
    assert len(run(visible)) == len(claims)
    choose = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    run(choose, "by-report", "assignment")
    run(choose, "by-verdict", "contradicted")
    verdicts = judge_all(claims)
    expected = [
        name for name, claim in claims.items() if claim.report == "assignment" and verdicts[name].kind == "contradicted"
    ]
    assert run(visible) == expected != []
    assert run("return document.getElementById('shown').textContent") == str(len(expected))
    run("document.getElementById('language').click()")
    assert run("return document.documentElement.lang") == "zh-CN"
    assert run("return document.querySelector('#by-verdict option:checked').textContent") == "自相矛盾"
    run("document.querySelector('a.enlarge').click()")
    assert run("return document.getElementById('large').open")
    run("document.querySelector('#large button').click()")
    assert not run("return document.getElementById('large').open")


def test_from_the_command_line(tmp_path):
    process = run_python(ROOT / "grading" / "build.py", "--out", tmp_path, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "index.html").exists() and str(tmp_path) in process.stdout
