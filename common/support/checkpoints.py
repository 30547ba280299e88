"""Checkpoints and weights on disk: written whole or not at all, and read only where every byte is what was written.

A checkpoint has two generations: `run.pt`, and `run.previous.pt`, which was `run.pt` an epoch before. Where the newer one
is damaged or missing, as after a kill between the two renames of `write`, training resumes from the other.
"""

import contextlib
import dataclasses
import zipfile

import torch

from common.support.errors import UserError, first_line
from common.support.files import atomic

FRESH = "start over with --fresh"


@dataclasses.dataclass
class Checkpoint:
    path: object
    settings: dict
    read_only: bool = False


class Damaged(UserError):
    """A file is not what was written, or no file of ours at all."""


def save(path, document, previous=None):
    """torch.save, whole or not at all. The file that was there becomes `previous`, where that is given.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    with atomic(path, previous) as temporary:
        try:
            torch.save(document, temporary)
        except RuntimeError as error:  # torch reports a full disk as a RuntimeError of its zip writer
            raise UserError(f"cannot write {path}: {first_line(error)}; is the disk full?") from error


def load(path, what, then):
    """Return what `save` wrote to `path`, on the CPU. Every .pt that is read comes through here.

    what: the file's kind, for the message: "checkpoint". then: what the user is to do about it, or what is done.

    Raises:
        UserError: the file is not there, or cannot be opened.
        Damaged: it is empty, cut off, changed by a bit, of another kind, or holds more than tensors and plain values.
            Nothing in it was run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()  # torch.load checks no checksum
        if member:
            raise zipfile.BadZipFile(f"the checksum of {member} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {then}") from error
    except Exception as error:  # damage shows in as many ways as there are bytes
        if out_of_memory(error):
            raise
        why = first_line(error) if isinstance(error, (zipfile.BadZipFile, OSError)) else type(error).__name__
        raise Damaged(f"{path} is not a valid {what} ({why}); {then}") from error


def out_of_memory(error):
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def previous_path(path):
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def there(path):
    """Return whether a checkpoint of this name, newest or previous, exists to resume from."""
    return path.exists() or previous_path(path).exists()


exists = there


def discard(path):
    """Delete both generations of a checkpoint."""
    for generation in (path, previous_path(path)):
        generation.unlink(missing_ok=True)


def write(path, state, learner, batches, early_stopping, settings):
    """Save the state of a training after an epoch; the checkpoint that was there becomes the previous one, if whole.

    state: {"epoch": epochs done, "history": ..., "best_weights": ...} as common/training.py has it.
    """
    document = {
        **state,
        "settings": settings,
        "learner": learner.state_dict(),
        "batches": batches.state_dict(),
        "early_stopping": dataclasses.asdict(early_stopping) if early_stopping else None,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    # a damaged file must not replace the one that this training resumed from
    save(path, document, previous_path(path) if _whole(path) else None)


def _whole(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:
        return False


def restore(path, learner, batches, early_stopping, settings, say=print):
    """Put learner, batches, early stopping and random numbers where the newest whole checkpoint has them.

    Returns the `state` that `write` was given.

    say: called with a line where that is the previous one.

    Raises:
        UserError: neither generation is whole; or it is of other settings, of another network or another kind of device.
    """
    document, path = _newest(path, say)
    with _or_problem(path, "is not a valid checkpoint", f"delete it, or {FRESH}"):
        saved = document["settings"]
        differing = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    if differing:
        named = "; ".join(f"{name} was {saved.get(name)}, is {settings.get(name)}" for name in differing)
        raise UserError(f"{path} is the checkpoint of another run ({named}); use the old settings, or {FRESH}")
    with _or_problem(path, "holds another network", FRESH):
        learner.load_state_dict(document["learner"])
        _check_shapes(document, learner, early_stopping)
    with _or_problem(path, "is from another kind of device, or not a valid checkpoint", f"resume there, or {FRESH}"):
        batches.load_state_dict(document["batches"])
        torch.set_rng_state(document["rng"])
        if torch.cuda.is_available() and document["cuda_rng"] is not None:
            torch.cuda.set_rng_state(document["cuda_rng"])
    if early_stopping:
        vars(early_stopping).update(document["early_stopping"])
    return {name: document[name] for name in ("epoch", "history", "best_weights")}


def _newest(path, say):
    """Return (document, its path) of `path`, or of its previous generation where `path` is damaged or missing."""
    previous = previous_path(path)
    try:
        if path.exists() or not previous.exists():
            then = f"resuming from {previous.name}" if previous.exists() else f"delete it, or {FRESH}"
            return _read(path, then), path
        say(f"{path} is missing; resuming from {previous.name}")
    except Damaged as problem:
        if not previous.exists():
            raise
        say(str(problem))
    return _read(previous, FRESH), previous


def _read(path, then):
    """Load a checkpoint and see that it has all that one must have. Raises Damaged, or UserError as `load` does."""
    document = load(path, "checkpoint", then)
    if why := _missing(document):
        raise Damaged(f"{path} is not a valid checkpoint ({why}); {then}")
    return document


def _missing(document):
    """Say what a checkpoint lacks, or has of another type; empty where it has all."""
    kinds = {
        "epoch": int,
        "history": dict,
        "best_weights": dict | None,
        "settings": dict,
        "learner": dict,
        "batches": dict | list,
        "early_stopping": dict | None,
        "rng": torch.Tensor,
        "cuda_rng": torch.Tensor | None,
    }
    if not isinstance(document, dict):
        return f"a {type(document).__name__}"
    for name, kind in kinds.items():
        if name not in document:
            return f"no {name}"
        if not isinstance(document[name], kind):
            return f"{name} is a {type(document[name]).__name__}"
    epoch, history = document["epoch"], document["history"]
    if epoch < 1:
        return f"{epoch} epochs"
    if not {"batch_losses", "epoch_losses"} <= history.keys():
        return "no losses in its history"
    for name, values in history.items():
        if not isinstance(values, list) or len(values) != epoch or not all(map(torch.is_tensor, values)):
            return f"{name} is not of {epoch} epochs"
    return ""


def _check_shapes(document, learner, early_stopping):
    """Raise ValueError where history, best weights or early stopping are not of this learner, which has been loaded."""
    for name, values in document["history"].items():
        for value in values:
            shape = value[0].shape if name == "batch_losses" else value.shape
            if shape not in ((), learner.shape):
                raise ValueError(f"{name} is of shape {tuple(shape)}")
    if early_stopping and "val_accuracy" not in document["history"]:
        raise ValueError("its history has no validation accuracy")
    watched, best = document["early_stopping"], document["best_weights"]
    if (watched or {}).keys() != (dataclasses.asdict(early_stopping) if early_stopping else {}).keys():
        raise ValueError("its early stopping is another")
    if not all(isinstance(value, (int, float)) for value in (watched or {}).values()):
        raise ValueError("its early stopping is of no numbers")
    if (best is not None) != (watched is not None and watched["best_epoch"] >= 0):
        raise ValueError("its best epoch is not that of its weights")
    if best is not None and {k: v.shape for k, v in best.items()} != {k: v.shape for k, v in learner.weights().items()}:
        raise ValueError("its best weights have other names or shapes")


@contextlib.contextmanager
def _or_problem(path, what, then):
    """Tell what goes wrong in the block as a UserError, but for a want of memory."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{path} {what} ({first_line(error)}); {then}") from error
