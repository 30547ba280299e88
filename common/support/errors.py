"""The exceptions whose one line of text the user is meant to read, and functions that read other exceptions."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

# what libraries say where memory has run out: of the machine, the CUDA driver, cuBLAS and cuDNN
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


class UserError(Exception):
    """Something that the user can correct. Its text is one line: what is wrong, and what to do about it."""


class UsageError(UserError):
    """A command line that asks for something that does not exist; ends with argparse's own exit status."""


def first_line(error: BaseException | str) -> str:
    """Return an exception's first line, or its class name where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, of the GPU or of the machine."""
    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(sign in text for sign in OUT_OF_MEMORY)


def gpu_failure(error: BaseException) -> str:
    """Return one line on what an error of the GPU means for the user, "" of another one or a lack of memory."""
    text = str(error)
    if out_of_memory(error):
        return ""
    if "no kernel image" in text:
        return (
            "this torch has no code for this GPU; install another build of torch (PyTorch's cu126), or use --device cpu"
        )
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in text:
        line = first_line(error)
        return f"the GPU failed ({line}); rerun the same command without --fresh to resume, or use --device cpu"
    return ""


def unreadable(path: Path, problem: Exception | str) -> UserError:
    """Return the UserError for a file of results that is missing or damaged: a run writes it again."""
    if isinstance(problem, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return UserError(f"cannot read {path}: {problem.strerror}; run the task without --redraw first")
    return UserError(f"{path} is damaged ({problem}); run the task without --redraw to write it again")


class Fields(dict):
    """What a file of results holds by name. Asking for a name that it lacks is a UserError that names the file."""

    def __init__(self, path: Path, values: Any = ()):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: object) -> NoReturn:
        raise unreadable(self.path, f"it has no {name}")

    def __reduce__(self) -> tuple:
        return Fields, (self.path, dict(self))


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raise what goes wrong in the block as a UserError: its files are there, but hold what no run of ours writes.

    An error that says enough itself is raised as it is: of the user, of the disk, or a lack of memory; and one that can
    only be a mistake in the code.
    """
    try:
        yield
    except (UserError, OSError, NameError, ImportError):
        raise
    except Exception as error:
        if out_of_memory(error) or str(error).startswith("module '"):  # a module lacks an attribute
            raise
        what = f"{type(error).__name__}: {first_line(error)}"
        files = sorted(path.name for kind in ("json", "csv", "npz") for path in Path(folder).glob(f"[!.]*.{kind}"))
        names = f" ({', '.join(files)})" if files else ""
        raise UserError(
            f"a file in {folder}{names} is damaged, or of another version ({what}); write it again, or restore it"
        ) from error
