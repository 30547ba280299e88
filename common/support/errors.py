"""The exceptions whose one line of text the user is meant to read, and functions that read other exceptions."""

from pathlib import Path

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
