"""Standard output and error whose reader goes while a training runs: only what they print is lost, and no error."""

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
    if sys.stdin is None:
        _open_nowhere(0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _open_nowhere(number)
        elif stream is not getattr(sys, f"__{name}__") or (os.name == "nt" and stream.isatty()):
            continue
        raw = Output(number, "wb", closefd=False)
        at_once = getattr(stream, "write_through", False)  # python -u
        text = io.TextIOWrapper(
            raw if at_once else io.BufferedWriter(raw),
            encoding=getattr(stream, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=getattr(stream, "line_buffering", False),
            write_through=at_once,
        )
        setattr(sys, name, text)


def _open_nowhere(number):
    """Open the null device as the standard stream of this number."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
