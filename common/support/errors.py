"""The exceptions whose one line of text the user is meant to read, and functions that read other exceptions."""

from pathlib import Path

import torch


class UserError(Exception):
    """Something that the user can correct. Its text is one line: what is wrong, and what to do about it."""


class UsageError(UserError):
    """A command line that asks for something that does not exist; ends with argparse's own exit status."""


def first_line(error: BaseException | str) -> str:
    """Return an exception's first line, or its class name where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, of the GPU or of the machine."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def unreadable(path: Path, problem: Exception | str) -> UserError:
    """Return the UserError for a file of results that is missing or damaged: a run writes it again."""
    if isinstance(problem, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return UserError(f"cannot read {path}: {problem.strerror}; run the task without --redraw first")
    return UserError(f"{path} is damaged ({problem}); run the task without --redraw to write it again")
