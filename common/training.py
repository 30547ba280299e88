"""The one training loop. It knows no model, no data set and no figure.

A learner (common/learners.py) is what is trained: one network, of shape (), or a stack of them, of shape (seeds,
configurations). `fit` returns its history: a dict of numpy arrays whose first axis is the step or the epoch and whose
other axes are that shape.

    batch_losses   (steps, ...)   training loss of each batch, in nats
    batch_indices  (steps,)       number of each batch, starting at 1 and continuing across epochs
    epoch_losses   (epochs, ...)  mean over the epoch's examples: a short last batch counts by its size
    lr             (epochs,)      the schedule's factor on the learning rate in the epoch's last step
    seconds        (epochs,)      of training, without evaluation and compile_seconds
    compile_seconds (epochs,)     of compiling and of capturing CUDA graphs, where a learner does: 0 in most epochs
    weight_norm    (epochs, ...)  square root of the sum of all squared parameters, after the epoch
    train_accuracy (epochs,)      of a Learner: per cent correct of the augmented batches, each before its update
    kept_epoch     ()             the epoch, from 1, whose weights the learner ends with
    diverged_step  (...)          number of the first batch whose loss was not finite, 0 if all were; of a single
                                  network also of the last batch, if its update left weights that are not finite
    and, one value per epoch, whatever `evaluate` returns
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from common.data import Batches
from common.learners import StackedBatches, Trainable
from common.support.checkpoints import Checkpoint

Schedule = Callable[[float, int], float]  # (epochs done, epochs) -> factor on the learning rate


def constant(epoch: float, epochs: int) -> float:
    """Return 1: the learning rate stays as it is."""
    return 1.0


def cosine(epoch: float, epochs: int) -> float:
    """Return the factor that falls from 1 in epoch 0 towards 0 after `epochs` (Loshchilov & Hutter, arXiv 1608.03983).

    There is one value per epoch, as in torch's CosineAnnealingLR.
    """
    return (1 + math.cos(math.pi * int(epoch) / epochs)) / 2


def step_decay(epoch: float, epochs: int, every: float = 0.3, factor: float = 0.1) -> float:
    """Return `factor` to the power of the steps so far; there is one every `every` of all epochs, as in torch's StepLR.

    The defaults are those of ImageNet's networks: every 30 epochs to a tenth.
    """
    return factor ** (int(epoch) // max(1, round(every * epochs)))


def multistep_decay(
    epoch: float, epochs: int, milestones: Sequence[float] = (0.3, 0.6, 0.8), factor: float = 0.2
) -> float:
    """Return `factor` to the power of the milestones so far, shares of all epochs, as in torch's MultiStepLR.

    The defaults are those of Wide ResNets (arXiv 1605.07146): of 200 epochs the 60th, 120th and 160th, each to a fifth.
    """
    return factor ** sum(int(epoch) >= round(share * epochs) for share in milestones)


def warm(after: Schedule, warmup: int) -> Schedule:
    """Return a schedule: a linear rise over `warmup` epochs, step by step, then `after` over the others."""

    def schedule(epoch, epochs):
        return epoch / warmup if epoch < warmup else after(epoch - warmup, epochs - warmup)

    return schedule


@dataclass
class EarlyStopping:
    """Choose the best epoch, and stop when accuracy has not risen by more than `min_delta` for `patience` epochs.

    Project 3, section 1.6. Accuracies are fractions. The best epoch has the highest accuracy, even if only slightly;
    only patience counts rises by `min_delta`. With a patience of 0 training never stops early, and the best
    epoch is chosen all the same. A value that is not a number is never best.
    """

    patience: int = 15
    min_delta: float = 0.001
    best_epoch: int = field(default=-1, init=False)
    best: float = field(default=-math.inf, init=False)
    reference: float = field(default=-math.inf, init=False)
    waited: int = field(default=0, init=False)

    def update(self, epoch: int, value: float) -> bool:
        """Record the value after `epoch`; return whether it is the best so far."""
        if value > self.reference + self.min_delta:
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        if better := value > self.best:
            self.best, self.best_epoch = value, epoch
        return better

    @property
    def stop(self) -> bool:
        """Return whether accuracy has not risen for `patience` epochs."""
        return 0 < self.patience <= self.waited


def stopped_after(
    accuracies: Sequence[float],
    patience: int = EarlyStopping.patience,
    min_delta: float = EarlyStopping.min_delta,
) -> int | None:
    """Return the epoch, from 1, after which early stopping would have ended a training; None where it would not.

    accuracies: (epochs,) of validation, in per cent, as in the history; the training itself may have continued.
    """
    watch = EarlyStopping(patience, min_delta)
    for epoch, accuracy in enumerate(accuracies):
        watch.update(epoch, float(accuracy) / 100)
        if watch.stop:
            return epoch + 1
    return None


def fit(
    learner: Trainable,
    batches: Batches | StackedBatches,
    epochs: int,
    *,
    schedule: Schedule = constant,
    evaluate: Callable[[], dict] = dict,
    early_stopping: EarlyStopping | None = None,
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[float], None] | None = None,
    on_epoch: Callable[[int, dict], None] | None = None,
) -> dict[str, np.ndarray]:
    """Train `learner` for `epochs` passes over `batches`; return its history.

    schedule: evaluated before every step; 2.5 means halfway through the third epoch.
    evaluate: () -> {name: tensor of the learner's shape}, called after each epoch.
    early_stopping: watches `val_accuracy` (per cent) of `evaluate`; the best epoch's weights are restored at the end,
        also with a patience of 0, which never stops.
    checkpoint: written every 30 s, also within an epoch, and at the end; training resumes from it if it exists. On a
        CPU the result is the same to the bit as without an interruption. A single network whose loss or weights are no
        longer finite is not written, and stops at the end of that epoch: the checkpoint stays the last good one.
    on_step: called with the epochs done, a fraction, after each step except an epoch's last.
    on_epoch: called with (epochs done, history so far as a dict of lists of tensors).

    Raises:
        UserError: the checkpoint and its previous generation cannot be read, or they are of other settings.
    """
    state = {"epoch": 0, "partial": None, "history": {}, "best_weights": None}
    if checkpoint and checkpoint.exists():
        state = checkpoint.restore(learner, batches, early_stopping)
    history, unsaved = state["history"], False
    if on_epoch and history:
        on_epoch(state["epoch"], history)

    for epoch in range(state["epoch"], epochs):
        if _finished_early(history, learner, early_stopping):
            break
        at_start = batches.state_dict()

        def save_step(losses, seconds, at_start=at_start):
            if checkpoint and checkpoint.due() and learner.resumes_within_epochs and _all_finite(losses, learner):
                partial = {"losses": torch.stack(losses), "seconds": seconds}
                checkpoint.save({**state, "partial": partial}, learner, at_start, early_stopping)

        trained = _train_epoch(learner, batches, epoch, epochs, schedule, state["partial"], on_step, save_step)
        for name, value in (trained | evaluate()).items():
            history.setdefault(name, []).append(torch.as_tensor(value, dtype=torch.float32).cpu())
        state.update(epoch=epoch + 1, partial=None)
        unsaved = not _diverged(history, learner)
        if unsaved:
            if early_stopping and early_stopping.update(epoch, float(history["val_accuracy"][-1]) / 100):
                state["best_weights"] = learner.weights()
            if checkpoint and checkpoint.due():
                checkpoint.save(state, learner, batches.state_dict(), early_stopping)
                unsaved = False
        if on_epoch:
            on_epoch(epoch + 1, history)
    if checkpoint and unsaved:
        checkpoint.save(state, learner, batches.state_dict(), early_stopping)

    kept_epoch = state["epoch"]
    if state["best_weights"] is not None:
        learner.load_weights(state["best_weights"])
        kept_epoch = early_stopping.best_epoch + 1
    return _arrays(history) | {"kept_epoch": np.array(kept_epoch)}


def _train_epoch(learner, batches, epoch, epochs, schedule, partial, on_step, save_step):
    """Train for one pass; return what the history says of it, except for evaluation: {name: tensor or number}.

    partial: {"losses": (steps, ...), "seconds"} of the steps of this pass that were trained before an interruption, or
        None. Their batches are prepared again, as their random numbers are drawn one after the other.
    save_step: called with (losses so far, seconds so far) after each step except the last.
    """
    losses, before = (list(partial["losses"].to(learner.device)), partial["seconds"]) if partial else ([], 0.0)
    steps, done, started = len(batches), len(losses), time.perf_counter() - before
    sizes, factor = [], None
    for step, (x, y) in enumerate(batches):
        sizes.append(x.shape[-4])
        if step < done:
            continue
        previous, factor = factor, schedule(epoch + step / steps, epochs)
        if factor != previous:
            learner.set_lr(factor)
        losses.append(learner.step(x, y))
        if step + 1 < steps:
            save_step(losses, time.perf_counter() - started)
            if on_step:
                on_step(epoch + (step + 1) / steps)
    losses = torch.stack(losses).float().cpu()  # the only wait for the device in the epoch
    seconds = time.perf_counter() - started
    metrics = learner.epoch_metrics()
    return {
        "batch_losses": losses,
        "epoch_losses": weighted_mean(losses, sizes),
        "lr": factor,
        "seconds": seconds - metrics.get("compile_seconds", 0.0),
        **metrics,
    }


def weighted_mean(losses: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the mean over examples of mean losses (steps, ...) of batches of `sizes` (steps,) examples."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    return torch.tensordot(weights / weights.sum(), losses.double(), dims=1)


def _first_not_finite(losses):
    """Return 1 + the index of the first value along axis 0 that is not finite, 0 where all are."""
    bad = ~torch.isfinite(losses)
    return torch.where(bad.any(0), bad.int().argmax(0) + 1, 0)


def _diverged(history, learner):
    """Return whether a single network's loss or weights are no longer finite. Members of a stack may train on."""
    if not history or learner.shape:
        return False
    return not all(torch.isfinite(history[name][-1]) for name in ("epoch_losses", "weight_norm") if name in history)


def _all_finite(losses, learner):
    """Return whether a training may be saved after these losses of its epoch: all that `_diverged` asks, so far."""
    return bool(learner.shape) or bool(torch.stack([*losses, learner.weight_norm()]).isfinite().all())


def _finished_early(history, learner, early_stopping):
    if (early_stopping and early_stopping.stop) or _diverged(history, learner):
        return True
    return bool(history) and bool((~torch.isfinite(history["epoch_losses"][-1])).all())


def _arrays(history):
    losses = torch.cat(history["batch_losses"])
    arrays = {name: torch.stack(values).numpy() for name, values in history.items() if name != "batch_losses"}
    arrays["batch_losses"] = losses.numpy()
    arrays["batch_indices"] = torch.arange(1, len(losses) + 1).numpy()
    diverged = _first_not_finite(losses)
    if losses.dim() == 1 and not diverged and not np.isfinite(arrays.get("weight_norm", [0])[-1]):
        diverged = torch.tensor(len(losses))  # the next loss would not have been finite
    arrays["diverged_step"] = diverged.numpy()
    return arrays
