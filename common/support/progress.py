"""Progress of anything longer than a few seconds: a bar on a terminal, plain lines anywhere else."""

import sys
import time

from tqdm import tqdm


def epoch_reporter(advance, name, members=1, resumed=False):
    """tell(epochs done, text): advances by what is new since it was last called, `members` trainings at once.

    It may be told fractions after every step: it passes one on a second, with the last epoch's text or else the training's name.
    resumed: what it is told first was done in an earlier run. skipped: these epochs are not trained, as it stopped early.
    """
    done, told, said = 0, time.monotonic(), name

    def tell(epochs, text="", skipped=False):
        nonlocal done, told, said, resumed
        if epochs != int(epochs) and time.monotonic() - told < 1:
            return
        said = text or said
        advance((epochs - done) * members, said, resumed or skipped)
        done, told, resumed = epochs, time.monotonic(), False

    return tell


def format_number(number):
    return f"{number:.2f}".rstrip("0").rstrip(".")


class Progress:
    """Count up to `total`; used as a context manager.

    unit_scale: count bytes, say, in k and M. quiet: say nothing; another process does.
    """

    EVERY = 10, 60  # seconds between two plain lines, at the least and, later on, at the most
    FORMAT = "{l_bar}{bar}| {n:.2f}/{total} [{elapsed}<{remaining}{postfix}]"  # epochs may be fractions

    def __init__(self, total, description, unit="epoch", unit_scale=False, quiet=False):
        self.plain, self.quiet = not sys.stderr.isatty(), quiet
        self.description, self.unit, self.scale = description, unit, 1e6 if unit_scale else 1
        self.started = self.said = time.monotonic()
        self.bar = tqdm(
            total=total,
            desc=description,
            unit=unit,
            unit_scale=unit_scale,
            bar_format=None if unit_scale else self.FORMAT,
            smoothing=0.3 if unit_scale else 0,  # of epochs the mean: what was done before must not count as speed
            miniters=0,
            dynamic_ncols=True,
            disable=self.plain or quiet,
        )
        self.total, self.done, self.before = total, 0, 0

    def advance(self, count=1, text="", before=False):
        """Count on. `before`: it was done in an earlier run, so it says nothing of how long the rest takes."""
        if not count or self.quiet:
            return
        self.done += count
        if before:
            self.before += count
            if not self.plain:  # a disabled bar has no such count
                self.bar.initial += count
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(count)
        now, complete = time.monotonic(), self.done > self.total - 1e-6
        least, most = self.EVERY
        if self.plain and (before or complete or now - self.said >= min(most, max(least, (now - self.started) / 20))):
            self.said = now
            self._say(now - self.started, text)

    def _say(self, elapsed, text):
        unit, new = "M" * (self.scale > 1) + self.unit, self.done - self.before
        left = f"about {elapsed / new * max(0, self.total - self.done):.0f} s to go" if new > 0 else "done before"
        line = f"{self.description}: {format_number(self.done / self.scale)}/{format_number(self.total / self.scale)} {unit}, {elapsed:.0f} s, {left}"
        print(f"{line}; {text}" if text else line, file=sys.stderr, flush=True)

    def note(self, line):
        """Tell what is done beside the counting."""
        tqdm.write(f"{self.description}: {line}", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
