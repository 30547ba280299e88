"""The grader's page: what its first screen says, and the page in a real browser, where Chromium is installed."""

import base64
import re
import shutil
import struct
from html.parser import HTMLParser
from urllib.parse import quote

import numpy as np
import pytest

from common import cli, tables
from grading import build, outputs, strings, summary
from grading.claims import read_claims
from grading.verdicts import count_verdicts, judge_all
from tests.conftest import ROOT, run_python

PAGE = ROOT / "grading" / "index.html"
WIDTHS = (375, 768, 1280)
SHEETS = 12  # of a printed page, at most
CONTRAST = 4.5  # of text, at least (WCAG 2.2, level AA)
FORM = "const field = document.querySelector(`[name=${arguments[0]}]`); field.value = arguments[1];"
FILL = f"{FORM} field.dispatchEvent(new Event('input', {{bubbles: true}}))"
ROWS = "return [...document.querySelectorAll('.claims tbody tr')].filter(r => r.offsetParent).map(r => r.id)"


@pytest.fixture(scope="module")
def entries():
    return judge_all(read_claims())


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


# --- what it says ---


def test_the_committed_page_is_that_of_the_committed_outputs(tmp_path, page):
    build.build(tmp_path)
    claims = (ROOT / "grading" / "claims.md").read_text(encoding="utf-8")
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == claims, "run: python grading/build.py"
    made = (tmp_path / "index.html").read_text(encoding="utf-8")
    made = re.sub(r'(href|src)="(?:\.\./)+[^"]*?(?=(?:task\d|project3|benchmarks|grading)[\w]*/)', r'\1="../', made)
    assert made == page, "run: python grading/build.py"


def test_every_claim_is_on_the_page_once_and_the_bars_add_up(entries, page):
    for entry in entries:
        assert len(re.findall(f'<tr id="{entry.claims[0].id}" ', page)) == 1
    for report, kinds in count_verdicts(entries).items():
        for kind, count in kinds.items():
            assert page.count(f'data-report="{report}" data-verdict="{kind}"') == count
            address = f'href="?report={report}&amp;verdict={quote(kind)}#claims">'
            assert page.count(f"{address}{count}<") == page.count(f"{address}{count} <") == (count > 0)
        sentence = summary.sentences({report: kinds})[report]
        for text in sentence:
            numbers = list(map(int, re.findall(r"\d+", re.sub(r"[（(].*?[)）]", "", text))))
            assert sum(numbers) == 2 * sum(kinds.values()), text  # the total, and its parts


def test_the_forest_plot_has_every_run_of_the_tables_with_its_interval():
    rows = [row for group in summary.forest().values() for row in group]
    shown = {(row.file, round(float(np.mean(row.ours)), 2)) for row in rows if len(row.ours)}
    for task in ("task1_loss_curves", "task3_hparams"):
        file = f"{task}/outputs/results.csv"
        for values in tables.accuracies(ROOT / file).values():
            assert (file, round(float(values.mean()), 2)) in shown
    for row in rows:
        if row.interval:
            low, high = tables.prediction_interval(row.ours)
            assert row.interval == (max(low, 0), min(high, 100))
            inside = all(low - 0.5 <= value <= high + 0.5 for value in row.reported)
            assert row.agrees in ((None,) if not row.reported else (inside,))


def test_a_finding_that_does_not_hold_is_not_shown(monkeypatch):
    def accuracies(_, low):
        noise = np.array([0.0, 0.1, -0.1])
        names = {"low_lr": low, "no_momentum": 40.0, "no_regularization": 50.0, "baseline": 50.0}
        return {name: value + noise * (1 + place) for place, (name, value) in enumerate(names.items())}

    monkeypatch.setattr(summary, "read_accuracies", lambda folder: accuracies(folder, 40.0))
    assert summary.one_training() and not summary.underfitting()
    monkeypatch.setattr(summary, "read_accuracies", lambda folder: accuracies(folder, 45.0))
    assert summary.one_training() is None


def test_every_claim_that_is_not_reproduced_has_a_short_chinese_text(entries):
    for claim_id, text in summary.failures(entries):
        claim = next(claim for entry in entries for claim in entry.claims if claim.id == claim_id)
        assert claim.brief_zh and text.zh == claim.brief_zh and claim.en.startswith(text.en), claim_id


def test_every_link_of_the_page_leads_to_a_file_or_a_place_that_is_there(page):
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    assert len(links) > 100
    for link in links:
        path, _, anchor = link.partition("#")
        if path.startswith(("data:", "https:", "http:")):
            continue
        if path.startswith("?") or not path:
            assert not anchor or anchor in ids, link
        else:
            assert (PAGE.parent / path).exists(), link


def test_the_structure_is_that_of_a_document(page):
    """Headings go down by one level at a time, table heads have a scope, pictures have their size and a text."""

    class Reader(HTMLParser):
        level, problems = 0, ()

        def handle_starttag(self, tag, attributes):
            attributes = dict(attributes)
            if re.fullmatch("h[1-6]", tag):
                if int(tag[1]) > self.level + 1:
                    self.problems += (f"{tag} after h{self.level}",)
                self.level = int(tag[1])
            if tag == "th" and not attributes.get("scope"):
                self.problems += ("th without scope",)
            if tag == "img" and not {"width", "height", "alt"} <= attributes.keys():
                self.problems += (f"img {attributes}",)
            wanted = {"en": "en", "zh": "zh-CN"}.get(attributes.get("class"))
            if wanted and attributes.get("lang") != wanted:
                self.problems += (f"{tag} of class {attributes['class']} has lang {attributes.get('lang')}",)

    reader = Reader()
    reader.feed(page)
    assert not reader.problems
    assert page.count("<h1") == 1


def test_pictures_have_the_size_of_their_files(page):
    for source, width, height in set(re.findall(r'<img src="([^"]+)" alt="[^"]*" width="(\d+)" height="(\d+)"', page)):
        header = (PAGE.parent / source).read_bytes()[16:24]
        assert struct.unpack(">II", header) == (int(width), int(height)), source


# --- how it is made ---


@pytest.mark.parametrize("damage", ["run.json", "npz", "no page"])
def test_a_damaged_output_is_named_and_its_section_marked(monkeypatch, tmp_path, damage):
    folder = tmp_path / "task1_loss_curves" / "outputs"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"scale": "full", "device": "x", "seeds": [0]}', encoding="utf-8")
    if damage == "run.json":
        (folder / "run.json").write_text("{", encoding="utf-8")
    if damage == "npz":
        (folder / "loss_history.npz").write_bytes(b"PK\3\4 half")
    if damage != "no page":
        (folder / "loss_table.md").write_text("# T\n\nfound\n", encoding="utf-8")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    part = outputs.load("task1_loss_curves/outputs", strings.GROUPS["task1"], 3)
    assert part.state == "damaged" and "task1_loss_curves/outputs: " in part.problem


def test_a_page_is_shown_up_to_its_first_section_and_folded_from_there(monkeypatch, tmp_path):
    folder = tmp_path / "task9" / "outputs"
    folder.mkdir(parents=True)
    for name in ("a.png", "a.zh.png"):
        shutil.copy(ROOT / "grading" / "forest.png", folder / name)
    (folder / "run.json").write_text('{"scale": "full", "device": "x", "seeds": [0]}', encoding="utf-8")
    english = (
        "# Title\n\n**Found.** More.\n\n![A <b>](a.png)\n\n*It falls by 3.*\n\n## Table\n\n| n | v |\n| --- | --- |\n"
    )
    english += "| x | 2.5 ± 0.1 |\n\n[other](../README.md)\n"
    (folder / "t.md").write_text(english, encoding="utf-8")
    (folder / "t.zh.md").write_text(english.replace("a.png", "a.zh.png").replace("Found", "发现"), encoding="utf-8")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    part = outputs.load("task9/outputs", strings.GROUPS["task1"], 4)
    assert part.state == "done"
    assert "Title" not in "".join(part.shown) and "Found." in part.shown.en and "发现." in part.shown.zh
    assert 'src="task9/outputs/a.zh.png"' in part.shown.zh and 'href="task9/outputs/a.png"' in part.shown.en
    assert "<figcaption>It falls by 3.</figcaption>" in part.shown.en
    assert "Table" not in part.shown.en and "<h4>Table</h4>" in part.folded.en
    assert '<th scope="col">v</th>' in part.folded.en and '<td class="number">2.5 ± 0.1</td>' in part.folded.en
    assert 'href="task9/README.md"' in part.folded.en
    (folder / "a.zh.png").unlink()  # no font had Chinese glyphs
    part = outputs.load("task9/outputs", strings.GROUPS["task1"], 4)
    assert 'src="task9/outputs/a.png"' in part.shown.zh


def test_files_that_a_killed_run_left_unfinished_are_not_shown(tmp_path, monkeypatch):
    folder = tmp_path / "task1_loss_curves" / "outputs"
    shutil.copytree(ROOT / "task1_loss_curves" / "outputs", folder, ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    before = outputs.load("task1_loss_curves/outputs", strings.GROUPS["task1"], 3)
    (folder / ".loss_history.npz.abcd1234.npz").write_bytes(b"half")
    (folder / ".loss_table.md.abcd1234.md").write_bytes(b"half")
    assert outputs.load("task1_loss_curves/outputs", strings.GROUPS["task1"], 3) == before
    assert before.state == "done"


def test_a_short_run_stands_in_for_a_full_one_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    name = "project3_wrn/outputs/improvements"
    assert outputs.load(name, strings.NOTHING, 4).state == "missing"
    folder = tmp_path / "project3_wrn" / "outputs_short" / "improvements"
    folder.mkdir(parents=True)
    run = '{"scale": "full", "shortened": true, "device": "x", "seeds": [0]}'
    (folder / "run.json").write_text(run, encoding="utf-8")
    (folder / "improvements.md").write_text("# T\n\nshort\n", encoding="utf-8")
    part = outputs.load(name, strings.NOTHING, 4)
    assert part.state == "shortened" and part.folder == "project3_wrn/outputs_short/improvements"
    assert part.anchor == "project3_wrn-improvements"


def test_seconds_of_training_are_those_of_all_runs(tmp_path, monkeypatch):
    """The seconds of the last start alone would be too few where a task was resumed."""
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert outputs.training_seconds(tmp_path) == 0
    (tmp_path / "results.csv").write_text("config,seconds\na,600.5\nb,399.5\n", encoding="utf-8")
    (tmp_path / "split_results.csv").write_text("config,seconds\na,500\n", encoding="utf-8")
    (tmp_path / ".results.csv.abcdefgh.csv").write_text("config,seconds\na,7\n", encoding="utf-8")
    assert outputs.training_seconds(tmp_path) == 1500
    (tmp_path / "metrics.json").write_text('[{"training_seconds": 1000.5}]', encoding="utf-8")
    assert outputs.training_seconds(tmp_path) == 2500.5


def test_from_the_command_line(tmp_path):
    process = run_python(ROOT / "grading" / "build.py", "--out", tmp_path, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "index.html").exists() and str(tmp_path) in process.stdout


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
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def open_page(browser, width=1280, query="", height=800, file=PAGE):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get(file.as_uri() + query)
    return browser.execute_script


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_fits_and_nothing_moves(browser, lang, width):
    run = open_page(browser, width, f"?lang={lang}")
    assert run("return document.documentElement.scrollWidth") <= width
    assert ("报告" in run("return document.querySelector('h1').innerText")) == (lang == "zh")
    height = run("return document.documentElement.scrollHeight")
    shown = run(
        "return Promise.all([...document.images].filter(i => i.offsetParent).map(async i => {"
        " i.loading = 'eager'; try { await i.decode(); return [i.src, i.naturalWidth] } catch { return [i.src, 0] } }))"
    )
    assert len(shown) >= 10 and all(size for _, size in shown)
    assert run("return document.documentElement.scrollHeight") == height
    run("for (const details of document.querySelectorAll('details')) details.open = true")
    assert run("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("size", [(1280, 800), (375, 700)])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_first_screen_says_whether_the_reports_hold(browser, lang, size):
    run = open_page(browser, size[0], f"?lang={lang}", size[1])
    bottoms = run(
        "return [...document.querySelectorAll('.verdicts p, .bar, .forest tbody')]"
        ".map(e => [e.className || e.tagName, e.getBoundingClientRect().bottom])"
    )
    needed = [bottom for name, bottom in bottoms if name == "bar"]
    if size[0] == 1280:
        needed += [bottom for _, bottom in bottoms]
    assert len(needed) >= 2 and max(needed) <= size[1]


def test_all_text_is_in_the_language_of_the_page_or_marked(browser):
    """Chinese text on the English page stands in an element that says so; no English sentence stands on the Chinese."""
    script = """
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
        for (const details of document.querySelectorAll('details')) details.open = true;
        while (walker.nextNode()) {
            const text = walker.currentNode.textContent.trim(), parent = walker.currentNode.parentElement;
            if (text && parent.getClientRects().length && !parent.closest('script, style, option'))
                found.push([text, parent.closest('[lang]').lang]);
        }
        return found"""
    english = open_page(browser, query="?lang=en")(script)
    assert [pair for pair in english if re.search("[一-鿿]", pair[0]) and pair[1] != "zh-CN"] == []
    chinese = open_page(browser, query="?lang=zh")(script)
    english = [text for text, _ in chinese if len(re.findall(r"\b[a-z]{2,}\b", text)) > 5]
    assert [text for text in english if "/" not in text and not text.startswith("torch ")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser, scheme):
    run = open_page(browser)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    contrasts = run("""
        for (const details of document.querySelectorAll('details')) details.open = true;
        const light = (color) => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).slice(0, 3)
            .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const clear = (color) => /^rgba.*, 0\\)$/.test(color);
        return [...document.querySelectorAll('body *')].filter((e) => e.getClientRects().length
                && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
            let back = e;
            while (back.parentElement && clear(getComputedStyle(back).backgroundColor)) back = back.parentElement;
            const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(back).backgroundColor)];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className, e.textContent.slice(0, 40)] })""")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(contrasts) > 500 and min(contrasts)[0] >= CONTRAST, min(contrasts)


def test_the_filters_and_the_search_are_in_the_address(browser, entries):
    run = open_page(browser)

    def ids(condition):
        return sorted(entry.claims[0].id for entry in entries if condition(entry))

    run(FILL, "report", "assignment")
    run(FILL, "verdict", "contradicts itself")
    expected = ids(lambda e: e.report == "assignment" and e.verdict.kind == "contradicts itself")
    assert sorted(run(ROWS)) == expected != []
    assert run("return document.getElementById('shown').textContent") == str(len(expected))
    address = run("return location.search")
    assert "report=assignment" in address and "verdict=contradicts+itself" in address
    run = open_page(browser, query=address)
    assert sorted(run(ROWS)) == expected
    run("document.getElementById('language').click()")
    assert run("return document.documentElement.lang") == "zh-CN"
    assert run("return document.querySelector('[name=verdict] option:checked').textContent") == "自相矛盾"
    assert sorted(run(ROWS)) == expected and "lang=zh" in run("return location.search")
    run = open_page(browser, query="?q=momentum")
    assert sorted(run(ROWS)) == ids(
        lambda e: re.search("momentum", run("return document.getElementById(arguments[0]).textContent", e.claims[0].id))
    )
    run("document.querySelector('.legend a[href*=project3]').click()")  # a verdict of the summary
    kind = run("return document.querySelector('[name=verdict]').value")
    assert sorted(run(ROWS)) == ids(lambda e: e.report == "project3" and e.verdict.kind == kind)


def test_a_link_to_a_claim_shows_it_wherever_it_is(browser, entries):
    kinds = {entry.verdict.kind: entry.claims[-1].id for entry in entries}
    run = open_page(browser, query="?verdict=reproduced")
    for kind, claim_id in kinds.items():
        run("location.hash = arguments[0]", claim_id)
        visible = (
            "const e = document.getElementById(arguments[0]); return e.checkVisibility() && e.getBoundingClientRect().y"
        )
        browser.execute_async_script("setTimeout(arguments[0], 50)")
        assert 0 < run(visible, claim_id) < 800, (kind, claim_id)


def test_everything_can_be_reached_by_keyboard(browser):
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    chains = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains
    run = open_page(browser)

    def press(*names):
        chains(browser).send_keys(*names).perform()

    active = "const e = document.activeElement; return [e.id, e.className, e.tagName, e.getAttribute('href'), e.name]"
    press(keys.TAB)
    assert run(active)[1] == "skip"
    outline = run("return getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    press(keys.ENTER)
    assert run("return location.hash") == "#summary"
    seen = []
    for _ in range(400):
        press(keys.TAB)
        seen.append(tuple(run(active)))
        if seen[-1][4] == "q":
            break
    assert ("language", "", "BUTTON", None, "") not in seen  # it comes before the summary
    assert any(tag == "SUMMARY" for _, _, tag, _, _ in seen)
    assert not any(name == "bar" for _, name, _, _, _ in seen)  # the legend has the same links
    press("momentum")
    assert "q=momentum" in run("return location.search") and 0 < len(run(ROWS)) < 100
    idle = run(
        "return [...document.querySelectorAll('[tabindex=\"0\"]')].filter(e => e.scrollWidth <= e.clientWidth).length"
    )
    assert idle == 0


def test_a_chinese_browser_opens_it_in_chinese(browser):
    browser.execute_cdp_cmd("Emulation.setLocaleOverride", {"locale": "zh-CN"})
    script = {"source": "Object.defineProperty(navigator, 'language', {get: () => 'zh-CN'})"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        assert open_page(browser)("return document.documentElement.lang") == "zh-CN"
        assert open_page(browser, query="?lang=en")("return document.documentElement.lang") == "en"
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        browser.execute_cdp_cmd("Emulation.setLocaleOverride", {})


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_it_prints_on_few_sheets_without_cutting_anything(browser, lang):
    run = open_page(browser, 718, f"?lang={lang}")  # the width of A4 without margins
    document = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    sheets = len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(document["data"])))
    assert 3 <= sheets <= SHEETS
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        elements = "[...document.querySelectorAll('table, img, p')].filter(e => e.getClientRects().length)"
        assert run(f"return Math.max(...{elements}.map(e => e.getBoundingClientRect().right))") <= 718
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_single_file_has_everything_inside(browser, tmp_path):
    file = tmp_path / "page.html"
    process = run_python(ROOT / "grading" / "build.py", "--single", file)
    assert process.returncode == 0, process.stderr
    text = file.read_text(encoding="utf-8")
    links = re.findall(r'(?:href|src)="([^"]{1,200})', text)
    assert [link for link in links if not re.match(r"data:|https?:|[#?]", link)] == []
    run = open_page(browser, file=file)
    broken = run(
        "return Promise.all([...document.images].map(async i => {"
        " i.loading = 'eager'; try { await i.decode(); return '' } catch { return i.alt } }))"
    )
    assert len(broken) >= 20 and not any(broken)
    first = run("return fetch(document.querySelector('.forest a[download]').href).then(r => r.text())")
    assert first == (ROOT / "task1_loss_curves" / "outputs" / "results.csv").read_text(encoding="utf-8")
