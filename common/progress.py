"""Progress of anything longer than a few seconds: a bar on a terminal, plain lines anywhere else."""

import sys
import time

from tqdm import tqdm


def epoch_counter(advance, members=1, resumed=False):
    """tell(epochs done, text): advances by what is new since it was last called, `members` trainings at once.

    It may be told fractions after every step: it passes one on a second.
    resumed: what it is told first was done in an earlier run.
    """
    done, told = 0, time.monotonic()

    def tell(epochs, text=""):
        nonlocal done, told, resumed
        if epochs != int(epochs) and time.monotonic() - told < 1:
            return
        advance((epochs - done) * members, text, resumed)
        done, told, resumed = epochs, time.monotonic(), False

    return tell


class Progress:
    """Count up to `total`; used as a context manager.

    unit_scale: count bytes, say, in k and M.
    """

    EVERY = 10, 60  # seconds between two plain lines, at the least and, later on, at the most
    FORMAT = "{l_bar}{bar}| {n:.4g}/{total} [{elapsed}<{remaining}{postfix}]"  # epochs may be fractions

    def __init__(self, total, description, unit="epoch", unit_scale=False):
        self.plain = not sys.stderr.isatty()
        self.description, self.unit, self.scale = description, unit, 1e6 if unit_scale else 1
        self.started = self.said = time.monotonic()
        self.bar = tqdm(
            total=total,
            desc=description,
            unit=unit,
            unit_scale=unit_scale,
            bar_format=None if unit_scale else self.FORMAT,
            dynamic_ncols=True,
            disable=self.plain,
        )
        self.total, self.done, self.before, self.text = total, 0, 0, ""

    def advance(self, count=1, text="", before=False):
        """Count on. `before`: it was done in an earlier run, so it says nothing of how long the rest takes."""
        if not count:
            return
        self.done += count
        self.text = text or self.text
        if before:
            self.before += count
            if not self.plain:  # a disabled bar has no such count
                self.bar.initial += count
        self.bar.set_postfix_str(self.text, refresh=False)
        self.bar.update(count)
        now, complete = time.monotonic(), self.done > self.total - 1e-6
        least, most = self.EVERY
        if self.plain and (before or complete or now - self.said >= min(most, max(least, (now - self.started) / 20))):
            self.said = now
            self._say(now - self.started)

    def _say(self, elapsed):
        unit, new = "M" * (self.scale > 1) + self.unit, self.done - self.before
        left = f"about {elapsed / new * (self.total - self.done):.0f} s to go" if new > 0 else "done before"
        line = f"{self.description}: {self.done / self.scale:.4g}/{self.total / self.scale:.4g} {unit}, {elapsed:.0f} s, {left}"
        print(f"{line}; {self.text}" if self.text else line, file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
