"""Runs that failed while others continued: one line for the user, and the traceback in failed/ of the outputs."""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from common.support.errors import UserError, first_line, out_of_memory
from common.support.files import CannotWrite, atomic

FOLDER = "failed"


def discard(folder: Path) -> None:
    """Delete the tracebacks of an earlier start."""
    for path in (folder / FOLDER).glob("*.log"):
        with contextlib.suppress(OSError):  # another program has it open
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there is none, or it has other files
        (folder / FOLDER).rmdir()


@contextlib.contextmanager
def noted(
    failed: dict[str, str],
    names: Sequence[str],
    path: Path,
    log: Callable[[str], None],
    fatal: Callable[[Exception], bool],
) -> Iterator[None]:
    """Add {name: cause} for each of `names` to `failed` where the block raises an exception, and end it without one.

    CannotWrite is raised: no other run could save anything either, and hours of training would be lost.

    path: where the traceback is written. log: prints a line. fatal: (error) -> whether to raise it too.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, CannotWrite) or fatal(error):
            raise
        cause, place = explain(error), f"; traceback: {path}"
        try:
            with atomic(path) as temporary:
                temporary.write_text(
                    "".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace"
                )
        except UserError:  # a full disk, perhaps what the run failed by
            place = ""
        for name in names:
            failed[name] = cause
            log(f"failed, and left out: {name} ({cause}){place}")


def explain(error: Exception) -> str:
    """Return one line on why a run failed."""
    if out_of_memory(error):
        return "out of memory; lower --batch-size"
    return str(error) if isinstance(error, UserError) else first_line(error)


def raise_if_any(failed: dict[str, str], consequence: str) -> None:
    """Raise UserError that names the failed runs by cause, if there are any, and what follows for the results."""
    if not failed:
        return
    causes = dict.fromkeys(failed.values())
    parts = [f"{', '.join(name for name in failed if failed[name] == cause)} ({cause})" for cause in causes]
    raise UserError(f"{len(failed)} failed: {'; '.join(parts)}. {consequence}; rerun the command to try again")
