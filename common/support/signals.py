"""How a script ends by a signal: Ctrl-C, SIGTERM (`timeout`, Slurm, `kill`) and SIGHUP (a terminal that was closed).

It needs to write nothing: checkpoints are written on a clock, and every file whole or not at all.
"""

import contextlib
import signal
from collections.abc import Iterator

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def raise_on_signals() -> None:
    """Make each signal raise KeyboardInterrupt(its number), unless it is ignored, as SIGHUP is under nohup.

    After the first one, a second Ctrl-C ends the process at once, and the others do nothing: `timeout` and a shell may
    both send one.
    """
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number, frame):
    for other in STOPPING:
        signal.signal(other, signal.SIG_DFL if other == signal.SIGINT else signal.SIG_IGN)
    raise KeyboardInterrupt(number)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Hold the signals back within the block: processes started in it never get them, this one does after it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def name_of(stop: KeyboardInterrupt) -> tuple[str, int]:
    """Return the name and the number of the signal that raised `stop`."""
    number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
    return number.name, int(number)
