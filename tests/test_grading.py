"""The grader's page: claims, verdicts, and the page itself in a browser."""

import re
from collections import defaultdict
from pathlib import PurePosixPath

import numpy as np
import pytest
from scipy import stats

from common import cli, reported, tables
from common.data import CLASSES
from common.models import MODELS
from common.support.errors import UserError
from grading import facts, rules, scores, strings
from grading.claims import Claim, Source, read_claims
from grading.evidence import (
    NotRun,
    command_for,
    command_for_verdict,
    describe_run,
    evaluate,
    read_short,
    read_values,
    short_files,
)
from grading.verdicts import count_verdicts, judge, judge_all
from project3_wrn import batch_epoch_grid, compare_models, improvements
from task2_regularization import main as task2
from task3_hparams import main as task3
from task4_architectures import ablations, batch_size
from task4_architectures import main as task4
from tests.conftest import ROOT

NAMES = {  # that are the same in Chinese
    *(
        "CIFAR",
        "LeNet",
        "LightweightResNet",
        "ResNet",
        "WRN",
        "VGG",
        "DLA",
        "Wide",
        "WideResNet",
        "ViT",
        "H",
        "Dropout",
        "Focal",
        "Loss",
        "L2",
    ),
    *("AutoAugment", "RandAugment", "MixUp", "CutMix", "CBAM", "SE", "A10", "nat", "torchvision", "Cutout", "Adam"),
    *("GPU", "NVIDIA", "FLOPs", "F1", "Pearson", "p", "w", "arXiv"),
}


@pytest.fixture(scope="module")
def claims():
    return read_claims()


@pytest.fixture(scope="module")
def entries(claims):
    return judge_all(claims)


def test_every_claim_names_fields_that_exist(claims, entries):
    """A field that its file lacks is a problem; a file that no full run has written yet is not."""
    problems = [(entry.name, entry.verdict.problem) for entry in entries if entry.verdict.problem]
    assert not problems
    for entry in entries:
        settled = entry.verdict.kind not in ("not yet run", "short run")
        assert settled or all(any("python" in text for text in why) for why in entry.verdict.why), entry.name
        assert settled or entry.verdict.why, entry.name
    for name, claim in claims.items():
        assert re.fullmatch(r"[AP]\d+", name) and claim.zh and claim.en and claim.section and claim.quantity, name
        assert (claim.report == "assignment") == (name[0] == "A")
        assert claim.quote in ("", "yes")


def test_claims_name_configurations_that_exist(claims):
    """Also those of studies that have not been run: a misspelt name would stay "not yet run" for ever."""
    known = {
        "task2_regularization/outputs": task2.CONFIGS,
        "task3_hparams/outputs": task3.CONFIGS,
        "task4_architectures/outputs": task4.CONFIGS,
        "task4_architectures/outputs/batch_size": {**batch_size.CONFIGS, **batch_size.RESNETS},
        "project3_wrn/outputs/compare_models": compare_models.CONFIGS,
        "project3_wrn/outputs/batch_epoch_grid": batch_epoch_grid.CONFIGS,
        "project3_wrn/outputs/improvements": improvements.make_configs("cuda"),
        "task4_architectures/outputs/ablations": ablations.CONFIGS,
    }
    named = 0
    for claim in claims.values():
        for source in (source for setting in claim.settings for source in setting.sources):
            folders = [str(PurePosixPath(file).parent) for file in source.files]
            if all(folder in known for folder in folders):
                names = re.findall(r"config=(\w[\w.-]*)", source.field)
                assert {*names} <= {name for folder in folders for name in known[folder]}, claim.id
                named += len(names)
    assert named > 100


def test_no_word_is_compared_with_a_word(claims):
    """A verdict rests on numbers: a value that is text could not be measured."""
    assert all(rules.is_value(claim.value) for claim in claims.values())
    for word in ("low", "ResNet-18", "about 3", "> 3", "1,000", ""):
        assert not rules.is_value(word)


def test_the_counts_add_up(claims, entries):
    """Every claim is shown in one entry; the two sides of a contradiction are one."""
    shown = [claim.id for entry in entries for claim in entry.claims]
    assert sorted(shown) == sorted(claims) and len(set(shown)) == len(shown)
    pairs = [entry for entry in entries if len(entry.claims) == 2]
    assert len(entries) == len(claims) - len(pairs) and len(pairs) >= 7
    assert all(entry.verdict.kind == "contradicts itself" for entry in pairs)
    counts = count_verdicts(entries)
    assert sum(sum(kinds.values()) for kinds in counts.values()) == len(entries)


def test_claims_have_their_texts_in_chinese(claims):
    """All but numbers, names of networks and code: any other word that has no translation is found here."""
    texts = [
        text
        for claim in claims.values()
        for text in (
            claim.value_text,
            claim.quantity_text,
            *(setting.configuration for setting in claim.settings),
            strings.Text(claim.configuration, claim.configuration_zh or claim.configuration),
        )
    ]
    for text in set(texts):
        for english in re.findall(r"\b[A-Za-z]\w*", re.sub(r"nn\.\S+", "", text.zh), re.ASCII):
            assert english in MODELS or english in NAMES, f"{text.en}: {english}"
        assert "批次 " not in text.zh  # a batch's number, not its size
    assert claims["A61"].settings[1].configuration == ("LeNet, 10 epochs, batch 100", "LeNet，10 轮，批大小 100")
    assert claims["P101"].settings[0].configuration.zh == "第二章的模型，按 ResNet-18，猫误判为狗"
    assert claims["P101"].value_text == ("66 images", "66 张")
    assert claims["A68"].value_text == ("62,000", "6.2 万")
    kinds = [text for kind in strings.KINDS.values() for text in kind]
    for text in (*kinds, *strings.RULES, *strings.REASONS.values()):
        assert text.en and re.search("[一-龥{]", text.zh)


def test_the_reports_numbers_are_the_same_in_both_places(claims):
    """The tasks read them from common/reported.py, the page from claims.csv."""
    quantities = {"test_accuracy": reported.ACCURACY, "train_loss": reported.LOSS}
    compared = 0
    for claim in claims.values():
        for source in claim.settings[0].sources if claim.check == "run" and claim.settings else ():
            match = re.fullmatch(r"(test_accuracy|train_loss)\[config=(\w+)\]", source.field)
            values = match and quantities[match[1]].get(source.files[0].split("/")[0], {})
            if values and match[2] in values and claim.id != "A11":
                assert float(claim.value) == values[match[2]], claim.id
                compared += 1
    assert compared >= 16
    assert tuple(float(claims[f"A{n:02d}"].value) for n in range(6, 11)) == reported.TASK1_LOSSES
    assert tuple(float(claims[name].value) for name in ("A11", "A12")) == reported.TASK1_ACCURACY
    for name, start in zip(reported.NETWORKS, range(19, 37, 3)):
        numbers = tuple(float(claims[f"P{n}"].value) for n in range(start, start + 3))
        assert numbers == reported.NETWORKS[name][:3], name


# --- the rules ---


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_prediction_interval_is_that_of_scipy(count):
    values = np.random.default_rng(count).normal(50, 2, count)
    scale = stats.sem(values) * np.sqrt(count + 1)  # of the difference between one more value and the mean
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=scale)
    assert tables.prediction_half_width(values) == pytest.approx((high - low) / 2)


def test_the_prediction_interval_holds_one_more_run_95_times_in_100():
    draws = np.random.default_rng(0).normal(50, 2, (4000, 4))
    inside = [abs(draw[3] - draw[:3].mean()) <= tables.prediction_half_width(draw[:3]) for draw in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


def test_a_number_agrees_within_the_interval_and_its_rounding_and_nothing_else():
    """No tolerance: whoever moves the number just past the interval changes the verdict."""
    values = np.array([49.0, 50.0, 52.0, 51.0])
    edge = values.mean() + tables.prediction_half_width(values)
    inside, outside = f"{edge + 0.0004:.4f}"[:-1], f"{edge + 0.0016:.3f}"
    assert rules.agree(inside, values) and not rules.agree(outside, values)
    assert rules.agree(f"{edge + 0.4:.0f}", values) == (abs(round(edge + 0.4) - edge) <= 0.5)
    assert "tolerance" not in Claim.__dataclass_fields__


@pytest.mark.parametrize(
    ("number", "half"),
    [("2.06", 0.005), ("49", 0.5), ("6.2e4", 500), ("2.47e-5", 5e-8), ("-0.3551", 0.00005), ("10.00", 0.005)],
)
def test_the_digits_of_a_number_say_how_it_was_rounded(number, half):
    assert rules.half_unit(number) == pytest.approx(half)


@pytest.mark.parametrize(
    ("value", "values", "agrees"),
    [
        ("10.00", [10.0, 10.0, 10.0], True),
        ("2.30", [2.3029, 2.3029, 2.3029], True),  # a spread of 0 leaves the rounding
        ("2.303", [2.3029, 2.3029, 2.3029], True),
        ("2.31", [2.3029, 2.3029, 2.3029], False),
        ("50", [50.0], None),
        (">0", [1.0], None),
        ("not >0", [1.0], None),
        (">0", [1.0, 1.2, 0.9], True),
        (">0", [1.0, -0.9, 0.5], False),  # it may be chance
        ("not >0", [1.0, -0.9, 0.5], True),
        ("not >0", [1.0, 1.2, 0.9], False),
        ("<0", [-1.0, -1.2, -0.9], True),
        ("<0", [1.0, 1.2, 0.9], False),
        ("not <0", [1.0, 1.2, 0.9], True),
        (">10", [10.0, 10.0], False),
        ("95.7", [95.7, np.nan], False),  # a run ended before the epoch
    ],
)
def test_agreement(value, values, agrees):
    assert rules.agree(value, np.array(values)) is agrees


@pytest.mark.parametrize(
    ("value", "other", "possible"),
    [
        ("95.57", "95.39", False),
        ("95.6", "95.57", True),
        (">70", "70", False),
        (">70", "71", True),
        (">0", "<0", False),
        (">0", "<2", True),
        (">0", "not >0", False),
        ("0.0010", "0.0005", False),
    ],
)
def test_which_numbers_of_a_report_can_both_be_true(value, other, possible):
    assert rules.compatible(value, other) == rules.compatible(other, value) == possible


# --- verdicts ---


def claim(**changes):
    blank = dict.fromkeys(Claim.__dataclass_fields__, "")
    usual = dict(id="A1", value="50", unit="%", check="run", file="task9/outputs/f.csv", field="x")
    return Claim(**{**blank, **usual, **changes})


B1, C1 = claim(id="B1", value="70"), claim(id="C1", value="30", file="task9/outputs/g.csv")
TWO = {"file": "task9/outputs/f.csv | task9/outputs/g.csv", "configuration": "batch 64 | batch 100"}
CASES = [
    ("reproduced", {}, {"f": [49.0, 52.0, 50.5]}),
    ("not reproduced", {}, {"f": [53.5, 53.5]}),
    ("reproduced", {"check": "fact", "value": "5"}, {"f": [5.4]}),
    ("wrong as stated", {"check": "fact", "value": "5"}, {"f": [5.6]}),
    ("consistent", {"check": "computed", "file": "", "against": "B1 - 20"}, {}),
    ("contradicts itself", {"check": "computed", "file": "", "against": "B1 - 10"}, {}),
    ("contradicts itself", {"check": "contradicted", "against": "B1"}, {"f": [50.0, 50.1, 49.9]}),
    ("contradicts itself", {"check": "contradicted", "against": "B1 - 10"}, {}),
    ("reproduced", {"check": "contradicted", "against": "B1 - 20"}, {"f": [50.0, 50.1, 49.9]}),
    ("not yet run", {"check": "contradicted", "against": "B1 - 20"}, {}),
    ("depends on what the report does not say", TWO, {"f": [50.0, 50.1], "g": [60.0, 60.1]}),
    ("reproduced", TWO, {"f": [50.0, 50.1], "g": [50.0, 50.1]}),
    ("not reproduced", TWO, {"f": [60.0, 60.1], "g": [40.0, 40.1]}),
    ("reproduced", TWO, {"f": [50.0, 50.1], "g": [60.0]}),  # one run decides nothing
    ("short run", {}, {"short": [50.0, 50.1]}),
    ("not yet run", {}, {}),
    ("not yet run", {}, {"f": [50.0]}),
    ("reproduced", {"value": ">0", "p_value": "p"}, {"f": [0.4], "p": 0.01}),
    ("not reproduced", {"value": ">0", "p_value": "p"}, {"f": [0.4], "p": 0.2}),
    ("not reproduced", {"value": ">0", "p_value": "p"}, {"f": [-0.4], "p": 0.01}),
]


@pytest.fixture
def measured(monkeypatch):
    """Return a function that sets what the files f and g, a shortened run, and a p-value have."""

    def set_numbers(numbers):
        def read(files, field, needs_gpu=False):
            key = "p" if field == "p" else files[0].split("/")[-1][0]
            if key not in numbers:
                raise NotRun("python task9/main.py")
            return np.atleast_1d(numbers[key])

        short = (np.array(numbers["short"]), strings.Text("x", "x")) if "short" in numbers else None
        monkeypatch.setattr("grading.evidence.read_values", read)
        monkeypatch.setattr("grading.evidence.read_short", lambda *_: short)

    return set_numbers


@pytest.mark.parametrize(("kind", "changes", "numbers"), CASES)
def test_verdicts_follow_from_the_numbers(measured, kind, changes, numbers):
    measured(numbers)
    assert judge(claim(**changes), {"B1": B1, "C1": C1}).kind == kind


def test_every_kind_of_verdict_is_reached():
    assert {kind for kind, *_ in CASES} == set(strings.KINDS)


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        ([49.9, 50.1, 50.0], "our runs agree with A1"),
        ([29.9, 30.1, 30.0], "our runs agree with C1"),
        ([39.9, 40.1, 40.0], "our runs agree with neither"),
        ([20.0, 60.0, 40.0], "our runs cannot tell the two apart"),
        ([50.0], ""),  # one run takes no side
    ],
)
def test_a_contradiction_says_which_side_our_runs_take(measured, ours, reason):
    measured({"f": ours, "g": ours})
    one = claim(check="contradicted", against="C1")
    other = claim(id="C1", value="30", check="pair", against="A1", file="task9/outputs/g.csv")
    (entry,) = judge_all({"A1": one, "C1": other})
    assert entry.name == "A1 / C1" and entry.verdict.kind == "contradicts itself"
    assert entry.verdict.reason.en == "; ".join(filter(None, ["C1 says 30%", reason]))


def test_a_contradiction_with_a_calculation_says_which_side_our_runs_take(measured):
    measured({"f": [29.9, 30.1, 30.0]})
    verdict = judge(claim(check="contradicted", against="B1 - 40"), {"B1": B1})
    assert verdict.reason.en == "B1 - 40 = 30; our runs agree with B1 - 40"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"check": "guess"}, "no check"),
        ({"value": "low"}, "not a number"),
        ({"check": "computed", "against": "Z9"}, "Z9, which does not exist"),
        ({"check": "run", "against": "A1"}, "not against other claims"),
        ({"check": "pair", "against": "A1"}, "is not against it"),
        ({"file": ""}, "no file"),
        ({"file": "a | b"}, "2 settings and other configurations"),
        ({**TWO, "field": "x | y | z"}, "2 settings and other fields"),
    ],
)
def test_rows_with_a_mistake_are_refused(tmp_path, changes, problem):
    path = tmp_path / "claims.csv"
    tables.write_csv(path, [vars(claim(**{"report": "assignment", **changes}))])
    with pytest.raises(UserError, match=problem):
        read_claims(path)


# --- our numbers ---


def test_fields_are_expressions_over_terms():
    values = {"a[config=x]": np.array([1.0, 2.0]), "b": 4.0}
    assert evaluate("a[config=x] - b / 2", values).tolist() == [-1, 0]
    assert evaluate("( b + b ) * 10", values) == 80
    assert evaluate("max(a[config=x], b - 2.5) - min(b, 3)", values).tolist() == [-1.5, -1]
    for bad in ("b ** 2", "f(b)", "b +", "b if b else b", "max()"):
        with pytest.raises(ValueError, match=re.escape(bad)):
            evaluate(bad, defaultdict(lambda: 1.0))


def test_unknown_fields_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    (tmp_path / "run.json").write_text('{"scale": "full"}', encoding="utf-8")
    table = "config,seed,test_accuracy,loss\nx,0,50,1\nx,1,52,2\nz,0,40,2\nz,1,62,1\n"
    (tmp_path / "results.csv").write_text(table, encoding="utf-8")
    (tmp_path / "metrics.json").write_text('[{"seed": 0, "best_epoch": 8}]', encoding="utf-8")
    (tmp_path / "cost.json").write_text('{"l2": [3.5, 3.6], "dropout": [3.75, 3.85], "p_a": 0.5}')
    accuracy = {"test_accuracy": np.array([20.0, 36.0]), "rough": np.array(0.5), "kept_epoch": np.array(1)}
    tables.save_histories(tmp_path / "history.npz", {("x", 0): {"loss": np.array([2.0, 1.0]), **accuracy}})
    tables.save_histories(tmp_path / "more.npz", {("y", 0): {"loss": np.array([4.0, 3.0])}})

    def read(files, field):
        return read_values(files.split(), field).tolist()

    assert read("results.csv", "test_accuracy[config=x]") == [50, 52]
    assert read("results.csv", "correlation[x=loss,y=test_accuracy]") == pytest.approx([-1, -1])
    assert read("metrics.json", "best_epoch") == [8]
    assert read("cost.json", "dropout - l2") == pytest.approx([0.25, 0.25])
    assert read("cost.json", "p_a") == [0.5]
    for epoch, loss in ((1, 2), (2, 1), (-1, 1), ("kept", 2), ("min", 1), ("max", 2)):
        assert read("history.npz", f"loss[config=x,epoch={epoch}]") == read("history.npz", f"loss[epoch={epoch}]")
        assert read("history.npz", f"loss[epoch={epoch}]") == [loss]
    assert read("history.npz", "rough[config=x]") == [0.5]
    assert read("history.npz", "epochs_to[config=x,accuracy=35]") == [2]
    assert read("history.npz", "epochs_to[config=x,accuracy=37]") == [np.inf]
    assert read("history.npz more.npz", "loss[config=x,epoch=1] - loss[config=y,epoch=1]") == [-2]
    assert read("history.npz", "swing[of=test_accuracy,from=1,to=2]") == [16]
    assert np.isnan(read("history.npz", "swing[of=loss,from=2,to=9]"))
    assert np.isnan(read("history.npz", "loss[config=x,epoch=3]"))  # training stopped before
    for file, term in (
        ("results.csv", "test_accuracy[config=y]"),
        ("results.csv", "accuracy[config=x]"),
        ("results.csv", "test_accuracy[seed=3]"),
        ("metrics.json", "test_accuracy"),
        ("cost.json", "p_b"),
        ("history.npz", "loss[config=y,epoch=1]"),
        ("history.npz", "swing[of=val_loss,from=1,to=2]"),
        ("history.npz", "accuracy[config=x,epoch=1]"),
    ):
        with pytest.raises(ValueError, match=re.escape(term)):
            read(file, term)


def test_a_claim_names_alternatives_and_settings():
    two = claim(
        file="a/x.csv or b/x.csv | c/x.npz & d/x.npz",
        field="x or y | z",
        configuration="batch 64 | batch 100",
        configuration_zh="批大小 64 | 批大小 100",
    )
    first, second = two.settings
    assert first.sources == (Source(("a/x.csv",), "x"), Source(("b/x.csv",), "y"))
    assert second.sources == (Source(("c/x.npz", "d/x.npz"), "z"),)
    assert second.configuration == ("batch 100", "批大小 100")


def test_the_first_source_that_has_been_run_counts(measured):
    measured({"g": [50.0, 50.1]})
    verdict = judge(claim(file="task9/outputs/f.csv or task9/outputs/g.csv"), {})
    assert verdict.kind == "reproduced" and verdict.shown[0].source.files == ("task9/outputs/g.csv",)


def test_scores_are_those_of_the_committed_tables():
    """fast94's tables, which other code computes, are of its first seed."""
    folder = ROOT / "project3_wrn" / "outputs" / "fast94"
    logits, labels = (np.load(folder / "logits.npz")[key] for key in ("0/test", "test_labels"))
    for row in tables.read_csv(folder / "classification_report.csv")[: len(CLASSES)]:
        for name in ("precision", "recall", "f1"):
            score = scores.SCORES[name](logits, labels, **{"class": row["class"]})
            assert score == pytest.approx(float(row[name]), abs=6e-5)
    for row in tables.read_csv(folder / "confusion_matrix.csv"):
        for predicted in CLASSES:
            assert scores.confused(logits, labels, row["true"], predicted) == int(row[predicted])
    assert scores.pair_rank(logits, labels, "cat", "dog") == 1
    assert scores.pair_rank(logits, labels, "automobile", "truck") == 2


def test_confident_errors_by_hand():
    cat, dog, ship = map(CLASSES.index, ("cat", "dog", "ship"))
    logits = np.zeros((4, 10))
    logits[0, dog], logits[1, dog], logits[2, ship], logits[3, cat] = 2, 4, 3, 9  # the last one is right
    labels = np.array([cat, cat, cat, cat])
    expected = np.exp(4) / (np.exp(4) + 9)
    assert scores.most_confident_errors(logits, labels).tolist() == [1, 2, 0]
    assert scores.confidence(logits, labels, "cat", "dog", "predicted") == pytest.approx(100 * expected)
    assert scores.confidence(logits, labels, "cat", "dog", "true") == pytest.approx(100 / (np.exp(4) + 9))
    assert np.isnan(scores.confidence(logits, labels, "dog", "cat", "true"))
    assert scores.confident_confusions(logits, labels) == 2


def test_facts_by_hand():
    sides = [min(center + 6, 32) - max(center - 6, 0) for center in range(32)]  # of Cutout's square, clipped
    assert facts.cutout_pixels() == pytest.approx(np.mean(sides) ** 2, abs=0.5)
    assert facts.crop_padding() == 4 and facts.flipped_share() == pytest.approx(0.5, abs=0.02)
    assert facts.least_block_output() == 0
    assert facts.FACTS["chance_loss"]() == pytest.approx(-np.log(0.1))
    assert facts.convolutions("lightweight_resnet") == 9 and facts.convolutions("lightweight_resnet", "3") == 7
    assert facts.linear_layers("lenet") == 3 and facts.feature_side("lightweight_resnet") == 8


def test_what_is_not_run_or_quick_or_shortened_is_not_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    folder = tmp_path / "task9" / "outputs"
    for run in (None, '{"scale": "quick"}', '{"scale": "full", "shortened": true}'):
        if run:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "x.json").write_text('{"a": 1}')
            (folder / "run.json").write_text(run)
        with pytest.raises(NotRun, match=r"python task9/main\.py --scale full"):
            read_values(["task9/outputs/x.json"], "a")
    (folder / "run.json").write_text('{"scale": "full", "device_type": "cpu"}')
    assert read_values(["task9/outputs/x.json"], "a").tolist() == [1]
    with pytest.raises(NotRun, match="--device cuda"):
        read_values(["task9/outputs/x.json"], "a", needs_gpu=True)


def test_a_short_run_is_shown_and_not_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    study = tmp_path / "project3_wrn" / "outputs_short" / "improvements"
    study.mkdir(parents=True)
    (study / "results.csv").write_text("config,seed,test_accuracy\na,0,70\na,1,72\n", encoding="utf-8")
    run = {"scale": "full", "shortened": True, "configs": {"baseline": {"model": "fast_small", "epochs": 3}}}
    cli.write_json(study / "run.json", run)
    files = ("project3_wrn/outputs/improvements/results.csv",)
    ensemble = {"members": [{"model": "fast_small", "epochs": 3}] * 2}
    assert describe_run(ensemble, 1) == ("fast_small, 3 epochs, 2 members", "fast_small，3 轮，2 个成员")
    values, what = read_short(short_files(files), "test_accuracy[config=a]")
    assert values.tolist() == [70, 72] and what == ("fast_small, 3 epochs, 2 seeds", "fast_small，3 轮，2 个种子")
    assert read_short(short_files(files), "test_accuracy[config=b]") is None  # older than this configuration
    verdict = judge(claim(value="71", file=files[0], field="test_accuracy[config=a]"), {})
    assert verdict.kind == "short run" and "71.00" in verdict.shown[0].text
    assert verdict.shown[0].source.link == "project3_wrn/outputs_short/improvements/results.csv"
    assert "improvements.py --scale full --device cuda" in verdict.why[0].en
    cli.write_json(study / "run.json", {**run, "scale": "quick"})
    assert judge(claim(value="71", file=files[0], field="test_accuracy[config=a]"), {}).kind == "not yet run"


def test_claims_name_the_command_that_writes_their_file():
    for file, command in {
        "task1_loss_curves/outputs/results.csv": "python task1_loss_curves/main.py --scale full",
        "task4_architectures/outputs/batch_size/results.csv": "python task4_architectures/batch_size.py --scale full",
        "task2_regularization/outputs/cost.json": "python benchmarks/step_cost.py",
        "project3_wrn/outputs/resnet18/metrics.json": "python project3_wrn/main.py --model resnet18 --scale full",
        "project3_wrn/outputs/ensemble": "python project3_wrn/ensemble.py --scale full",
        "project3_wrn/outputs/improvements/x.csv": "python project3_wrn/improvements.py --scale full --device cuda",
    }.items():
        assert command_for(file) == command
    network, task = "project3_wrn/outputs/resnet18/metrics.json", "task3_hparams/outputs/results.csv"
    assert command_for_verdict(network) == command_for(network) + " --seeds 3"  # one run has no interval
    assert command_for_verdict(task) == command_for(task)


def test_claims_of_another_shape_are_refused(tmp_path):
    (tmp_path / "claims.csv").write_text("id,claim\nA1,x\n", encoding="utf-8")
    with pytest.raises(UserError, match="other columns"):
        read_claims(tmp_path / "claims.csv")
