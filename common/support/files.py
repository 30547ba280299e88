"""Writing files so that a reader, a second run or a power cut never meets half of one."""

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

from common.support.errors import UserError


@contextlib.contextmanager
def atomic(path, previous=None):
    """Yield a temporary path beside `path`; it becomes `path` only when the block ends without an error.

    previous: what was at `path` is renamed to this first, so that at every moment one of the two is there, and whole.

    Raises:
        UserError: the folder cannot be written, or the disk is full. `path`, or `previous`, then holds what it was before.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        yield Path(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose another folder with --out"
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def remove_stale(folder):
    """Delete the temporary files that a killed `atomic` left in `folder`, and in and below its checkpoints/ and runs/.

    Only for who holds the folder alone: another process may be writing its own.
    """
    folder = Path(folder)
    below = (path for name in ("checkpoints", "runs") for path in (folder / name).rglob(".*"))
    for path in (*folder.glob(".*"), *below):
        if is_temporary(path) and path.is_file():
            path.unlink(missing_ok=True)


def is_temporary(path):
    """Return whether `atomic` names an unfinished file so: .NAME.SUFFIX.8 letters.SUFFIX. Other dotfiles are the user's."""
    found = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.[^.]+)", Path(path).name)
    return bool(found) and Path(found[1]).suffix == found[2]


def clear_checkpoints(folder):
    """Delete all checkpoints in `folder` and below: both generations, measured logits, and what a kill left of one."""
    for path in Path(folder).rglob("*.pt"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path, wait=True, busy="another run is using it"):
    """Hold an exclusive lock on the file `path` for the block. The system drops it when the process dies, however it dies.

    Raises:
        UserError: the lock is taken and `wait` is false, or the file cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+")  # noqa: SIM115 (closed below, after it has been locked)
    except OSError as error:
        raise UserError(f"cannot write in {path.parent}: {error.strerror}; choose another folder") from error
    with handle:
        while not _try_lock(handle):
            if not wait:
                raise UserError(f"{path.parent}: {busy}; wait for it to end, or choose another folder")
            time.sleep(0.2)
        yield


def _try_lock(handle):
    try:
        if os.name == "nt":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):  # another process has it; any other error is told as it is
        return False
