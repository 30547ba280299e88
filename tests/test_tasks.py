"""Every script of tasks 1 to 4 at quick scale, as a user types it; its outputs; bad input; the committed results."""

import ast
import importlib.util
import itertools
import re
import shutil
import string
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from benchmarks import step_cost
from common import cli, plots, repeated, sweep, tables
from common.learners import Learner, StackedLearner
from common.support import chinese_assignment, download, files, machine
from common.support.translations import CHINESE, SENTENCES, label
from tests.conftest import ROOT, TASKS, assert_single_error_line, run_python

FIRST, TASK2, TASK3, TASK4, BATCH_SIZE, ABLATIONS = SCRIPTS = (
    *(f"{task}/main.py" for task in TASKS),
    "task4_architectures/batch_size.py",
    "task4_architectures/ablations.py",
)
BELOW_MAIN = {BATCH_SIZE: "batch_size", ABLATIONS: "ablations"}  # folders in the outputs of task 4's main.py
OUTPUTS = {
    FIRST: {"loss_history.npz", "loss_history_seeds.npz", "loss_curves.png", "loss_table.md"},
    TASK2: {"loss_history.npz", "comparison.md", "curves.png", "strength.png"},
    TASK3: {
        *("loss_history.npz", "alone_history.npz", "split_history.npz", "split.npz"),
        *("losses.png", "comparison.png", "hyperparameters.md", "split_results.csv"),
    },
    TASK4: {"loss_history.npz", "comparison.png", "architectures.md"},
    BATCH_SIZE: {"loss_history.npz", "resnet_history.npz", "batch_size.png", "batch_size.md"},
    ABLATIONS: {"loss_history.npz", "ablations.png", "ablations.md"},
}
ALWAYS = {"results.csv", "summary.csv", "run.json"}
SHORTER = dict.fromkeys((TASK4, BATCH_SIZE, ABLATIONS), ("--epochs", "1"))
QUICK = ("--scale", "quick", "--device", "cpu")
NAMES = {"LeNet", "LightweightResNet", "Dropout"}  # the names that Chinese figures and pages leave in English


def load_script(script):
    spec = importlib.util.spec_from_file_location(script.replace("/", "_").removesuffix(".py"), ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs_of(script):
    module = load_script(script)
    return [*module.CONFIGS, *getattr(module, "RESNETS", ())]


def outputs_of(script, folder):
    """Return where a script writes when it is given `folder` as --out."""
    return folder / BELOW_MAIN.get(script, "")


def lock(folder):
    """Hold a folder of outputs, as a running script does."""
    return files.locked(folder / "checkpoints" / "lock", wait=False)


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """Return quick(script), which returns the folder of its results at quick scale, run from another working directory.

    Task 1 trains in one process per core; the others have one core, so one process, as starting more takes longer than
    they train. batch_size.py and ablations.py write below the results of task 4's main.py, which they read.
    """
    made, elsewhere = {}, tmp_path_factory.mktemp("elsewhere")

    def train(script):
        if script not in made:
            out = train(TASK4) if script in BELOW_MAIN else tmp_path_factory.mktemp(Path(script).parts[0]) / "results"
            words = [ROOT / script, *QUICK, "--out", out, *SHORTER.get(script, ())]
            process = run_python(*words, cwd=elsewhere, cores=None if script == FIRST else 1)
            assert process.returncode == 0, process.stderr
            made[script] = outputs_of(script, out)
        return made[script]

    return train


@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_writes_everything_finite_and_stamped(quick, script):
    out = quick(script)
    assert OUTPUTS[script] | ALWAYS <= {path.name for path in out.iterdir()}
    rows = tables.read_csv(out / "results.csv")
    assert {"config", "seed", "test_accuracy", "train_loss", "epochs", "seconds"} <= rows[0].keys()
    assert [(row["config"], row["seed"]) for row in rows] == [
        (config, seed) for config in configs_of(script) for seed in "01"
    ]
    for row in rows:
        assert row["scale"] == "quick"
        assert 0 <= float(row["test_accuracy"]) <= 100
        assert np.isfinite(float(row["train_loss"])) and float(row["seconds"]) > 0
    for page in out.glob("*.md"):
        assert page.read_text(encoding="utf-8").splitlines()[2].startswith("**QUICK**")
    run_json = cli.read_json(out / "run.json")
    assert run_json["scale"] == "quick" and run_json["seeds"] == [0, 1] and run_json["versions"]["torch"]
    assert list(run_json["configs"]) == configs_of(script)  # the configurations of all sweeps
    assert "sample" in run_json["data"]
    assert not list(out.rglob("*.pt"))  # finished: nothing to resume


def test_the_reports_three_keys(quick):
    history = tables.load_arrays(quick(FIRST) / "loss_history.npz")
    assert set(history) == {"batch_losses", "epoch_losses", "batch_indices"}
    steps = len(history["batch_losses"])
    assert steps == 1400 / 4 * len(history["epoch_losses"])
    assert history["batch_indices"].tolist() == list(range(1, steps + 1))
    means = history["batch_losses"].reshape(len(history["epoch_losses"]), -1).mean(1)
    assert np.allclose(history["epoch_losses"], means, rtol=1e-5)


@pytest.mark.parametrize(("script", "config"), [(TASK2, "baseline"), (TASK3, "baseline"), (TASK4, "lenet")])
def test_the_three_keys_can_be_read_plainly_next_to_the_others(quick, script, config):
    with np.load(quick(script) / "loss_history.npz") as file:
        assert len(file["batch_losses"]) == file["batch_indices"][-1] > len(file["epoch_losses"])
        for key in tables.REPORT_KEYS:
            assert np.array_equal(file[key], file[f"{config}/0/{key}"])


def test_a_cpu_trains_the_same_with_any_number_of_processes(quick, tmp_path):
    """quick(FIRST) is trained in one process per core."""
    process = run_python(ROOT / FIRST, *QUICK, "--out", tmp_path, cores=1)
    assert process.returncode == 0, process.stderr
    one, several = (tables.load_arrays(folder / "loss_history_seeds.npz") for folder in (tmp_path, quick(FIRST)))
    times = {key for key in one if key.endswith("seconds")}
    assert one.keys() == several.keys() and len(times) < len(one)
    assert all(np.array_equal(one[key], several[key]) for key in one.keys() - times)


def test_the_metrics_of_task_3_are_those_of_its_histories(quick, tmp_path):
    out = quick(TASK3)
    histories = tables.load_histories(out / "loss_history.npz")
    alone = tables.load_histories(out / "alone_history.npz")
    rows = tables.read_csv(out / "results.csv")
    for row in rows:
        run = row["config"], int(row["seed"])
        accuracy = histories[run]["test_accuracy"]
        first = next((epoch for epoch, value in enumerate(accuracy, 1) if value >= 35), np.inf)
        assert float(row["epochs_to_35"]) == first
        assert bool(row["seconds_alone"]) == (run in alone) == (run[1] == 0)
        if run[1] == 0:  # whose losses per batch are saved
            losses = histories[run]["batch_losses"].astype(np.float64)
            means = [losses[start : start + 100].mean() for start in range(0, len(losses) - 99, 100)]
            jumps = [abs(b - a) for a, b in itertools.pairwise(means)]
            assert float(row["roughness"]) == pytest.approx(sum(jumps) / len(jumps), rel=1e-3)
    assert "median" in "".join(tables.read_csv(out / "summary.csv")[0])


def test_task_3_is_drawn_from_histories_without_roughness_and_times(quick, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(quick(TASK3), source)
    histories = tables.load_histories(source / "loss_history.npz")
    for history in histories.values():
        del history["roughness"]
    tables.save_histories(source / "loss_history.npz", histories, ("baseline", 0))
    (source / "alone_history.npz").unlink()
    load_script(TASK3).write_results(source, tmp_path)
    text = (tmp_path / "hyperparameters.md").read_text(encoding="utf-8")
    assert "No run has been timed" in text
    table = text.split("## Section 3.3.2")[1].split("##")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| 1 ")]
    assert [cells[0][index] for index in (3, 6)] == [tables.DASH] * 2
    assert "seconds_alone" not in tables.read_csv(tmp_path / "results.csv")[0]


def test_the_same_experiment_is_compared_across_tasks(quick, tmp_path):
    for script in (FIRST, TASK2, TASK3):
        shutil.copytree(quick(script), tmp_path / Path(script).parts[0] / "outputs_quick")
    folder = tmp_path / Path(TASK3).parts[0] / "outputs_quick"
    heading, text, _ = repeated.section(folder, repeated.BASELINE)
    assert heading.en.startswith("## ")
    for script in (FIRST, TASK2, TASK3):
        rows = tables.read_csv(quick(script) / "results.csv")
        values = [float(row["test_accuracy"]) for row in rows if row["config"] == "baseline"]
        assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}% (baseline, task {script[4]})" in text.en
    run_json = cli.read_json(tmp_path / Path(FIRST).parts[0] / "outputs_quick" / "run.json")
    run_json["configs"]["baseline"]["epochs"] += 1  # another experiment
    cli.write_json(tmp_path / Path(FIRST).parts[0] / "outputs_quick" / "run.json", run_json)
    assert repeated.section(folder, repeated.BASELINE) == []


def test_configurations_that_differ_only_in_epochs_are_one_training(quick):
    """Without dropout, same seed and batches: the longer run's first epochs are the shorter run's."""
    histories = tables.load_histories(quick(TASK3) / "loss_history.npz")
    longer, shorter = histories["no_regularization_more_epochs", 0], histories["no_regularization", 0]
    assert np.allclose(longer["epoch_losses"][: len(shorter["epoch_losses"])], shorter["epoch_losses"], atol=1e-4)


def test_the_split_is_saved_and_is_the_one_trained_on(quick):
    saved = tables.load_arrays(quick(TASK3) / "split.npz")
    assert sorted([*saved["train"], *saved["validation"]]) == list(range(1400))
    histories = tables.load_histories(quick(TASK3) / "split_history.npz")
    assert all("val_accuracy" in history for history in histories.values())
    correct = histories["baseline", 0]["val_accuracy"] * 140 / 100  # a number of images
    assert np.allclose(correct, correct.round(), atol=1e-3)


@pytest.mark.parametrize("script", SCRIPTS)
def test_tables_and_figures_are_drawn_from_the_saved_history(quick, script, tmp_path, recwarn):
    source, out = quick(script), outputs_of(script, tmp_path)
    load_script(script).write_results(source, out)
    assert not [warning for warning in recwarn if "lyph" in str(warning.message)]
    drawn = {path.name for path in source.iterdir() if path.suffix in (".csv", ".md", ".png")} - {"log.csv"}
    assert {path.name for path in out.iterdir()} == drawn
    for path in [*out.glob("*.csv"), *out.glob("*.md")]:
        assert path.read_bytes() == (source / path.name).read_bytes(), path.name


@pytest.fixture
def figure_texts(monkeypatch):
    """Collect every text of the saved figures, as drawn, by language; write none. No Chinese font is needed."""
    texts = {"en": [], "zh": []}

    def collect(figure, path):
        figure.canvas.draw()  # this makes the labels of ticks
        language = "zh" if path.name.endswith(".zh.png") else "en"
        texts[language] += [text.get_text() for text in figure.findobj(Text) if text.get_visible()]

    monkeypatch.setattr(plots, "write_png", collect)
    monkeypatch.setattr(plots, "chinese_font", lambda: "DejaVu Sans")
    return texts


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("script", SCRIPTS)
def test_chinese_figures_have_no_english_label(quick, script, tmp_path, figure_texts):
    load_script(script).write_results(quick(script), tmp_path)
    assert len({text for text in figure_texts["zh"] if re.search("[一-鿿]", text)}) > 3
    assert not {word for text in figure_texts["zh"] for word in re.findall("[A-Za-z_]{2,}", text)} - NAMES


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("script", SCRIPTS)
def test_english_figures_have_no_identifier(quick, script, tmp_path, figure_texts):
    load_script(script).write_results(quick(script), tmp_path)
    assert any("Epoch" in text for text in figure_texts["en"])
    assert not [text for text in figure_texts["en"] if "_" in text or re.search("[一-鿿]", text)]


def test_a_line_that_lies_on_another_can_be_seen(quick, tmp_path, monkeypatch):
    """low_lr and no_momentum, no_regularization and its longer run: the upper line has gaps, or another marker."""
    styles = {}

    def collect(figure, path):
        for line in figure.axes[0].lines if Path(path).name == "comparison.png" else ():
            styles[line.get_label()] = (line.get_linestyle(), line.get_marker())

    monkeypatch.setattr(plots, "save", collect)
    load_script(TASK3).write_results(quick(TASK3), tmp_path)
    for lower, upper in (("low_lr", "no_momentum"), ("no_regularization", "no_regularization_more_epochs")):
        assert styles[lower][0] == "-" != styles[upper][0] and styles[lower][1] != styles[upper][1]


def test_redraw_from_the_command_line_trains_nothing(quick, run_in_process):
    out = quick(FIRST)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.suffix != ".png"}
    (out / "loss_curves.png").unlink()
    process = run_in_process(load_script(FIRST).main, "--scale", "quick", "--redraw", "--out", out)
    assert process.returncode == 0, process.stderr
    assert (out / "loss_curves.png").exists()
    assert before == {name: (out / name).read_bytes() for name in before}


def test_a_diverged_run_is_drawn_too(quick, tmp_path):
    """One seed that diverged in its first epoch and stopped there, next to one that did not."""
    source = tmp_path / "source"
    shutil.copytree(quick(TASK3), source)
    histories = tables.load_histories(source / "loss_history.npz")
    cut = histories["more_epochs", 0]
    for field, values in cut.items():
        if field == "batch_losses":
            cut[field] = np.concatenate([values[:100], np.full(250, np.nan, np.float32)])
        elif field == "batch_indices":
            cut[field] = values[:350]
        elif values.ndim:
            cut[field] = values[:1]
    cut["epoch_losses"], cut["diverged_step"] = np.array([np.nan], np.float32), np.array(101)
    tables.save_histories(source / "loss_history.npz", histories, ("baseline", 0))
    load_script(TASK3).write_results(source, tmp_path)
    rows = {(row["config"], row["seed"]): row for row in tables.read_csv(tmp_path / "results.csv")}
    assert rows["more_epochs", "0"]["diverged_step"] == "101" and rows["more_epochs", "0"]["train_loss"] == "nan"


def test_batch_size_is_drawn_where_main_has_not_run(quick, tmp_path):
    """Then batch size 64 has no network, and is not compared."""
    source = tmp_path / "alone" / "batch_size"
    shutil.copytree(quick(BATCH_SIZE), source)
    load_script(BATCH_SIZE).write_results(source, tmp_path)
    text = (tmp_path / "batch_size.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {row[0]: row[1:] for row in rows}
    assert set(cells["64"]) == {tables.DASH}
    assert tables.DASH not in cells["100"] and float(cells["100"][-2].split(" ± ")[0]) > 0


def test_ablations_are_drawn_where_main_has_not_run(quick, tmp_path):
    """Then there is nothing to compare with, and no attribution is judged."""
    source = tmp_path / "alone" / "ablations"
    shutil.copytree(quick(ABLATIONS), source)
    load_script(ABLATIONS).write_results(source, tmp_path)
    text = (tmp_path / "ablations.md").read_text(encoding="utf-8")
    assert "has not been trained" in text and "the whole network |" not in text and "Start:" not in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_configuration_has_a_chinese_name(script):
    for config in load_script(script).CONFIGS:
        assert config in CHINESE, config


def test_the_cost_of_a_step_is_measured_for_every_compared_network_and_shown(quick, tmp_path):
    costs = step_cost.step_costs(torch.device("cpu"), steps=2)
    assert list(costs) == ["no_regularization", "l2", "dropout", "baseline"]
    assert all(len(times) == step_cost.ROUNDS and min(times) > 0 for times in costs.values())
    source = tmp_path / "source"
    shutil.copytree(quick(TASK2), source)
    assert "ms per step" not in (source / "comparison.md").read_text(encoding="utf-8")
    cli.write_json(source / "cost.json", costs)
    load_script(TASK2).write_results(source, tmp_path)
    row = next(
        line for line in (tmp_path / "comparison.md").read_text(encoding="utf-8").splitlines() if "ms per" in line
    )
    assert row.endswith(" | ".join(f"{tables.mean_std(costs[name])}" for name in list(costs)[:3]) + " |")


# --- pages ---


def pages_of(folder):
    """Return (English, Chinese) text of each page in a folder."""
    english = [path for path in sorted(folder.glob("*.md")) if not path.name.endswith(".zh.md")]
    return [[file.read_text(encoding="utf-8") for file in (path, path.with_suffix(".zh.md"))] for path in english]


def without_code(page):
    """Return a page without what both languages share: code, names of files, and targets of links."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)|[\w./]+\.(py|md|csv)\b", "", page)


def templates_of(path):
    """Return the templates of the calls text(template, ...) in a file; those of both branches of a condition."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    first = [call.args[0] for call in calls if getattr(call.func, "id", "") == "text"]
    return {node.value for argument in first for node in branches(argument)}


def branches(node):
    return [*branches(node.body), *branches(node.orelse)] if isinstance(node, ast.IfExp) else [node]


@pytest.fixture(params=["quick", "committed"])
def folder_of(request, quick):
    """Return folder_of(script): a folder of its results, at quick scale, or as committed."""
    if request.param == "quick":
        return quick

    def committed(script):
        folder = outputs_of(script, ROOT / Path(script).parent / "outputs")
        return folder if (folder / "run.json").exists() else pytest.skip("no full run of this task is committed")

    return committed


@pytest.mark.parametrize("script", SCRIPTS)
def test_both_languages_of_a_page_have_the_same_tables_and_numbers(folder_of, script):
    pages = pages_of(folder_of(script))
    assert pages
    for page in pages:
        rows = [[line.count("|") for line in text.splitlines() if line.startswith("|")] for text in page]
        assert rows[0] == rows[1] and rows[0]
        english, chinese = (Counter(re.findall(r"\d+(?:[.,]\d+)*", without_code(text))) for text in page)
        assert english == chinese


@pytest.mark.parametrize("script", SCRIPTS)
def test_pages_use_no_code_names_and_chinese_ones_no_english(folder_of, script):
    device = cli.read_json(folder_of(script) / "run.json")["device"]
    allowed = NAMES | {"QUICK", "CPU", "NVIDIA", "MFLOPs", "ln", "nat"}
    for english, chinese in pages_of(folder_of(script)):
        assert not re.search(r"\w_\w|[一-鿿]", without_code(english))
        words = re.findall("[A-Za-z_]{2,}", without_code(chinese.replace(device, "")))
        assert not set(words) - allowed
        assert not re.search(
            r"[。，：；？！]\*\*[一-鿿]|\d [,.%]|[一-鿿][,;]", chinese
        )  # bold that is none, half-width marks


@pytest.mark.parametrize("script", SCRIPTS)
def test_pages_have_no_number_that_says_nothing(folder_of, script):
    for page in itertools.chain(*pages_of(folder_of(script))):
        assert not re.search(r"[±-] ?0(\.0+)?(?![.\d])|\d %|\(s\)|\| *\|", page)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_page_begins_with_its_finding_and_shows_every_figure_once_with_a_caption(folder_of, script):
    folder = folder_of(script)
    figures = {path.name for path in folder.glob("*.png")}
    for page in pages_of(folder):
        blocks = [text.strip().split("\n\n") for text in page]
        for language in blocks:
            stamped = language[1].startswith("**QUICK**")
            assert language[0].startswith("# ") and language[1 + stamped].startswith("**")
        for own, language in zip((lambda name: ".zh." not in name, lambda name: ".zh." in name), blocks):
            shown = [re.fullmatch(r"!\[.+\]\((.+)\)", block) for block in language]
            assert sorted(match[1] for match in shown if match) == sorted(filter(own, figures))
            captions = [language[index + 1] for index, match in enumerate(shown) if match]
            assert all(re.fullmatch(r"\*[^*]+[.。]\*", caption) for caption in captions)
        headings = [[block.startswith("## ") for block in language] for language in blocks]
        assert headings[0] == headings[1] and any(headings[0])


def test_every_sentence_of_the_tasks_has_a_translation_and_none_is_left_over():
    tasks = {*ROOT.glob("task[1-4]*/*.py"), *(ROOT / "common").glob("*.py")}
    used = set().union(*map(templates_of, tasks))
    assert len(used) > 100 and not used - SENTENCES.keys()
    everywhere = [
        path for folder in ("benchmarks", "grading", "project3_wrn") for path in (ROOT / folder).rglob("*.py")
    ]
    assert not chinese_assignment.SENTENCES.keys() - used.union(*map(templates_of, everywhere))


def test_templates_are_found_in_conditions_and_a_computed_one_is_an_error(tmp_path):
    path = tmp_path / "page.py"
    path.write_text('text("a" "b", n=1)\ntext("c" if x else "d" if y else "e")\n', encoding="utf-8")
    assert templates_of(path) == {"ab", "c", "d", "e"}
    path.write_text('text(f"{x}")\n', encoding="utf-8")
    with pytest.raises(AttributeError):
        templates_of(path)


@pytest.mark.parametrize("english", chinese_assignment.SENTENCES)
def test_a_translation_fills_in_the_same_values(english):
    fields = [
        sorted((name, spec) for _, name, spec, _ in string.Formatter().parse(template) if name)
        for template in (english, chinese_assignment.SENTENCES[english])
    ]
    assert fields[0] == fields[1]


def test_labels_name_configurations_in_both_languages():
    for script in SCRIPTS:
        for config in load_script(script).CONFIGS:
            assert "_" not in label(config).en + label(config).zh


# --- run.json ---


def options_for(folder, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["task/main.py", *QUICK, *map(str, words)])
    return cli.resolve_options(cli.make_parser("").parse_args(), folder)


@pytest.mark.parametrize("damaged", [False, True])
def test_run_json_has_the_configurations_of_one_start(monkeypatch, tmp_path, damaged):
    lenet, resnet = ({"model": name} for name in ("lenet", "lightweight_resnet"))
    first = options_for(tmp_path, monkeypatch, "--precision", "bf16")
    path = first.out / "run.json"
    cli.write_json(path, {"started": "2020-01-01T00:00:00Z", "configs": {"old": lenet}})
    if damaged:
        path.write_text('{"started"')
    sweep._write_run_json({"a": lenet}, first, "here")
    assert cli.read_json(path)["configs"] == {"a": lenet}
    sweep._write_run_json({"b": resnet}, first, "here")
    document = cli.read_json(path)
    assert document["configs"] == {"a": lenet, "b": resnet}
    assert document["precision"] == "fp32 and bf16" and document["data"] == "here"


# --- stopped and resumed ---


def test_a_failed_job_stops_no_other_and_the_log_has_every_epoch_once(tmp_path):
    """The checkpoint of seed 1 is damaged: the other two are trained, and the next start takes them over."""
    words = (ROOT / FIRST, *QUICK, "--seeds", "3", "--epochs", "2", "--out", tmp_path)
    damaged = tmp_path / "checkpoints" / "loss_history_seeds" / "baseline-1.pt"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("damaged")
    process = run_python(*words)
    assert_single_error_line(process, "1 failed: baseline with seed 1 (", "baseline-1.pt is not a valid", status=1)
    traceback = tmp_path / "failed" / "baseline-1.log"
    assert str(traceback) in process.stderr and "BadZipFile" in traceback.read_text(encoding="utf-8")
    assert not (tmp_path / "run.json").exists()
    before = tables.read_csv(tmp_path / "log.csv")
    assert {(row["seed"], row["epoch"]) for row in before} == {("0", "1"), ("0", "2"), ("2", "1"), ("2", "2")}
    damaged.unlink()
    process = run_python(*words)
    assert process.returncode == 0, process.stderr
    assert not traceback.parent.exists()
    rows = tables.read_csv(tmp_path / "log.csv")
    assert rows[: len(before)] == before and len(rows) == 6
    assert [(row["seed"], row["epoch"]) for row in rows[len(before) :]] == [("1", "1"), ("1", "2")]
    histories = tables.load_histories(tmp_path / "loss_history_seeds.npz")
    for row in rows:
        history, epoch = histories["baseline", int(row["seed"])], int(row["epoch"]) - 1
        assert row["train_loss"] == f"{history['epoch_losses'][epoch]:.4f}"
        assert row["test_accuracy"] == f"{history['test_accuracy'][epoch]:.2f}"
        assert row["seconds"] == f"{history['seconds'][epoch]:.2f}" and row["learning_rate"] == "0.001"
    assert run_python(*words).returncode == 0  # nothing was left to resume, so the log starts anew
    assert len(tables.read_csv(tmp_path / "log.csv")) == 6


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_stop_while_the_results_are_drawn_loses_no_training(script, tmp_path, monkeypatch, run_in_process):
    """Checkpoints are removed only after that; the same command trains nothing, writes everything and removes them."""
    words = (*QUICK, "--epochs", "1", "--seeds", "1", "--out", tmp_path)
    module, trained = load_script(script), []

    def count_steps(kind):
        real = kind.step
        monkeypatch.setattr(kind, "step", lambda self, x, y: trained.append(1) or real(self, x, y))

    count_steps(StackedLearner)
    count_steps(Learner)
    monkeypatch.setattr(machine, "cores", lambda: 1)  # all in this process
    draw = module.write_results

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_results", stop)
    process = run_in_process(module.main, *words)
    assert process.returncode == 130 and "the same command" in process.stderr
    assert trained and list(tmp_path.rglob("*.pt"))
    trained.clear()
    monkeypatch.setattr(module, "write_results", draw)
    process = run_in_process(module.main, *words)
    assert process.returncode == 0 and not trained, process.stderr
    assert OUTPUTS[script] | ALWAYS <= {path.name for path in outputs_of(script, tmp_path).iterdir()}
    assert not list(tmp_path.rglob("*.pt"))


# --- bad input ---


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "-1"],
        ["--batch-size", "0"],
        ["--seeds", "0"],
        ["--seeds", "two"],
        ["--nonsense"],
        ["--device", "tpu"],
    ],
)
def test_wrong_flags_are_usage_errors(script, words, run_in_process):
    assert_single_error_line(run_in_process(load_script(script).main, *words), words[0], status=2)


def test_batch_size_takes_no_batch_size(tmp_path, run_in_process):
    words = (*QUICK, "--batch-size", "8", "--out", tmp_path)
    assert_single_error_line(run_in_process(load_script(BATCH_SIZE).main, *words), "--batch-size", status=2)


def test_a_device_that_is_not_available(run_in_process):
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    missing = next(name for name, available in devices.items() if not available)
    assert_single_error_line(
        run_in_process(load_script(FIRST).main, "--device", missing), missing, "not available", status=2
    )


def test_a_damaged_data_folder_without_a_source(tmp_path, run_in_process, monkeypatch):
    monkeypatch.setattr(download, "_remote", lambda: iter(()))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "test_batch.bin").write_bytes(b"x" * 100)
    words = ("--scale", "full", "--data", tmp_path, "--out", tmp_path / "out")
    assert_single_error_line(run_in_process(load_script(FIRST).main, *words), "data_batch_1.bin", status=1)


@pytest.mark.parametrize("damage", ["cut", "absent", "of another task"])
def test_redraw_from_a_damaged_history(quick, tmp_path, damage):
    out = tmp_path / "results"
    shutil.copytree(quick(FIRST), out)
    path = out / "loss_history_seeds.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "absent":
        path.unlink()
    else:
        shutil.copy(out / "loss_history.npz", path)
    process = run_python(ROOT / FIRST, "--scale", "quick", "--redraw", "--out", out)
    assert_single_error_line(process, "loss_history_seeds.npz", "without --redraw", status=1)


# --- the committed results ---


@pytest.mark.parametrize("script", SCRIPTS)
def test_committed_tables_are_those_of_the_committed_histories(script, tmp_path):
    committed = outputs_of(script, ROOT / Path(script).parent / "outputs")
    if not (committed / "run.json").exists():
        pytest.skip("no full run of this task is committed")
    load_script(script).write_results(committed, tmp_path)
    for path in [*committed.glob("*.csv"), *committed.glob("*.md")]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    run_json = cli.read_json(committed / "run.json")
    assert run_json["scale"] == "full" and list(run_json["configs"]) == configs_of(script)
    assert "QUICK" not in "".join(path.read_text(encoding="utf-8") for path in committed.glob("*.md"))
