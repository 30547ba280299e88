"""Progress of anything longer than a few seconds: a bar on a terminal, plain lines anywhere else."""

import sys
import time

from tqdm import tqdm


def epoch_counter(advance, members=1, resumed=False):
    """tell(epochs done, text): advances by what is new since it was last called, `members` trainings at once.

    resumed: what it is told first was done in an earlier run.
    """
    done = 0

    def tell(epochs, text=""):
        nonlocal done, resumed
        advance((epochs - done) * members, text, resumed)
        done, resumed = epochs, False

    return tell


class Progress:
    """Count up to `total`; used as a context manager.

    unit_scale: count bytes, say, in k and M.
    """

    EVERY = 10  # seconds between two plain lines

    def __init__(self, total, description, unit="epoch", unit_scale=False):
        self.plain = not sys.stderr.isatty()
        self.description, self.unit, self.scale = description, unit, 1e6 if unit_scale else 1
        self.started = self.said = time.monotonic()
        self.bar = tqdm(
            total=total, desc=description, unit=unit, unit_scale=unit_scale, dynamic_ncols=True, disable=self.plain
        )
        self.total, self.done, self.before = total, 0, 0

    def advance(self, count=1, text="", before=False):
        """Count on. `before`: it was done in an earlier run, so it says nothing of how long the rest takes."""
        if not count:
            return
        self.done += count
        if before:
            self.before += count
            if not self.plain:  # a disabled bar has no such count
                self.bar.initial += count
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(count)
        now = time.monotonic()
        if self.plain and self.done > self.before and (now - self.said >= self.EVERY or self.done >= self.total):
            self.said = now
            left = (now - self.started) / max(self.done - self.before, 1e-9) * (self.total - self.done)
            counted = (
                f"{self.done / self.scale:.4g}/{self.total / self.scale:.4g} {'M' if self.scale > 1 else ''}{self.unit}"
            )
            print(
                f"{self.description}: {counted}, {now - self.started:.0f} s, about {left:.0f} s to go; {text}".rstrip(
                    "; "
                ),
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
