"""How a script ends by a signal: Ctrl-C, SIGTERM (`timeout`, Slurm, `kill`) and SIGHUP (a terminal that was closed).

It needs to write nothing: checkpoints are written on a clock, and every file whole or not at all.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def answer_while_importing(module: str) -> None:
    """Make each signal end the script with one line from now on: a second or two pass until torch is imported.

    module: the caller's `__name__`; nothing is done for a script that is itself imported.
    """
    if module == "__main__":
        for number in _heeded():
            signal.signal(number, _exit)


def raise_on_signals() -> None:
    """Make each signal raise KeyboardInterrupt(its number), unless it is ignored, as SIGHUP is under nohup.

    After the first one, a second Ctrl-C ends the process at once, and the others do nothing: `timeout` and a shell may
    both send one.
    """
    for number in _heeded():
        signal.signal(number, _stop)


def _heeded():
    return [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]


def _exit(number, frame):
    name = signal.Signals(number).name
    print(f"error: stopped by {name}; nothing was trained yet. Rerun the same command", file=sys.stderr, flush=True)
    os._exit(128 + number)  # an import that is under way cannot be left in another way without a traceback


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
