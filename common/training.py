"""The one training loop. It knows no model, no data set and no figure.

A learner (common/learners.py) is what is trained: one network, of shape (), or a stack of them, of shape (seeds, runs).
`fit` gives its history: a dict of numpy arrays whose first axis is the step or the epoch and whose others are that shape.

    batch_losses   (steps, ...)   training loss of each batch, in nats
    batch_indices  (steps,)       1 for the first batch and on across epochs: the third of epoch 2 is steps per epoch + 3
    epoch_losses   (epochs, ...)  mean over the epoch's examples: a short last batch counts by its size
    lr             (epochs,)      the schedule's factor on the learning rate in the epoch's last step
    seconds        (epochs,)      of training, without evaluation
    compile_seconds (epochs,)     of `prepare`, where there is one, before the first epoch that a start trains; else 0
    weight_norm    (epochs, ...)  square root of the sum of all squared parameters, after the epoch
    train_accuracy (epochs,)      of a Learner: per cent right of the augmented batches, each before its update
    kept_epoch     ()             the epoch, from 1, whose weights the learner ends with
    diverged_step  (...)          batch index of the first loss that was not finite, 0 if all were; of a single network
                                  also the last batch's, where it left weights that are not finite
    and, a value an epoch, whatever `evaluate` measures
"""

import functools
import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from common.support import checkpoints


def constant(epoch, epochs):
    return 1.0


def cosine(epoch, epochs):
    """From 1 in epoch 0 towards 0 (Loshchilov & Hutter, arXiv 1608.03983): `epochs` is both the length and the period.

    One value an epoch, as torch's CosineAnnealingLR.
    """
    return (1 + math.cos(math.pi * int(epoch) / epochs)) / 2


def warm_cosine(warmup):
    """A straight rise over `warmup` epochs, step by step, then `cosine` over the others."""

    def schedule(epoch, epochs):
        return epoch / warmup if epoch < warmup else cosine(epoch - warmup, epochs - warmup)

    return schedule


@dataclass
class EarlyStopping:
    """Choose the best epoch, and stop when accuracy has not risen by more than `min_delta` for `patience` epochs.

    Project 3, section 1.6. Accuracies are fractions. The best epoch is the one of the highest accuracy, by however
    little; only patience asks for `min_delta`. With a patience of 0 training never stops early, and the best epoch is
    chosen all the same. A value that is not a number is never best.
    """

    patience: int = 15
    min_delta: float = 0.001
    best_epoch: int = field(default=-1, init=False)
    best: float = field(default=-math.inf, init=False)
    reference: float = field(default=-math.inf, init=False)
    waited: int = field(default=0, init=False)

    def update(self, epoch, value):
        """Take the value after `epoch` in; true if it is the best so far."""
        if value > self.reference + self.min_delta:
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        if better := value > self.best:
            self.best, self.best_epoch = value, epoch
        return better

    @property
    def stop(self):
        return 0 < self.patience <= self.waited


def stopped_after(accuracies, patience=EarlyStopping.patience, min_delta=EarlyStopping.min_delta):
    """Return the epoch, from 1, after which early stopping would have ended a training; None where it would not.

    accuracies: (epochs,) of validation, in per cent, as the history has them; the training itself may have continued.
    """
    watch = EarlyStopping(patience, min_delta)
    for epoch, accuracy in enumerate(accuracies):
        watch.update(epoch, float(accuracy) / 100)
        if watch.stop:
            return epoch + 1
    return None


def fit(
    learner,
    batches,
    epochs,
    *,
    schedule=constant,
    evaluate=dict,
    early_stopping=None,
    checkpoint=None,
    settings=None,
    prepare=None,
    on_step=None,
    on_epoch=None,
    writes=True,
):
    """Train `learner` for `epochs` passes over `batches`; return its history.

    schedule: (epochs done, epochs) -> factor on the learning rate, asked before every step; 2.5 is half-way through the third.
    evaluate: () -> {name: tensor of the learner's shape}, called after each epoch.
    early_stopping: watches `val_accuracy` (per cent) of `evaluate`; the best epoch's weights are put back at the end,
        also with a patience of 0, which stops nothing.
    checkpoint: path written after every epoch; training resumes from it if it exists (common/support/checkpoints.py). On a CPU the
        result is the same to the bit as if nothing had stopped. A single network whose loss or weights are no longer
        finite stops at the end of that epoch, which is not written: the checkpoint stays that of the last good epoch.
    settings: plain values saved in the checkpoint; resuming with other values raises UserError.
    prepare: () -> the seconds it took, for the history; called before the first epoch that this call trains, if it trains any.
    on_step: called with the epochs done, a fraction, after each step but an epoch's last.
    on_epoch: called with (epochs done, history so far as a dict of lists of tensors).
    writes: false in all processes but the first of a data-parallel training: they read the checkpoint and write none.

    Raises:
        UserError: the checkpoint cannot be read, neither it nor its previous one, or it is of other settings.
    """
    if isinstance(checkpoint, checkpoints.Checkpoint):
        checkpoint, settings = checkpoint.path, checkpoint.settings
    state = {"epoch": 0, "history": {}, "best_weights": None}
    if checkpoint and checkpoints.there(checkpoint):
        say = functools.partial(print, flush=True) if writes else lambda line: None
        state = checkpoints.restore(checkpoint, learner, batches, early_stopping, settings or {}, say)
    history, steps = state["history"], len(batches)
    if on_epoch and history:
        on_epoch(state["epoch"], history)

    first = state["epoch"]
    for epoch in range(first, epochs):
        if _finished_early(history, learner, early_stopping):
            break
        prepared = prepare() if prepare and epoch == first else 0.0
        started = time.perf_counter()
        losses, sizes, factor = [], [], None
        for step, (x, y) in enumerate(batches):
            before, factor = factor, schedule(epoch + step / steps, epochs)
            if factor != before:
                learner.set_lr(factor)
            losses.append(learner.step(x, y))
            sizes.append(x.shape[-4])
            if on_step and step + 1 < steps:
                on_step(epoch + (step + 1) / steps)
        losses = torch.stack(losses).float().cpu()  # the only wait for the device in the epoch
        seconds = time.perf_counter() - started

        measured = {
            "batch_losses": losses,
            "epoch_losses": weighted_mean(losses, sizes),
            "lr": factor,
            "seconds": seconds,
        }
        measured |= {"compile_seconds": prepared} if prepare else {}
        measured |= {**learner.epoch_metrics(), **evaluate()}
        for name, value in measured.items():
            history.setdefault(name, []).append(torch.as_tensor(value, dtype=torch.float32).cpu())
        state["epoch"] = epoch + 1
        if not _lost(history, learner):
            if early_stopping and early_stopping.update(epoch, float(history["val_accuracy"][-1]) / 100):
                state["best_weights"] = learner.weights()
            if checkpoint and writes:
                checkpoints.write(checkpoint, state, learner, batches, early_stopping, settings or {})
        if on_epoch:
            on_epoch(epoch + 1, history)

    kept = state["epoch"]
    if state["best_weights"] is not None:
        learner.load_weights(state["best_weights"])
        kept = early_stopping.best_epoch + 1
    return _arrays(history) | {"kept_epoch": np.array(kept)}


def weighted_mean(losses, sizes):
    """Return the mean over examples of mean losses (steps, ...) of batches of `sizes` (steps,) examples."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    return torch.tensordot(weights / weights.sum(), losses.double(), dims=1)


def _first_not_finite(losses):
    """1 + the index of the first value along axis 0 that is not finite, 0 where all are."""
    bad = ~torch.isfinite(losses)
    return torch.where(bad.any(0), bad.int().argmax(0) + 1, 0)


def _lost(history, learner):
    """Whether a single network's loss or weights are no longer finite. Of a stack the other members may train on."""
    if not history or learner.shape:
        return False
    return not all(torch.isfinite(history[name][-1]) for name in ("epoch_losses", "weight_norm") if name in history)


def _finished_early(history, learner, early_stopping):
    if (early_stopping and early_stopping.stop) or _lost(history, learner):
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
