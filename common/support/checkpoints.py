"""Checkpoints and weights on disk: written whole or not at all, and read only where every byte is what was written.

A checkpoint has two generations: `run.pt`, and `run.previous.pt`, which was `run.pt` before that was written. Where the
newer one is damaged or missing, as after a kill between the two renames of a write, training resumes from the other.
"""

import contextlib
import dataclasses
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.support.errors import UserError, first_line, out_of_memory
from common.support.files import atomic

FRESH = "start over with --fresh"
INTERVAL = 30  # seconds between two checkpoints of a training; an epoch on a GPU can be shorter than its write
MARKED_AS_FOLDER = 0x10  # in a zip: MS-DOS's attribute
KINDS = {  # the type of each value that a checkpoint holds
    "epoch": int,
    "partial": dict | None,
    "history": dict,
    "best_weights": dict | None,
    "settings": dict,
    "learner": dict,
    "batches": dict | list,
    "early_stopping": dict | None,
    "rng": torch.Tensor,
    "cuda_rng": torch.Tensor | None,
}


class Damaged(UserError):
    """A file that does not hold what was written, or is not a file of ours at all."""


def save(path: Path, document: Any, previous: Path | None = None) -> None:
    """Save by torch.save, whole or not at all. What `path` held before becomes `previous`, where that is given.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written.
    """
    with atomic(path, previous) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(document, file)
        except RuntimeError as error:  # on a full disk torch's zip writer complains on top of the system's OSError
            raise (error.__context__ or error) from None


def load(path: Path, what: str, then: str) -> Any:
    """Return what `save` wrote to `path`, on the CPU. Every .pt that is read comes through here.

    what: the file's kind, for the message: "checkpoint". then: what the user can do about it, or what happens next.

    Raises:
        UserError: the file does not exist or cannot be opened.
        Damaged: it is empty, cut off, changed by a bit, of another kind, or holds more than tensors and plain values.
            Nothing in it was run.
    """
    try:
        _check_checksums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {then}") from error
    except Exception as error:  # damage shows in as many ways as there are bytes
        if out_of_memory(error):
            raise
        why = first_line(error) if isinstance(error, (zipfile.BadZipFile, OSError)) else type(error).__name__
        raise Damaged(f"{path} is not a valid {what} ({why}); {then}") from error


def _check_checksums(path):
    """Raise BadZipFile, or what else damage leads to, unless `path` is a zip all of whose checksums are right.

    torch.load checks none, and leaves a tensor uninitialized whose file is marked as a folder.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("it is packed, and unpacks to more than its size")
        if member := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {member} is wrong")
        if any(member.external_attr & MARKED_AS_FOLDER for member in archive.infolist()):
            raise zipfile.BadZipFile("a tensor is marked as a folder")


def _is_whole(path):
    try:
        _check_checksums(path)
    except Exception:
        return False
    return True


def previous_path(path: Path) -> Path:
    """Return where the previous generation of the checkpoint `path` is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def exists(path: Path) -> bool:
    """Return whether either generation of the checkpoint `path` exists to resume from."""
    return path.exists() or previous_path(path).exists()


def discard(path: Path) -> None:
    """Delete both generations of the checkpoint `path`."""
    for generation in (path, previous_path(path)):
        generation.unlink(missing_ok=True)


def discard_all(folder: Path) -> None:
    """Delete all .pt files in `folder` and below: checkpoints of both generations, and unfinished ones a kill left."""
    for path in folder.rglob("*.pt"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def setting_changes(saved: dict, settings: dict) -> str:
    """Name each setting that is not as it was saved, with both values; empty where all are the same."""
    changed = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    return "; ".join(f"{name} was {saved.get(name)}, is {settings.get(name)}" for name in changed)


@dataclass
class Checkpoint:
    """Where a training is saved and resumed from.

    settings: plain values that are saved along; resuming with other values raises UserError.
    read_only: resume from it but write none: for all processes except the main one of a data-parallel training.
    """

    path: Path
    settings: dict = field(default_factory=dict)
    read_only: bool = False
    written: float = field(default_factory=lambda: time.monotonic(), init=False)

    def exists(self) -> bool:
        """Return whether either generation exists to resume from."""
        return exists(self.path)

    def due(self) -> bool:
        """Return whether it is time to write again: INTERVAL seconds after the last time, or after the start."""
        return not self.read_only and time.monotonic() - self.written >= INTERVAL

    def save(self, state, learner, batches, early_stopping) -> None:
        """Write the state of a training; the checkpoint before becomes the previous one, if it is whole.

        state: {"epoch": epochs done, "partial": the steps done after them, "history": ..., "best_weights": ...} as
            common/training.py has it. batches: the state_dict of the batches after these epochs.
        """
        if self.read_only:
            return
        document = {
            **state,
            "settings": self.settings,
            "learner": learner.state_dict(),
            "batches": batches,
            "early_stopping": dataclasses.asdict(early_stopping) if early_stopping else None,
            "rng": torch.get_rng_state(),
            # asking for it on another device would start CUDA, which takes hundreds of megabytes of the GPU
            "cuda_rng": torch.cuda.get_rng_state(learner.device) if learner.device.type == "cuda" else None,
        }
        # a damaged file must not replace the one that this training resumed from
        save(self.path, document, previous_path(self.path) if _is_whole(self.path) else None)
        self.written = time.monotonic()

    def restore(self, learner, batches, early_stopping) -> dict:
        """Set learner, batches, early stopping and random numbers to the newest whole generation; return its `state`.

        Where that is the previous one, a line says so.

        Raises:
            UserError: neither generation is whole; or it is of other settings, another network or another kind of
                device.
        """
        document, path = self._newest()
        with _as_user_error(path, "is not a valid checkpoint", f"delete it, or {FRESH}"):
            changes = setting_changes(document["settings"], self.settings)
        if changes:
            raise UserError(f"{path} is the checkpoint of another run ({changes}); use the old settings, or {FRESH}")
        with _as_user_error(path, "holds another network", FRESH):
            _check_like(document["learner"], learner.state_dict(), "learner")
            learner.load_state_dict(document["learner"])
            _check_shapes(document, learner, len(batches), early_stopping)
        device_or_damage = "is from another kind of device, or not a valid checkpoint"
        with _as_user_error(path, device_or_damage, f"resume there, or {FRESH}"):
            _check_like(document["batches"], batches.state_dict(), "batches")
            batches.load_state_dict(document["batches"])
            torch.set_rng_state(document["rng"])
            if learner.device.type == "cuda":
                torch.cuda.set_rng_state(document["cuda_rng"], learner.device)
        if early_stopping:
            vars(early_stopping).update(document["early_stopping"])
        return {name: document[name] for name in ("epoch", "partial", "history", "best_weights")}

    def _newest(self):
        """Return (document, its path) of the newest generation, or of the previous one where that is not usable."""
        path, previous = self.path, previous_path(self.path)
        try:
            if path.exists() or not previous.exists():
                then = f"resuming from {previous.name}" if previous.exists() else f"delete it, or {FRESH}"
                return _read(path, then), path
            self._print(f"{path} is missing; resuming from {previous.name}")
        except Damaged as problem:
            if not previous.exists():
                raise
            self._print(problem)
        return _read(previous, FRESH), previous

    def _print(self, line):
        if not self.read_only:  # the main process prints it
            print(line, flush=True)


def _read(path, then):
    """Load a checkpoint and check that nothing is missing. Raises Damaged, or UserError as `load` does."""
    document = load(path, "checkpoint", then)
    if why := _missing(document):
        raise Damaged(f"{path} is not a valid checkpoint ({why}); {then}")
    return document


def _missing(document):
    """Describe what a checkpoint lacks, or has of another type; return "" where it is complete."""
    if not isinstance(document, dict):
        return f"a {type(document).__name__}"
    for name, kind in KINDS.items():
        if name not in document:
            return f"no {name}"
        if not isinstance(document[name], kind):
            return f"{name} is a {type(document[name]).__name__}"
    epoch, partial, history = document["epoch"], document["partial"], document["history"]
    if partial and not (torch.is_tensor(partial.get("losses")) and isinstance(partial.get("seconds"), float)):
        return "no losses of its last epoch"
    if epoch < 0 or not (epoch or partial):
        return f"{epoch} epochs"
    if epoch and not {"batch_losses", "epoch_losses"} <= history.keys():
        return "no losses in its history"
    for name, values in history.items():
        if not isinstance(values, list) or len(values) != epoch or not all(map(torch.is_tensor, values)):
            return f"{name} is not of {epoch} epochs"
    return ""


def _check_shapes(document, learner, steps, early_stopping):
    """Raise ValueError where history, best weights or early stopping do not fit this learner, which has been loaded.

    steps: of an epoch.
    """
    partial = document["partial"]
    if partial and (partial["losses"].shape[1:] != learner.shape or not 0 < len(partial["losses"]) < steps):
        raise ValueError("the losses of its last epoch are of another shape")
    counts = document["learner"].get("counts")  # of the images in its last epoch; a stack has none
    if counts and bool(counts["total"]) != bool(partial):
        raise ValueError("its learner is not at the step of its losses")
    for name, values in document["history"].items():
        for value in values:
            if name == "batch_losses":
                fits = value.shape[1:] == learner.shape and 0 < len(value) <= steps
            else:
                fits = value.shape in ((), learner.shape)
            if not fits:
                raise ValueError(f"{name} is of shape {tuple(value.shape)}")
    if early_stopping and document["epoch"] and "val_accuracy" not in document["history"]:
        raise ValueError("its history has no validation accuracy")
    optimizer = getattr(learner, "optimizer", None)
    for parameter, values in optimizer.state.items() if optimizer else ():
        if not all(torch.is_tensor(value) and value.shape in ((), parameter.shape) for value in values.values()):
            raise ValueError("its optimizer has a state of another shape")
    saved, best = document["early_stopping"], document["best_weights"]
    if (saved or {}).keys() != (dataclasses.asdict(early_stopping) if early_stopping else {}).keys():
        raise ValueError("its early stopping has other values")
    if not all(isinstance(value, (int, float)) for value in (saved or {}).values()):
        raise ValueError("its early stopping has values that are not numbers")
    if (best is not None) != (saved is not None and saved["best_epoch"] >= 0):
        raise ValueError("its best epoch is not that of its weights")
    if best is not None and {k: v.shape for k, v in best.items()} != {k: v.shape for k, v in learner.weights().items()}:
        raise ValueError("its best weights have other names or shapes")


def _check_like(saved, own, name):
    """Raise ValueError where a saved state has other names, types or shapes than one's own before it is loaded.

    What is empty before, as an optimizer's state, is not compared. A number may be a tensor, as it is on CUDA.
    """
    if _is_number(own):
        alike = _is_number(saved)
    elif isinstance(own, torch.Tensor):
        alike = torch.is_tensor(saved) and (saved.shape, saved.dtype) == (own.shape, own.dtype)
    elif isinstance(own, (dict, list)):
        alike = isinstance(saved, type(own)) and (not own or len(saved) == len(own))
    else:
        alike = isinstance(saved, type(own))
    if not alike:
        raise ValueError(f"its {name} is of another kind or shape")
    for key in own if isinstance(own, dict) else range(len(own)) if isinstance(own, list) else ():
        _check_like(saved[key], own[key], key if isinstance(own, dict) else name)


def _is_number(value):
    return isinstance(value, (int, float)) or (torch.is_tensor(value) and not value.shape)


@contextlib.contextmanager
def _as_user_error(path, what, then):
    """Raise what goes wrong in the block as a UserError, except a lack of memory."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{path} {what} ({first_line(error)}); {then}") from error
