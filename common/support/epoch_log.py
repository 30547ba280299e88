"""log.csv in a folder of outputs: one line per run and epoch, written while it trains, to watch it by.

A spreadsheet and `tail -F` read it. No result is made from it, and git ignores it.
"""

import contextlib
import csv
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from common.support.errors import UserError
from common.support.files import atomic

NAME = "log.csv"


class EpochLog:
    """The log of one folder. It has a single writer: the process that holds the folder's lock.

    A run that is trained again, or resumed, replaces its lines from that epoch on, so no epoch stands there twice. A
    file that cannot be written, as where another program has locked it, is written after a later epoch.
    """

    def __init__(self, folder: str | Path, run: Sequence[str], measured: Sequence[str]):
        """Read what is there. run: the columns that together name a run. measured: the columns after `epoch`."""
        self.path, self.run = Path(folder) / NAME, run
        self.columns = ["time", *run, "epoch", *measured]
        self.rows = self._read()
        self.whole = True  # the next write replaces the file, which may end in half a line
        self.warned = False

    def write(self, rows: list[dict]) -> None:
        """Write one row per run, as dicts of the columns; a measurement may be missing. Epochs count from 1."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        rows = [{name: str(row.get(name, "")) for name in self.columns} | {"time": now} for row in rows]
        new = {self._run(row): row for row in rows}
        kept = []
        for old in self.rows:
            row = new.get(self._run(old))
            repeated = row == {**old, "time": now}  # a resumed training reports the epoch that it resumes from
            if row is None or int(old["epoch"]) < int(row["epoch"]) or repeated:
                kept.append(old)
            if repeated:
                rows.remove(row)
        self.whole = self.whole or len(kept) < len(self.rows)
        self.rows = [*kept, *rows]
        try:
            if self.whole:
                with atomic(self.path) as temporary:
                    self._write(temporary, [dict(zip(self.columns, self.columns)), *self.rows])
            else:
                self._write(self.path, rows)
            self.whole = False
        except (OSError, UserError) as problem:
            self.whole = True
            if not self.warned:
                print(f"{self.path} is not up to date; training continues ({problem})", file=sys.stderr, flush=True)
            self.warned = True

    def _write(self, path, rows):
        """Append the rows to a file in one piece."""
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())

    def _read(self):
        """Return the whole rows of the file, or [] where there is none, or it is not such a log."""
        try:
            with open(self.path, encoding="utf-8", newline="") as file:
                head, *rows = csv.reader(file)
        except (OSError, ValueError, csv.Error):
            return []
        rows = [dict(zip(self.columns, row)) for row in rows if len(row) == len(self.columns)]
        return [row for row in rows if row["epoch"].isdigit()] if head == self.columns else []

    def _run(self, row):
        return tuple(row[name] for name in self.run)


def discard(folder: Path) -> None:
    """Delete the log of a folder, so that the next run starts it anew."""
    with contextlib.suppress(OSError):  # another program has it open; the runs replace their lines
        (folder / NAME).unlink(missing_ok=True)


def last_epoch(history: dict, lr: float, pick: Callable[[torch.Tensor], torch.Tensor] = lambda value: value) -> dict:
    """Return what was measured in and after the last epoch of a history, formatted for the log.

    history: as common/training.py passes it to on_epoch. lr: what its `lr` is a factor of. pick: returns the scalar of
    one run.
    """
    values = {name: float(pick(of_epochs[-1])) for name, of_epochs in history.items() if name != "batch_losses"}
    accuracies = ("train_accuracy", "val_accuracy", "test_accuracy")
    return {
        "train_loss": f"{values['epoch_losses']:.4f}",
        **{name: f"{values[name]:.2f}" for name in accuracies if name in values},
        "learning_rate": f"{lr * values['lr']:.4g}",
        "seconds": f"{values['seconds']:.2f}",
    }
