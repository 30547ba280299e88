"""Standard output and error that are closed, or whose reader goes while a training runs: only what is printed is lost."""

import errno
import io
import os
import sys

GONE = (errno.EPIPE, errno.EIO)  # nobody reads the pipe any more, or the terminal was closed


class Output(io.FileIO):
    """A stream whose reader may go, as `head` does: what is written afterwards is dropped."""

    def write(self, content):
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in GONE:
                raise
            _open_nowhere(self.fileno())
            return super().write(content)


def keep_open() -> None:
    """Make standard output and error outlast their reader, and print characters that their encoding lacks as escapes.

    A stream that is closed already is opened on the null device; otherwise the next file that is opened would get its
    number, and in it what is printed. A stream that somebody has replaced, as tests do, is left as it is.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _open_nowhere(number)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))
        elif number and stream is getattr(sys, f"__{name}__") and not (os.name == "nt" and stream.isatty()):
            raw = Output(number, "wb", closefd=False)
            text = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, text)


def _open_nowhere(number):
    """Open the null device as the standard stream of this number."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
