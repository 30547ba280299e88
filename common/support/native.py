"""Compile a C file of this repository on first use, cache the library, and load it."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from common.support.errors import UserError, first_line
from common.support.files import atomic, locked

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
TIMEOUT = 120  # seconds; a compilation takes about one


@functools.cache
def load(source: Path) -> ctypes.CDLL:
    """Return the library of the C file `source`, compiled with OpenMP for this CPU.

    It is cached in the user's cache folder under a name that depends on source, flags, compiler and CPU. A checksum
    next to it is compared before it is loaded, since loading half a library can end the process.

    Raises:
        UserError: the system is not Linux on x86-64, there is no C compiler, or every one of them fails.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UserError(
            f"{source.name} has been tried on Linux x86-64 only, not on {platform.system()} {platform.machine()}"
        )
    compilers = [path for path in map(shutil.which, COMPILERS) if path]
    if not compilers:
        raise UserError(f"{source.name} needs a C compiler (Debian: apt install gcc)")
    problems = []
    for compiler in compilers:
        try:
            return _load(compiler, source)
        except UserError as problem:
            problems.append(problem)
    raise problems[0]


def _load(compiler, source):
    # the compiler's own macros name its version and, for -march=native, every instruction set of this CPU
    macros = _output(compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull)
    key = hashlib.sha256(source.read_bytes() + " ".join(FLAGS).encode() + macros.encode()).hexdigest()[:16]
    library = cache_folder() / f"{source.stem}-{key}.so"
    with contextlib.suppress(UserError):
        if not _intact(library):
            with locked(library.parent / ".lock", busy="another process is compiling"):
                if not _intact(library):  # that process may have compiled this one
                    _compile(compiler, source, library)
        return _open(library)
    # the cache cannot be written or loaded from: compile for this process; a loaded library no longer needs its file
    with tempfile.TemporaryDirectory() as folder:
        _compile(compiler, source, Path(folder) / library.name)
        return _open(Path(folder) / library.name)


def cache_folder() -> Path:
    """Return the folder of compiled libraries: cifar10-coursework in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):  # a user without a home: nothing is cached, as in any folder that cannot be written
        base = os.devnull
    return Path(base) / "cifar10-coursework"


def _output(*command):
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"the C compiler {command[0]} does not run: {first_line(error)}") from error
    if done.returncode:
        raise UserError(f"the C compiler {command[0]} fails: {first_line(done.stderr.strip() or 'without a message')}")
    return done.stdout


def _compile(compiler, source, library):
    """Compile `source` to `library` and write its checksum; each appears whole or not at all."""
    with atomic(library) as temporary:
        _output(compiler, *FLAGS, "-o", str(temporary), str(source))
        checksum = hashlib.sha256(temporary.read_bytes()).hexdigest()
    with atomic(_checksum_file(library)) as temporary:
        temporary.write_text(checksum)


def _checksum_file(library):
    return library.with_suffix(".sha256")


def _intact(library):
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == _checksum_file(library).read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _open(library):
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise UserError(f"{library} cannot be loaded: {first_line(error)}") from error
