"""The metrics of section 3.3.2, and the statistics of the tables, each against an independent computation."""

import itertools
import time

import numpy as np
import pytest
import torch
from scipy import stats

from common import data, learners, metrics, sweep, tables
from common.models import MODELS, forward_flops
from common.support.translations import Text
from common.training import fit

VALUES = (50.1, 51.7, 49.4, 50.9, 50.2)


def test_roughness_is_the_mean_move_of_the_moving_average():
    """Of the moving average as the report draws it, a convolution, taken every 100 batches."""
    losses = np.random.default_rng(0).normal(1.5, 0.5, 1234).astype(np.float32)
    moving_average = np.convolve(losses.astype(float), np.full(100, 1 / 100), "valid")[::100]
    expected = np.mean([abs(after - before) for before, after in itertools.pairwise(moving_average)])
    assert metrics.roughness(losses) == pytest.approx(expected, rel=1e-6)


def test_roughness_of_known_curves():
    flat, fall = np.full(1000, 2.3), np.linspace(2.3, 1.3, 100_000)
    assert metrics.roughness(flat) == 0
    assert metrics.roughness(fall) == pytest.approx(1 / 1000, rel=1e-3)  # spread over 1000 windows
    jumping = np.repeat([1.0, 2.0] * 5, 100)
    assert metrics.roughness(jumping) == 1
    assert np.isnan(metrics.roughness(flat[:199]))


def test_epochs_to_reach():
    accuracies = np.array([30.0, 35.0, 34.0, 50.5])
    assert [metrics.epochs_to_reach(accuracies, target) for target in (30, 35, 50, 51)] == [1, 2, 4, np.inf]


def test_the_prediction_interval_is_that_of_scipy():
    low, high = tables.prediction_interval(VALUES)
    n, s = len(VALUES), np.std(VALUES, ddof=1)
    expected = stats.t.interval(0.95, n - 1, loc=np.mean(VALUES), scale=s * np.sqrt(1 + 1 / n))
    assert (low, high) == pytest.approx(expected, rel=1e-12)
    assert tables.prediction_half_width(VALUES) == pytest.approx((high - low) / 2)
    assert tables.prediction_half_width(VALUES) > tables.half_width(VALUES)
    assert tables.prediction_half_width([1.0]) is None
    assert tables.prediction_interval([1.0]) == (-np.inf, np.inf)


def test_one_more_value_lies_in_the_prediction_interval_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(50, 2, (4000, 6))
    inside = 0
    for *values, one_more in draws:
        low, high = tables.prediction_interval(values)
        inside += low <= one_more <= high
    assert inside / len(draws) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_whether_a_number_is_predicted():
    low, high = tables.prediction_interval(VALUES)
    assert tables.is_predicted(high - 0.01, VALUES) == tables.is_predicted(low + 0.01, VALUES) == "yes"
    assert tables.is_predicted(high + 0.01, VALUES) == tables.is_predicted(low - 0.01, VALUES) == "no"
    assert tables.is_predicted(10.0, np.array([10, 10, 10], np.float32)) == "yes"
    assert tables.is_predicted(10.1, [10, 10, 10]) == "no"
    assert tables.is_predicted(None, VALUES) == tables.is_predicted(50, [50]) == tables.DASH
    cells = [tables.predicted_cell(number, [9, 10, 11]) for number in (10, 30, None)]
    assert cells == [("yes", "是"), ("no", "否"), tables.DASH]


def test_numbers_have_no_negative_zero_and_no_deviation_of_zero():
    assert [tables.signed(value) for value in (-0.001, 0.004, 1.006, -2)] == ["+0.00", "+0.00", "+1.01", "-2.00"]
    assert [tables.fixed(value, 1) for value in (-0.04, -0.06, 9.96)] == ["0.0", "-0.1", "10.0"]
    assert tables.mean_std([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert tables.mean_std([2.3026, 2.3027], 3) == "2.303" and tables.mean_std([-1e-9, 1e-9]) == "0.00"
    assert tables.mean_std([9, 9], 0) == "9" and tables.mean_std([50.678]) == "50.68"
    assert tables.mean_std([np.nan, 1.0]).startswith("nan") and tables.mean_std([1234.5, 1236.5], 1) == "1,235.5 ± 1.4"


def test_sentences_are_joined_in_each_language():
    assert [tables.listed(names) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert tables.list_texts([Text("a", "甲"), Text("b", "乙"), Text("c", "丙")]) == ("a, b and c", "甲、乙、丙")
    assert tables.paragraph(Text("A.", "甲。"), "", Text("B.", "乙。")) == ("A. B.", "甲。乙。")
    assert tables.spread_note(1) == ("All values are those of one seed.", "所有数值均来自同一个种子。")
    assert "5 seeds" in tables.spread_note(5).en and "5 个种子" in tables.spread_note(5).zh


def test_a_page_is_written_in_both_languages(tmp_path):
    path = tmp_path / "page.md"
    rows = [{"configuration": tables.named("low_lr"), "test accuracy, %": "40.21", "seen": Text("yes", "是")}]
    shown = tables.figure("a.png", "Test loss", Text("It falls.", "它下降。"))
    tables.write_markdown(path, Text("Title", "标题"), [shown, "", rows], "quick")
    assert path.read_text(encoding="utf-8").split("\n\n") == [
        "# Title",
        tables.QUICK.en,
        "![Test loss](a.png)",
        "*It falls.*",
        "| configuration | test accuracy, % | seen |\n| --- | --- | --- |\n"
        "| low learning rate (`low_lr`) | 40.21 | yes |\n",
    ]
    assert path.with_suffix(".zh.md").read_text(encoding="utf-8").split("\n\n") == [
        "# 标题",
        tables.QUICK.zh,
        "![测试损失](a.zh.png)",
        "*它下降。*",
        "| 配置 | 测试准确率，% | seen |\n| --- | --- | --- |\n| 低学习率（`low_lr`） | 40.21 | 是 |\n",
    ]


def test_measured_columns_stand_in_the_rows_of_their_runs(tmp_path):
    history = {
        "test_accuracy": np.array([10.0]),
        "epoch_losses": np.array([2.0]),
        "test_loss": np.array([2.0]),
        "seconds": np.array([1.0]),
        "diverged_step": np.array(0),
    }
    histories = {("a", seed): history for seed in range(3)} | {("b", 0): history}
    measured = {"epochs_to_50": {("a", 0): 3.0, ("a", 1): np.inf, ("a", 2): 4.0}, "seconds_alone": {("b", 0): 123.44}}
    tables.write_results(tmp_path, histories, "full", measured)
    rows = tables.read_csv(tmp_path / "results.csv")
    assert [row["epochs_to_50"] for row in rows] == ["3", "inf", "4", ""]
    assert [row["seconds_alone"] for row in rows] == ["", "", "", "123.4"]
    summary = tables.read_csv(tmp_path / "summary.csv")
    assert [row["epochs_to_50_median"] for row in summary] == ["4", ""]
    assert [row["seconds_alone_median"] for row in summary] == ["", "123.4"]


# --- jobs ---


def config(model, **values):
    return {"model": model, "epochs": 5, "batch_size": 4, **values}


def test_jobs_have_one_seed_or_all():
    configs = {"a": config("lenet", lr=1), "b": config("lenet", lr=2), "c": config("lightweight_resnet", lr=1)}
    jobs = sweep.make_jobs(configs, [0, 1])
    assert [(list(job.configs), job.seeds) for job in jobs] == [
        (["c"], [0]),
        (["c"], [1]),
        (["a", "b"], [0]),
        (["a", "b"], [1]),
    ]
    together = sweep.make_jobs(configs, [0, 1], seeds_together=True)
    assert [(list(job.configs), job.seeds) for job in together] == [(["c"], [0]), (["c"], [1]), (["a", "b"], [0, 1])]
    alone = sweep.make_jobs(configs, [0], stacked=False, seeds_together=True)
    assert sorted(list(job.configs) for job in alone) == [["a"], ["b"], ["c"]]


def test_a_large_network_is_not_stacked_even_without_batch_norm():
    assert sweep.stackable("lenet")
    assert not sweep.stackable("lightweight_resnet_no_batch_norm")
    assert forward_flops(MODELS["lightweight_resnet_no_batch_norm"]()) > sweep.STACKED_FLOPS


def test_each_member_has_its_share_of_a_stacks_seconds():
    job = sweep.Job({"a": config("lenet", lr=0.1), "b": config("lenet", lr=0.2)}, [7])
    history = {"seconds": np.array([8.0, 6.0]), "lr": np.ones(2), "batch_losses": np.ones((400, 1, 2))}
    histories = sweep.member_histories(history, job)
    assert [histories[name, 7]["seconds"].tolist() for name in "ab"] == [[4, 3]] * 2
    assert [float(histories[name, 7]["roughness"]) for name in "ab"] == [0, 0]
    assert histories["b", 7]["lr"].tolist() == [0.2, 0.2]


def test_the_seconds_of_a_stack_are_without_compiling(monkeypatch):
    """A compiler that takes a second in the first step."""
    delay, calls = 1.0, []

    def compile_slowly(function, **_):
        def update(*arguments):
            if not calls:
                time.sleep(delay)
            calls.append(1)
            return function(*arguments)

        return update

    monkeypatch.setattr(learners, "can_compile", lambda device: True)
    monkeypatch.setattr(torch, "compile", compile_slowly)
    monkeypatch.setitem(sweep.COMPILE_FROM, "cpu", 0)
    settings = config("lenet", lr=0.001, momentum=0.9, weight_decay=0.01, dropout=0.5) | {"epochs": 1}
    train_set = data.load("quick")[0][:8]
    learner, batches = sweep.make_learner(sweep.Job({"a": settings}, [0]), train_set, torch.device("cpu"), "fp32")
    history = fit(learner, batches, 1)
    assert len(calls) == 3
    assert history["seconds"].sum() < delay <= history["compile_seconds"].sum() < 2 * delay
