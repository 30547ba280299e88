import functools
import itertools
import math
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common import cli, data, evaluation, training
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS
from common.support import checkpoints, files, progress
from common.support.checkpoints import Checkpoint
from common.support.errors import UserError
from tests.conftest import ROOT, run_python


def seeded(seed, **numbers):
    torch.manual_seed(seed)
    return MODELS["lenet"](**numbers)


def batches(sample, seed=0, batch_size=20, count=100):
    return data.Batches(sample[0][:count], batch_size, seed=seed, stats=data.TUTORIAL_STATS)


def network(**numbers):
    model = seeded(0, dropout=0.0)
    return Learner(model, torch.optim.SGD(model.parameters(), **{"lr": 0.01, "momentum": 0.9, **numbers}))


# --- the loop ---


def test_history_defines_batch_indices_and_epoch_losses(sample):
    history = training.fit(network(), batches(sample, batch_size=30), 3)  # 4 batches: 30, 30, 30, 10
    assert history["batch_indices"].tolist() == list(range(1, 13))
    assert (
        history["batch_indices"][4 + 3 - 1] == 4 + 3
    )  # the third batch of epoch 2: batches per epoch + 3 (section 3.1.1)
    losses = history["batch_losses"].reshape(3, 4)
    assert np.allclose(history["epoch_losses"], (losses * [30, 30, 30, 10]).sum(1) / 100, rtol=1e-6)
    assert history["lr"].tolist() == [1, 1, 1]
    assert history["diverged_step"] == 0


def test_progress_is_reported_within_an_epoch(sample, capsys, monkeypatch):
    """Every step counts once. Resumed epochs, and those left out by early stopping, do not count as speed."""
    reported, clock = [], [0.0]
    steps = training.fit(
        network(),
        batches(sample, batch_size=30),
        2,
        on_step=reported.append,
        on_epoch=lambda epoch, _: reported.append(epoch),
    )
    assert reported == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2] and len(steps["batch_losses"]) == len(reported)

    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress(9, "lenet") as bar:
        before = progress.epoch_reporter(bar.advance, "seed 0", resumed=True)
        before(2, "seed 0, epoch 2/3")
        before(3, skipped=True)
        report_progress = progress.epoch_reporter(bar.advance, "seed 1")
        for epochs in reported:
            clock[0] += 8.0
            report_progress(epochs, f"seed 1, epoch {epochs}/3" if epochs == int(epochs) else "")
        report_progress(3, skipped=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "lenet: 2/9 epoch, 0 s, done before; seed 0, epoch 2/3",
        "lenet: 3/9 epoch, 0 s, done before; seed 0, epoch 2/3",
        "lenet: 3.5/9 epoch, 16 s, about 176 s to go; seed 1",
        "lenet: 4/9 epoch, 32 s, about 160 s to go; seed 1, epoch 1/3",
        "lenet: 4.5/9 epoch, 48 s, about 144 s to go; seed 1, epoch 1/3",
        "lenet: 5/9 epoch, 64 s, about 128 s to go; seed 1, epoch 2/3",
        "lenet: 6/9 epoch, 64 s, about 96 s to go; seed 1, epoch 2/3",
    ]


def torchs_factors(name, epochs, *numbers):
    """Return the learning rate of each epoch by one of torch's schedulers, beginning with 1."""
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, factors = getattr(torch.optim.lr_scheduler, name)(sgd, *numbers), []
    for _ in range(epochs):
        factors.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return factors


def test_the_step_schedules_are_torchs():
    """There is one value per epoch, whatever the step of the epoch."""
    for epochs, size, milestones in ((100, 30, [30, 60, 80]), (10, 3, [3, 6, 8]), (3, 1, [1, 2, 2])):
        for schedule, theirs in (
            (training.step_decay, torchs_factors("StepLR", epochs, size, 0.1)),
            (training.multistep_decay, torchs_factors("MultiStepLR", epochs, milestones, 0.2)),
        ):
            for part in (0.0, 0.4, 0.999):
                ours = [schedule(epoch + part, epochs) for epoch in range(epochs)]
                assert ours == pytest.approx(theirs)
    assert [training.warm(training.step_decay, 2)(epoch, 12) for epoch in (0, 1, 2, 4, 5)] == pytest.approx(
        [0, 0.5, 1, 1, 0.1]
    )


def test_the_warm_cosine_rises_then_falls():
    """Epochs done -> factor: linear up to the end of the warm-up, where the cosine begins."""
    schedule = training.warm(training.cosine, 5)
    assert [schedule(epoch, 25) for epoch in (0, 2.5, 5, 15)] == pytest.approx([0, 0.5, 1, 0.5])
    assert all(schedule(5 + epoch, 25) == training.cosine(epoch, 20) for epoch in range(20))


def test_weighted_mean_equals_the_whole_batch():
    logits, labels = torch.randn(10, 10), torch.arange(10)
    parts = [F.cross_entropy(*part) for part in zip(logits.split(4), labels.split(4))]
    assert abs(training.weighted_mean(torch.stack(parts), [4, 4, 2]) - F.cross_entropy(logits, labels)) < 1e-6


def test_fit_is_a_plain_loop(sample):
    """Its weights equal those of a plain loop to the bit."""
    learner, model = network(weight_decay=0.01), seeded(0, dropout=0.0)
    history = training.fit(learner, batches(sample), 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    mine, losses = batches(sample), []
    for _ in range(2):
        for x, y in mine:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert history["batch_losses"].tolist() == losses
    for ours, theirs in zip(learner.model.parameters(), model.parameters()):
        assert torch.equal(ours, theirs)


def test_evaluation_is_plain_cross_entropy_whatever_the_smoothing(sample):
    def measured(label_smoothing):
        smooth = functools.partial(F.cross_entropy, label_smoothing=label_smoothing)
        model = seeded(0)
        learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.1), loss=smooth)
        logits = evaluation.predict(learner.logits, sample[1], data.TUTORIAL_STATS)
        return evaluation.cross_entropy(logits, sample[1].labels), F.cross_entropy(logits, sample[1].labels)

    (plain, reference), (smoothed, _) = measured(0.0), measured(0.1)
    assert plain == smoothed and torch.isclose(plain, reference)


def test_evaluation_leaves_the_network_training(sample):
    learner = network()
    evaluation.predict(learner.logits, sample[1], data.TUTORIAL_STATS)
    assert learner.model.training


def test_losses_stay_on_the_device_within_an_epoch(sample, monkeypatch):
    """No step reads a tensor's value."""
    learner, calls = network(), []
    monkeypatch.setattr(torch.Tensor, "item", lambda self: calls.append(1) or self.tolist())
    for x, y in batches(sample):
        learner.step(x, y)
    assert not calls


# --- schedules and early stopping ---


def test_cosine_of_the_report():
    rates = [0.1 * training.cosine(epoch, 100) for epoch in range(100)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100, eta_min=0)
    for rate in rates:
        assert math.isclose(rate, schedule.get_last_lr()[0], rel_tol=1e-9)
        optimizer.step()
        schedule.step()
    assert rates[0] == 0.1 and round(rates[-1] * 1e5, 3) == 2.467 and rates[50] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("accuracies", "min_delta", "stops_after", "best"),
    [
        ([0.5, 0.6, 0.59, 0.58, 0.57, 0.7], 0.0, 5, 2),
        ([0.5, 0.6, 0.6005, 0.601, 0.6009, 0.6], 0.001, 5, 4),  # 0.601 is not a rise of more than 0.001
        ([math.nan, 0.5, math.nan, math.nan, math.nan, 0.9], 0.0, 5, 2),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0.0, None, 6),
    ],
)
@pytest.mark.parametrize("killed_after", [None, 3])
def test_early_stopping_table(accuracies, min_delta, stops_after, best, killed_after):
    watch, stopped = training.EarlyStopping(patience=3, min_delta=min_delta), None
    for epoch, accuracy in enumerate(accuracies):
        watch.update(epoch, accuracy)
        if watch.stop:
            stopped = epoch + 1
            break
        if epoch + 1 == killed_after:
            again = training.EarlyStopping(patience=3, min_delta=min_delta)
            vars(again).update(vars(watch))
            watch = again
    assert (stopped, watch.best_epoch + 1) == (stops_after, best)


def test_stopped_after_is_the_rule_written_as_a_loop():
    """No accuracy of the last `patience` epochs lies more than min_delta over what was the reference before them."""
    generator = np.random.default_rng(0)
    ends = set()
    for _ in range(300):
        epochs, patience = generator.integers(1, 40), generator.integers(1, 8)
        # whole images of 5,000, so that rises of just min_delta occur
        curve = np.cumsum(generator.integers(-8, 10, epochs)).astype(np.float32) * 0.02 + 50
        reference, since, expected = -math.inf, 0, None
        for epoch, accuracy in enumerate(curve.astype(float) / 100, start=1):
            rose = accuracy > reference + 0.001
            reference, since = (accuracy, epoch) if rose else (reference, since)
            if epoch - since == patience:
                expected = epoch
                break
        assert training.stopped_after(curve, patience, 0.001) == expected
        ends.add(expected)
        watch = training.EarlyStopping(0, 0.001)
        for epoch, accuracy in enumerate(curve):
            watch.update(epoch, float(accuracy))
            assert not watch.stop
        assert watch.best_epoch == curve.argmax()
    assert None in ends and len(ends) > 10
    # the report's rule: the first epoch sets the mark, then 15 do not pass it
    assert training.stopped_after([90.0] * 16) == 16
    assert training.stopped_after([90.0] * 15) is None


@pytest.mark.parametrize("values", [[30.0, 60.0, 50.0, 40.0, 45.0], [30.0, 60.0, 50.0, 60.0, 90.0], [math.nan] * 5])
def test_without_patience_the_best_epoch_is_kept_and_nothing_stops(sample, values):
    learner, accuracies, seen = network(), iter(values), []

    def evaluate():
        seen.append(learner.weights())
        return {"val_accuracy": torch.tensor(next(accuracies))}

    history = training.fit(
        learner, batches(sample), 5, evaluate=evaluate, early_stopping=training.EarlyStopping(patience=0)
    )
    best = 4 if math.isnan(values[0]) else int(np.argmax(values))
    assert len(history["epoch_losses"]) == 5 and history["kept_epoch"] == best + 1
    for name, value in learner.weights().items():
        assert torch.equal(value, seen[best][name])


def test_early_stopping_puts_the_best_weights_back(sample):
    learner, values, seen = network(), iter([30.0, 60.0, 50.0, 40.0, 90.0]), []

    def evaluate():
        seen.append(learner.weights())
        return {"val_accuracy": torch.tensor(next(values))}

    history = training.fit(
        learner, batches(sample), 5, evaluate=evaluate, early_stopping=training.EarlyStopping(patience=2)
    )
    assert len(history["epoch_losses"]) == 4 and history["kept_epoch"] == 2
    for name, value in learner.weights().items():
        assert torch.equal(value, seen[1][name])
        assert not torch.equal(value, seen[3][name])


# --- divergence ---


def test_a_loss_that_is_not_finite_is_recorded_and_training_stops(sample, tmp_path):
    path = tmp_path / "run.pt"
    history = training.fit(network(lr=1e30), batches(sample), 4, checkpoint=Checkpoint(path))
    assert not path.exists()  # there is no good epoch to resume from
    first = history["diverged_step"]
    assert np.isfinite(history["batch_losses"][: first - 1]).all() and not np.isfinite(
        history["batch_losses"][first - 1]
    )
    assert len(history["epoch_losses"]) < 4


# --- stacks ---

CHANGES = {"lr": [0.01, 0.03, 0.001], "momentum": [0.9, 0.0, 0.5], "weight_decay": [0.0, 0.01, 0.1]}


@pytest.mark.parametrize("compiled", [False, True])
def test_each_member_of_a_stack_trains_as_it_would_alone(sample, compiled):
    models = [[seeded(seed, dropout=0.0) for _ in range(3)] for seed in range(2)]
    stack = StackedLearner(models, **CHANGES, batch_size=20, compiled=compiled)
    side_by_side = StackedBatches([batches(sample, seed, 20, 90) for seed in range(2)])  # ends in a batch of 10
    history = training.fit(stack, side_by_side, 4)
    for seed in range(2):
        for run in range(3):
            model = seeded(seed, dropout=0.0)
            optimizer = torch.optim.SGD(model.parameters(), **{name: values[run] for name, values in CHANGES.items()})
            alone = training.fit(Learner(model, optimizer), batches(sample, seed, 20, 90), 4)
            assert np.allclose(history["batch_losses"][:, seed, run], alone["batch_losses"], atol=1e-5)
            assert np.allclose(history["weight_norm"][:, seed, run], alone["weight_norm"], rtol=1e-6)
            for name, value in model.named_parameters():
                assert torch.allclose(stack.parameters[name][seed, run], value, atol=1e-5), name


def test_a_compiled_network_trains_as_an_eager_one(sample):
    histories = []
    for compiled in (False, True):
        model = MODELS["lenet"](dropout=0.0)
        model.load_state_dict(seeded(0, dropout=0.0).state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        learner = Learner(model, optimizer, compiled=compiled)
        if compiled:
            before, drawn = learner.weights(), torch.get_rng_state()
            learner._compile(*next(iter(batches(sample, 0, 20, 70))))
            assert learner._compile_seconds > 0
            assert all(torch.equal(value, before[name]) for name, value in learner.weights().items())
            assert torch.equal(torch.get_rng_state(), drawn)
            learner = Learner(model, optimizer, compiled=True)
        started = time.perf_counter()
        histories.append(training.fit(learner, batches(sample, 0, 20, 90), 3))  # ends in a batch of 10
        spent = time.perf_counter() - started
        assert not any(name.startswith("_orig_mod") for name in learner.weights())
    for field in ("batch_losses", "weight_norm", "train_accuracy"):
        assert np.allclose(histories[0][field], histories[1][field], atol=1e-5), field
    compiling = histories[1]["compile_seconds"]
    assert compiling[0] > 0 and (compiling[1:] == 0).all() and "compile_seconds" not in histories[0]
    assert histories[1]["seconds"].sum() + compiling[0] <= spent  # counted once


def test_compiling_is_not_part_of_a_stacks_seconds(sample, monkeypatch):
    """It changes nothing of the training either: with a compiler that does nothing, all losses are the same."""
    histories, now = [], [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slow_compiler(update, **_):
        def compiled(*arguments):
            now[0] += 60 if len(calls) == 0 else 1
            calls.append(1)
            return update(*arguments)

        calls = []
        return compiled

    monkeypatch.setattr(torch, "compile", slow_compiler)
    for compiled in (False, True):
        stack = StackedLearner(
            [[seeded(0)]], lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20, compiled=compiled
        )
        torch.manual_seed(7)
        histories.append(training.fit(stack, StackedBatches([batches(sample, count=90)]), 2))
    assert histories[1]["compile_seconds"].tolist() == [60, 0] and histories[0]["compile_seconds"].tolist() == [0, 0]
    assert histories[1]["seconds"].tolist() == [4, 4] and histories[0]["seconds"].tolist() == [0, 0]
    assert np.array_equal(histories[0]["batch_losses"], histories[1]["batch_losses"])


def test_a_step_that_cannot_be_compiled_is_taken_anyway(sample, capsys, monkeypatch):
    stack = StackedLearner([[seeded(0, dropout=0.0)]], lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20)
    plain = training.fit(stack, StackedBatches([batches(sample)]), 1)

    def broken(*_):
        raise RuntimeError("no header\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    stack = StackedLearner(
        [[seeded(0, dropout=0.0)]], lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20, compiled=True
    )
    history = training.fit(stack, StackedBatches([batches(sample)]), 1)
    assert np.array_equal(history["batch_losses"], plain["batch_losses"])
    assert capsys.readouterr().err.splitlines() == ["not compiled, so slower: no header"]


def test_a_network_that_cannot_be_compiled_is_trained_anyway(sample, capsys, monkeypatch):
    model = seeded(0, dropout=0.0)
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), compiled=True)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: 1 / 0)
    history = training.fit(learner, batches(sample), 2)
    assert capsys.readouterr().err.splitlines() == ["not compiled, so slower: division by zero"]
    assert history["compile_seconds"].tolist() == [0, 0]
    assert np.array_equal(history["batch_losses"], training.fit(network(), batches(sample), 2)["batch_losses"])


def test_a_stack_of_which_all_members_diverged_is_a_result(sample, tmp_path):
    """It stops after that epoch, which is written: for the next start the training is finished."""
    path = tmp_path / "run.pt"

    def fit():
        stack = StackedLearner(
            [[seeded(0)] * 2], lr=[1e30] * 2, momentum=[0.9] * 2, weight_decay=[0.0] * 2, batch_size=20
        )
        stack.step = stack.step if not path.exists() else None  # a call would raise
        return training.fit(stack, StackedBatches([batches(sample)]), 4, checkpoint=Checkpoint(path))

    first, again = fit(), fit()
    assert len(first["epoch_losses"]) == len(again["epoch_losses"]) == 1 and (first["diverged_step"] > 0).all()


def test_a_diverged_member_leaves_its_neighbours_alone(sample):
    def train(lrs):
        stack = StackedLearner(
            [[seeded(0) for _ in lrs]], lr=lrs, momentum=[0.9] * len(lrs), weight_decay=[0.0] * len(lrs), batch_size=20
        )
        torch.manual_seed(7)
        return training.fit(stack, StackedBatches([batches(sample)]), 2)

    both, alone = train([1e30, 0.01]), train([0.01])
    assert both["diverged_step"][0, 0] > 0 and both["diverged_step"][0, 1] == 0
    assert np.allclose(both["batch_losses"][:, 0, 1], alone["batch_losses"][:, 0, 0], atol=1e-6)


def test_runs_of_a_seed_share_their_dropout_noise(sample):
    stack = StackedLearner(
        [[seeded(0), seeded(0)]], lr=[0.01] * 2, momentum=[0.9] * 2, weight_decay=[0.0] * 2, batch_size=20
    )
    losses = training.fit(stack, StackedBatches([batches(sample)]), 2)["batch_losses"]
    assert np.allclose(losses[:, 0, 0], losses[:, 0, 1], atol=1e-6)
    two = StackedLearner([[seeded(0)], [seeded(0)]], lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20)
    losses = training.fit(two, StackedBatches([batches(sample), batches(sample)]), 2)["batch_losses"]
    assert not np.allclose(losses[:, 0, 0], losses[:, 1, 0], atol=1e-4)


# --- checkpoints ---


@pytest.fixture
def every_step(monkeypatch):
    """Write after every step, and so after every epoch, however short."""
    monkeypatch.setattr(checkpoints, "INTERVAL", 0)


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose only value is the time in seconds."""
    now = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    return now


def written_places(monkeypatch):
    """Return a list to which (epochs done, steps after them) of every checkpoint is added when it is written."""
    written, real = [], Checkpoint.save

    def save(self, state, *training):
        written.append((state["epoch"], len(state["partial"]["losses"]) if state["partial"] else 0))
        real(self, state, *training)

    monkeypatch.setattr(Checkpoint, "save", save)
    return written


def each_step(learner, act):
    """Make `act(number of the step, from 1)` come before each step of a learner."""
    step, numbers = learner.step, itertools.count(1)

    def acting(x, y):
        act(next(numbers))
        return step(x, y)

    learner.step = acting
    return learner


@pytest.mark.parametrize(
    ("step_seconds", "written"),
    [
        (30.0, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0)]),
        (10.0, [(0, 3), (1, 1), (1, 4), (2, 0)]),
        (6.0, [(1, 0), (2, 0)]),
        (0.1, [(2, 0)]),
    ],
)
def test_a_checkpoint_is_written_on_a_clock_and_at_the_end(sample, tmp_path, monkeypatch, clock, step_seconds, written):
    """An epoch has 5 steps."""

    def pass_time(number):
        clock[0] += step_seconds

    seen = written_places(monkeypatch)
    learner = each_step(network(), pass_time)
    training.fit(learner, batches(sample), 2, checkpoint=Checkpoint(tmp_path / "run.pt"))
    assert seen == written


def test_early_stopping_writes_the_last_epoch(sample, tmp_path, monkeypatch, clock):
    accuracies = iter([50.0, 60.0, 50.0, 40.0, 90.0])
    seen = written_places(monkeypatch)
    training.fit(
        network(),
        batches(sample),
        5,
        evaluate=lambda: {"val_accuracy": torch.tensor(next(accuracies))},
        early_stopping=training.EarlyStopping(patience=2),
        checkpoint=Checkpoint(tmp_path / "stopped.pt"),
    )
    assert seen == [(4, 0)]
    assert checkpoints.load(tmp_path / "stopped.pt", "", "")["early_stopping"]["waited"] == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_an_interruption_between_two_checkpoints_leaves_the_older_one(sample, tmp_path, monkeypatch, clock, stop):
    """It comes in the middle of epoch 4, when weights and random numbers are already others."""
    path = tmp_path / "run.pt"
    straight = network()
    losses = training.fit(straight, batches(sample), 5)["batch_losses"]

    def interrupt(number):
        clock[0] += 30 if number in (6, 16) else 0
        if number == 3 * 5 + 3:
            raise stop

    seen = written_places(monkeypatch)
    with pytest.raises(stop):
        training.fit(each_step(network(), interrupt), batches(sample), 5, checkpoint=Checkpoint(path))
    assert seen == [(1, 1), (3, 1)]
    learner = network()
    resumed = training.fit(learner, batches(sample), 5, checkpoint=Checkpoint(path))
    assert np.array_equal(resumed["batch_losses"], losses)
    assert all(torch.equal(value, learner.weights()[name]) for name, value in straight.weights().items())


def test_a_training_on_a_cpu_never_asks_for_the_gpu(sample, tmp_path, monkeypatch):
    """Neither to save nor to resume: a CUDA context takes hundreds of megabytes of a card that may be full."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: 1 / 0)
    for epochs in (1, 2):
        training.fit(network(), batches(sample), epochs, checkpoint=Checkpoint(tmp_path / "run.pt"))
    assert checkpoints.load(tmp_path / "run.pt", "", "")["cuda_rng"] is None


def test_killed_and_resumed_is_never_stopped(tmp_path):
    """Killed within an epoch of every learner, and in a short last one, the result is the same to the bit."""
    child = ROOT / "tests" / "scripts" / "killed_run.py"
    straight = run_python(child, tmp_path / "straight", 0)
    assert straight.returncode == 0, straight.stderr
    # a start after a kill has the rest of that learner's 42 steps, and then the next one's
    for kill_at in (20, 22 + 32, 10 + 20, 22 + 20, 12):
        assert run_python(child, tmp_path / "killed", kill_at).returncode == 9
    resumed = run_python(child, tmp_path / "killed", 0)
    assert resumed.stdout == straight.stdout != ""


@pytest.fixture
def checkpoint(sample, tmp_path):
    path = tmp_path / "run.pt"
    training.fit(network(), batches(sample), 1, checkpoint=Checkpoint(path, {"lr": 0.01}))
    return path


def test_a_finished_run_is_not_trained_again(sample, checkpoint):
    learner = network()
    learner.step = None  # would raise if it were called
    history = training.fit(learner, batches(sample), 1, checkpoint=Checkpoint(checkpoint, {"lr": 0.01}))
    assert len(history["batch_losses"]) == 5


def test_checkpoints_of_other_runs_are_refused(sample, checkpoint):
    with pytest.raises(UserError, match=r"lr was 0\.01, is 0\.1"):
        training.fit(network(), batches(sample), 2, checkpoint=Checkpoint(checkpoint, {"lr": 0.1}))
    model = MODELS["lightweight_resnet"]()
    other = Learner(model, torch.optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(UserError, match="another network"):
        training.fit(other, batches(sample), 2, checkpoint=Checkpoint(checkpoint, {"lr": 0.01}))


def test_all_seeds_of_a_stack_are_resumed(sample, tmp_path):
    def fit(epochs):
        stack = StackedLearner([[seeded(0)], [seeded(1)]], lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20)
        side_by_side = StackedBatches([batches(sample), batches(sample, 1)])
        return training.fit(stack, side_by_side, epochs, checkpoint=Checkpoint(tmp_path / "run.pt"))

    fit(1)
    document = checkpoints.load(tmp_path / "run.pt", "checkpoint", "")
    document["batches"].pop()
    torch.save(document, tmp_path / "run.pt")
    with pytest.raises(UserError, match="--fresh"):
        fit(2)


# --- two generations ---


def held(folder):
    """Hold an output folder as a start that keeps its checkpoints does."""
    return cli.output_folder(SimpleNamespace(out=folder, fresh=False, redraw=False, keep_checkpoints=True))


@pytest.mark.parametrize("fault", ["flipped", "cut", "empty", "missing", "crafted"])
def test_training_resumes_from_the_previous_checkpoint(sample, tmp_path, capsys, fault, every_step):
    """It prints one line, and the result is the same to the bit as if nothing had been damaged."""
    path, previous = tmp_path / "run.pt", tmp_path / "run.previous.pt"

    def fit(epochs, checkpoint=None):
        learner = network()
        checkpoint = checkpoint and Checkpoint(checkpoint, {"lr": 0.01})
        history = training.fit(learner, batches(sample), epochs, checkpoint=checkpoint)
        return history["batch_losses"], learner.weights()

    losses, weights = fit(4)
    fit(3, path)
    assert checkpoints.load(path, "", "")["epoch"] == 3 and checkpoints.load(previous, "", "")["epoch"] == 2
    whole, good = path.read_bytes(), previous.read_bytes()
    if fault == "flipped":
        path.write_bytes(whole[:3000] + bytes([whole[3000] ^ 4]) + whole[3001:])
    elif fault == "crafted":
        torch.save({"epoch": 3}, path)
    elif fault == "missing":
        path.unlink()  # a kill between the renames leaves it so
    else:
        path.write_bytes(whole[:5000] if fault == "cut" else b"")
    capsys.readouterr()
    if fault != "crafted":  # a stop in the epoch that follows loses nothing either
        learner = network()
        learner.step = lambda x, y: 1 / 0
        with pytest.raises(ZeroDivisionError):
            training.fit(learner, batches(sample), 4, checkpoint=Checkpoint(path, {"lr": 0.01}))
        assert previous.read_bytes() == good
        capsys.readouterr()
    resumed = fit(4, path)
    (line,) = capsys.readouterr().out.splitlines()
    assert "run.pt" in line and line.endswith("; resuming from run.previous.pt")
    assert np.array_equal(resumed[0], losses)
    assert all(torch.equal(value, resumed[1][name]) for name, value in weights.items())
    assert checkpoints.load(path, "", "")["epoch"] == 4 and checkpoints.load(previous, "", "")["epoch"] in (2, 3)


def test_a_damaged_checkpoint_does_not_become_the_previous_one(sample, tmp_path, every_step):
    path, previous = tmp_path / "run.pt", tmp_path / "run.previous.pt"
    training.fit(network(), batches(sample), 2, checkpoint=Checkpoint(path))
    good = previous.read_bytes()
    path.write_bytes(path.read_bytes()[:5000])
    training.fit(network(), batches(sample), 2, checkpoint=Checkpoint(path))
    assert previous.read_bytes() == good and checkpoints.load(path, "", "")["epoch"] == 2


def test_both_generations_damaged_is_one_line(sample, tmp_path, every_step):
    path = tmp_path / "run.pt"
    training.fit(network(), batches(sample), 2, checkpoint=Checkpoint(path))
    for damaged in (path, checkpoints.previous_path(path)):
        damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"run\.previous\.pt is not a valid checkpoint .*; start over with --fresh"):
        training.fit(network(), batches(sample), 3, checkpoint=Checkpoint(path))


def test_a_kill_between_the_renames_leaves_the_previous_one(sample, tmp_path, monkeypatch, every_step):
    """In that moment only there is no newest checkpoint. The unfinished file is not one; the next start removes it."""
    path, renames, real = tmp_path / "checkpoints" / "run.pt", [], os.replace

    def killed(source, target):
        renames.append(target)
        if len(renames) >= 5:  # 1: run.pt after a step; 2 and 3: after the second; 4 and 5: after the third
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(os, "unlink", lambda path: None)  # SIGKILL would leave no time for it
    with pytest.raises(KeyboardInterrupt):
        training.fit(network(), batches(sample), 4, checkpoint=Checkpoint(path))
    monkeypatch.undo()
    *unfinished, previous = sorted(path.parent.iterdir())
    assert previous == checkpoints.previous_path(path)
    assert len(checkpoints.load(previous, "", "")["partial"]["losses"]) == 2
    assert unfinished and all(map(files.is_temporary, unfinished)) and checkpoints.exists(path)
    with held(tmp_path):
        assert sorted(name.name for name in path.parent.iterdir()) == ["lock", "run.previous.pt"]
        history = training.fit(network(), batches(sample), 4, checkpoint=Checkpoint(path))
    assert np.array_equal(history["batch_losses"], training.fit(network(), batches(sample), 4)["batch_losses"])
    checkpoints.discard_all(path.parent)
    assert [name.name for name in path.parent.iterdir()] == ["lock"]


def test_only_what_a_kill_left_is_removed(tmp_path):
    keep = [
        ".gitignore",
        "run.pt",
        ".hidden.pt",
        "a.png",
        ".a.png.abcd1234.md",
        "checkpoints/runs/a.pt",
        "sub/.a.pt.abcd1234.pt",
    ]
    stale = [".a.png.abcd1234.png", "checkpoints/.0.pt.ab_d1234.pt", "checkpoints/runs/.l2_0.1-0.pt.abcd1234.pt"]
    stale += ["runs/.good-0.npz.abcd1234.npz", ".run.json.abcd1234.json"]
    for name in (*keep, *stale):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with files.atomic(tmp_path / "new.png") as temporary:
        assert files.is_temporary(temporary)
    with held(tmp_path):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*keep, "checkpoints/lock", "new.png"}
    (tmp_path / "checkpoints" / "folder.pt").mkdir()
    checkpoints.discard_all(tmp_path / "checkpoints")
    assert {path.name for path in (tmp_path / "checkpoints").rglob("*")} == {"lock", "folder.pt", "runs"}


def test_git_ignores_what_a_kill_leaves_and_the_logs(tmp_path):
    with files.atomic(tmp_path / "loss_history.npz") as temporary:
        ignored = [temporary.name, "log.csv", "failed/baseline-0.log"]
    paths = [f"task1_loss_curves/outputs/{name}" for name in (*ignored, "results.csv", "loss_history.npz")]
    process = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True)
    if process.returncode == 128:
        pytest.skip("not a git checkout")
    assert process.stdout.splitlines() == paths[: len(ignored)]


def test_a_lock_is_held_by_one_and_dropped_by_the_dead(tmp_path):
    path = tmp_path / "checkpoints" / "lock"
    script = "import sys, time; from pathlib import Path; from common.support.files import locked\n"
    script += "with locked(Path(sys.argv[1]), wait=False): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", script, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="checkpoints: busy; wait"), files.locked(path, wait=False, busy="busy"):
        pass
    holder.kill()
    holder.communicate()
    with files.locked(path, wait=False), pytest.raises(UserError), files.locked(path, wait=False):
        pass
    assert path.exists()


@pytest.mark.parametrize(
    "name", [".bashrc.original", ".env.settings", ".gitignore", ".results.csv", "run.pt", ".lock.abcdefgh"]
)
def test_a_dotfile_of_the_user_is_not_stale(tmp_path, name):
    (tmp_path / name).touch()
    files.remove_stale(tmp_path)
    assert (tmp_path / name).exists()
