"""Progress of anything longer than a few seconds: a bar on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

BAR = "{l_bar}{bar}| {n:.2f}/{total} [{elapsed}<{remaining}{postfix}]"  # epochs may be fractions
LINE_AFTER = (10, 60)  # seconds between two plain lines: at least, and later on at most
LINES = 20  # with lines further apart in between, so that the first minutes are not flooded
ALMOST = 1e-6  # fractions of epochs may add up to slightly less than the total


class Progress:
    """Count up to `total`, as a context manager.

    unit_scale: print counts in thousands and millions, for bytes. quiet: print nothing, as another process does.
    """

    def __init__(
        self, total: float, description: str, unit: str = "epoch", unit_scale: bool = False, quiet: bool = False
    ):
        self.plain, self.quiet = not sys.stderr.isatty(), quiet
        self.description, self.unit, self.scale = description, unit, 1
        if unit_scale:
            self.unit, self.scale = f"M{unit}", 1e6
        self.started = self.printed = time.monotonic()
        self.total, self.done, self.done_before = total, 0, 0
        self.bar = tqdm(
            total=total,
            desc=description,
            unit=unit,
            unit_scale=unit_scale,
            bar_format=None if unit_scale else BAR,
            smoothing=0.3 if unit_scale else 0,  # 0 averages over all epochs of this start
            miniters=0,
            dynamic_ncols=True,
            disable=self.plain or quiet,
        )

    def advance(self, count: float = 1, text: str = "", before: bool = False) -> None:
        """Advance by `count`. before: an earlier start has done this, so it does not count as speed."""
        if not count or self.quiet:
            return
        self.done += count
        if before:
            self.done_before += count
        if self.plain:
            self._print_line(text, now=before or self.done > self.total - ALMOST)
            return
        if before:
            self.bar.initial += count
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(count)

    def _print_line(self, text, now):
        """Print a plain line if the last one is long enough ago, or if it is due `now`."""
        time_now = time.monotonic()
        elapsed, (least, most) = time_now - self.started, LINE_AFTER
        if not now and time_now - self.printed < min(most, max(least, elapsed / LINES)):
            return
        self.printed, new = time_now, self.done - self.done_before
        left = f"about {elapsed / new * max(0, self.total - self.done):.0f} s to go" if new > 0 else "done before"
        counts = f"{format_number(self.done / self.scale)}/{format_number(self.total / self.scale)} {self.unit}"
        line = f"{self.description}: {counts}, {elapsed:.0f} s, {left}"
        print(f"{line}; {text}" if text else line, file=sys.stderr, flush=True)

    def log(self, text: str) -> None:
        """Print a line about work that is not counted."""
        tqdm.write(f"{self.description}: {text}", file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()


def epoch_reporter(
    advance: Callable[..., None], name: str, members: int = 1, resumed: bool = False
) -> Callable[..., None]:
    """Return report_progress(epochs_done, text="", skipped=False), which advances by the difference to its last call.

    It may be called after every step, with fractions of epochs: then it advances at most once per second. The text is
    the last epoch's, or `name` before there is one.

    members: trainings that are counted at once. resumed: the first call counts epochs of an earlier start. skipped:
    these epochs are not trained, as training stopped early.
    """
    reported, reported_at, last_text, before = 0, time.monotonic(), name, resumed

    def report_progress(epochs_done, text="", skipped=False):
        nonlocal reported, reported_at, last_text, before
        if epochs_done != int(epochs_done) and time.monotonic() - reported_at < 1:
            return
        last_text = text or last_text
        advance((epochs_done - reported) * members, last_text, before or skipped)
        reported, reported_at, before = epochs_done, time.monotonic(), False

    return report_progress


def format_number(number: float) -> str:
    """Return a number with at most two decimals, without trailing zeros."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
