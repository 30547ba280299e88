"""Writing files so that a reader, a second run or a power cut never finds half of one."""

import contextlib
import glob
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout  # torch depends on it, so it is installed

from common.support.errors import UserError


class CannotWrite(UserError):
    """A file that cannot be written, as on a full disk. Whatever is written next will most likely fail too."""


@contextlib.contextmanager
def atomic(path: str | Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it becomes `path` only when the block ends without an error.

    It first removes the temporary files that killed writes of `path` left, so two processes that may write the same
    file at once must hold a lock.

    previous: what `path` held is renamed to this first, so that at every moment one of the two exists and is whole.

    Raises:
        CannotWrite: the folder cannot be written, or the disk is full. `path`, or `previous`, then has the old content.
    """
    path = Path(path)
    temporary = None
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # root would replace /dev/null
            raise OSError(None, "it is not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{glob.escape(path.name)}.????????{glob.escape(path.suffix)}"):
            stale.unlink(missing_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        yield Path(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose another folder with --out"
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _sync_folder(folder):
    """Make the renames in `folder` outlast a power cut, on systems that can."""
    with contextlib.suppress(OSError):  # Windows opens no folder; the files are in place all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_stale(folder: str | Path) -> None:
    """Delete the temporary files that a killed `atomic` left in `folder`, and below its checkpoints/, runs/, failed/.

    Call it only while holding the folder's lock: another process may be writing its own.
    """
    folder = Path(folder)
    below = (path for name in ("checkpoints", "runs", "failed") for path in (folder / name).rglob(".*"))
    for path in (*folder.glob(".*"), *below):
        if is_temporary(path) and path.is_file():
            path.unlink(missing_ok=True)


def is_temporary(path: str | Path) -> bool:
    """Return whether `path` has a name that `atomic` gives, .NAME.SUFFIX.8 letters.SUFFIX; other dotfiles are kept."""
    match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.[^.]+)", Path(path).name)
    return bool(match) and Path(match[1]).suffix == match[2]


@contextlib.contextmanager
def locked(path: str | Path, wait: bool = True, busy: str = "another run is using it") -> Iterator[None]:
    """Hold an exclusive lock on the file `path` for the block.

    The system drops it when the process dies, however it dies. The file stays, as the next process locks it too. A
    process that waits prints one line.

    Raises:
        UserError: the lock is taken and `wait` is false.
        CannotWrite: the file cannot be made.
    """
    path = Path(path)
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise
            print(f"{path.parent}: {busy}; waiting for it to end", file=sys.stderr, flush=True)
            lock.acquire(timeout=-1)
    except Timeout as error:
        raise UserError(f"{path.parent}: {busy}; wait for it to end, or choose another folder") from error
    except OSError as error:
        raise CannotWrite(f"cannot write in {path.parent}: {error.strerror or error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()
