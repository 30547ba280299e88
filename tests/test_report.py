"""The grader's page: claims, verdicts, and the page itself in a browser."""

import re
import shutil

import numpy as np
import pytest

from common.models import MODELS
from common.support.errors import UserError
from grading import build, sentences, sources, verdicts
from grading.words import in_chinese
from tests.conftest import ROOT, run_python

NAMES = {
    "CIFAR",
    "LeNet",
    "ResNet",
    "VGG",
    "Wide",
    "WideResNet",
    "Dropout",
    "Focal",
    "Loss",
    "AutoAugment",
    "RandAugment",
    "MixUp",
    "CutMix",
    "CBAM",
    "SE",
    "L2",
    "GPU",
    "NVIDIA",
    "A10",
    "nat",
    "torchvision",
}


@pytest.fixture(scope="module")
def claims():
    return verdicts.read_claims()


def test_every_claim_names_fields_that_are_there(claims):
    """A field that its file does not have is a ValueError; a file that no full run has written yet is not."""
    judged = verdicts.judge_all(claims)
    assert len(judged) == len(claims) > 100
    assert not [name for name, verdict in judged.items() if verdict.problem]
    assert {verdict.kind for verdict in judged.values()} <= set(verdicts.KINDS)
    for name, claim in claims.items():
        assert re.fullmatch(r"[AP]\d+", name) and claim["zh"] and claim["en"] and claim["section"], name
        assert (claim["report"] == "assignment") == (name[0] == "A")
        assert claim["field"] or claim["check"] == "contradicted", name


def test_what_claims_say_is_in_chinese_too(claims):
    """All but numbers, names of networks and code: whatever else has no translation is found here."""
    for text in {text for claim in claims.values() for text in (verdicts.says(claim), claim["configuration"])}:
        for english in re.findall(r"\b[A-Za-z]\w*", re.sub(r"nn\.\S+", "", in_chinese(text)), re.ASCII):
            assert english in MODELS or english in NAMES, f"{text}: {english}"
    assert in_chinese("lenet, 10 epochs; batch 64, the report names none") == "LeNet，10 轮，批次 64，报告未写明"
    assert in_chinese("chapter 2's model, cat for dog") == "第二章的模型，猫误判为狗"


def test_fields_are_expressions_over_terms():
    values = {"a[config=x]": np.array([1.0, 2.0]), "b": 4.0}
    assert sources.evaluate("a[config=x] - b / 2", values.__getitem__).tolist() == [-1, 0]
    assert sources.evaluate("( b + b ) * 10", values.__getitem__) == 80
    for bad in ("b ** 2", "f(b)", "b +", "b if b else b"):
        with pytest.raises((ValueError, KeyError)):
            sources.evaluate(bad, lambda term: 1.0)


def test_unknown_fields_are_errors(tmp_path):
    (tmp_path / "results.csv").write_text("run,seed,test_accuracy\nx,0,50\nx,1,52\n", encoding="utf-8")
    value_of = sources.from_csv(tmp_path / "results.csv")
    assert value_of("test_accuracy[config=x]") == {"0": 50, "1": 52}
    for term in ("test_accuracy[config=y]", "accuracy[config=x]", "test_accuracy[seed=3]"):
        with pytest.raises(ValueError, match=re.escape(term)):
            value_of(term)


def claim(**changes):
    blank = dict.fromkeys(verdicts.COLUMNS, "")
    return (
        blank
        | {"id": "A1", "value": "50", "unit": "%", "check": "measured", "file": "f", "field": "x", "tolerance": "3"}
        | changes
    )


@pytest.mark.parametrize(
    ("changes", "measured", "kind"),
    [
        ({}, [49.0, 52.0], "reproduced"),
        ({}, [53.5, 53.5], "not reproduced"),
        ({"value": ">0", "tolerance": ""}, [1.0, 1.2, 0.9], "reproduced"),
        ({"value": ">0", "tolerance": ""}, [1.0, -0.9, 0.5], "not reproduced"),  # by chance, for all that is known
        ({"value": "<0", "tolerance": ""}, [-1.0, -1.2, -0.9], "reproduced"),
        ({"value": "<0", "tolerance": ""}, [1.0, 1.2, 0.9], "not reproduced"),
        ({"value": ">0", "tolerance": ""}, [1.0], "not yet run"),  # one seed says nothing of chance
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
    monkeypatch.setattr(sources, "read_values", lambda *asked: np.array(measured))
    others = {"B1": claim(id="B1", value="70"), "C1": claim(id="C1", value="b")}
    if changes.get("check") == "computed":
        changes = changes | {"file": "", "tolerance": "0"}
    assert verdicts.judge(claim(**changes), others).kind == kind


def test_what_is_not_run_or_quick_or_shortened_is_not_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(sources.cli, "ROOT", tmp_path)
    folder = tmp_path / "task9" / "outputs"
    for run in (None, '{"scale": "quick"}', '{"scale": "full", "shortened": true}'):
        if run:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "x.json").write_text('{"a": 1}')
            (folder / "run.json").write_text(run)
        with pytest.raises(sources.NotRun, match=r"python task9/main\.py --scale full"):
            sources.read_values("task9/outputs/x.json", "a")
    (folder / "run.json").write_text('{"scale": "full", "device_type": "cpu"}')
    assert sources.read_values("task9/outputs/x.json", "a").tolist() == [1]
    with pytest.raises(sources.NotRun, match="--device cuda"):
        sources.read_values("task9/outputs/x.json", "a", on_a_gpu=True)


@pytest.mark.parametrize("damage", ["cut", "older", "quick"])
def test_a_damaged_output_is_named_and_its_section_marked(monkeypatch, tmp_path, damage):
    task = tmp_path / "task1_loss_curves" / "outputs"
    shutil.copytree(ROOT / "task1_loss_curves" / "outputs", task, ignore=shutil.ignore_patterns("checkpoints"))
    for module in (build.cli, sources.cli):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    path = task / {"cut": "loss_history_seeds.npz", "older": "run.json", "quick": "run.json"}[damage]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        path.write_text({"older": '{"seed": 0}', "quick": path.read_text().replace('"full"', '"quick"')}[damage])
    section = build.load_section(*build.SECTIONS[0], tmp_path)
    assert section.state == ("quick" if damage == "quick" else "damaged")
    if damage != "quick":
        assert path.name in section.why and not section.html


def test_half_a_figure_that_a_kill_left_is_not_shown(tmp_path, monkeypatch):
    folder = tmp_path / "task1_loss_curves" / "outputs"
    shutil.copytree(build.cli.ROOT / "task1_loss_curves" / "outputs", folder)
    (folder / ".loss_curves.png.abcd1234.png").write_bytes(b"half")
    monkeypatch.setattr(build.cli, "ROOT", tmp_path)
    section = build.load_section(*build.SECTIONS[0], tmp_path)
    assert [figure["name"] for figure in section.figures] == ["loss curves"], section.why


def test_sentences_on_the_studies_follow_from_their_files(tmp_path):
    rows = [
        "run,seed,test_accuracy,scale",
        *(f"{run},0,{value},full" for run, value in (("baseline", 80), ("a", 82), ("b", 79))),
    ]
    (tmp_path / "results.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    ((english, chinese),) = sentences.improvements(tmp_path)
    assert "`a` gains most (+2.00" in english and "`b` loses most (-1.00" in english and "80.00%" in chinese
    (tmp_path / "ensemble.json").write_text(
        '{"best_member": 90, "majority_vote": 90.5, "stacking": 91}', encoding="utf-8"
    )
    assert "`stacking` has most, 91.00% (+1.00 points)" in sentences.ensemble(tmp_path)[0][0]
    for part, known in (("train", ["", "", ""]), ("test", ["yes", ""])):
        lines = ["index,found wrong by people", *(f"{index},{told}" for index, told in enumerate(known))]
        (tmp_path / f"{part}_suspects.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = sentences.label_audit(tmp_path)[0][0]
    assert "doubts 3 training labels; of the test labels 2 " in told and " 1 of which people" in told


def test_seconds_of_training_are_those_of_all_runs(tmp_path):
    """However often a task was stopped: what its last start took says nothing."""
    assert build.training_seconds(tmp_path) == ""
    (tmp_path / "results.csv").write_text("run,seconds\na,600.5\nb,399.5\n", encoding="utf-8")
    (tmp_path / "split_results.csv").write_text("run,seconds\na,500\n", encoding="utf-8")
    assert build.training_seconds(tmp_path) == "1,500"
    (tmp_path / "metrics.json").write_text('[{"training_seconds": 1000.2}]', encoding="utf-8")
    assert build.training_seconds(tmp_path) == "2,500"


def test_claims_of_another_shape_are_refused(tmp_path):
    (tmp_path / "claims.csv").write_text("id,claim\nA1,x\n", encoding="utf-8")
    with pytest.raises(UserError, match="other columns"):
        verdicts.read_claims(tmp_path / "claims.csv")


def test_the_committed_page_is_that_of_the_committed_outputs(tmp_path):
    out = ROOT / "grading"
    build.build(tmp_path)
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == (out / "claims.md").read_text(encoding="utf-8"), (
        "run: python grading/build.py"
    )
    relative = lambda text: re.sub(r'="[^"]*?((?:task\d|project3)\w*/outputs/)', r'="\1', text)
    made, committed = ((folder / "index.html").read_text(encoding="utf-8") for folder in (tmp_path, out))
    assert relative(made) == relative(committed), "run: python grading/build.py"


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


def wide(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_in_a_browser(browser, lang, width, claims):
    wide(browser, width)
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
    wide(browser, 720)  # a sheet's width
    browser.get((ROOT / "grading" / "index.html").as_uri())
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        right = "return Math.max(...[...document.querySelectorAll('table, img, p')].map(e => e.getBoundingClientRect().right))"
        assert browser.execute_script(right) <= 720
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_filters_language_and_enlarging(browser, claims):
    wide(browser, 1280)
    browser.get((ROOT / "grading" / "index.html").as_uri())
    run = browser.execute_script
    visible = "return [...document.querySelectorAll('.claims tbody tr')].filter(r => r.offsetParent).map(r => r.id)"
    assert len(run(visible)) == len(claims)
    choose = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    run(choose, "by-report", "assignment")
    run(choose, "by-verdict", "contradicted")
    judged = verdicts.judge_all(claims)
    expected = [
        name for name in claims if claims[name]["report"] == "assignment" and judged[name].kind == "contradicted"
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
