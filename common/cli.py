"""The flags that all scripts share, what follows from them, and how a script starts and ends."""

import argparse
import contextlib
import errno
import functools
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from common.support import checkpoints, epoch_log, failures, machine, signals, streams
from common.support.errors import Fields, UsageError, UserError, gpu_failure, out_of_memory, reading, unreadable
from common.support.files import atomic, locked, remove_stale

ROOT = Path(__file__).resolve().parents[1]
SEEDS = {"quick": 2, "full": 5}
MOST_SEEDS = 1000
PACKAGES = ("torch", "torchvision", "numpy", "matplotlib", "scikit-learn")
# an OSError that is the fault of a path that the user chose, or of the disk
OF_FILES = {"ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "ELOOP"}
RESUME = "Rerun the same command without --fresh to resume"


@dataclass(frozen=True)
class Options:
    """The settings of one start of a script: its flags, with what they leave open decided."""

    command: str
    started: float  # seconds since 1970
    git_commit: str | None  # the commit of the code that runs, whatever is committed meanwhile
    scale: str
    device: str
    precision: str
    convolutions: str | None  # None where the script has no such flag
    seeds: range
    epochs: int | None  # None: each configuration's own
    batch_size: int | None
    data: Path | None
    out: Path
    redraw: bool
    plan: bool
    fresh: bool
    keep_checkpoints: bool

    @property
    def overrides(self) -> dict[str, int]:
        """Return the values that replace those of every configuration: epochs and batch_size, where a flag has one."""
        values = {"epochs": self.epochs, "batch_size": self.batch_size}
        return {name: value for name, value in values.items() if value is not None}


def positive(text: str) -> int:
    """Parse a positive integer that fits in a tensor's size, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= sys.maxsize:
        raise ValueError
    return int(text)


def seed_count(text: str) -> int:
    """Parse a number of seeds, for argparse: every run of every seed is held in a list, so there is a limit."""
    if positive(text) > MOST_SEEDS:
        raise ValueError
    return int(text)


# argparse prints these names where the text is not one
positive.__name__, seed_count.__name__ = "positive integer", f"number of seeds from 1 to {MOST_SEEDS}"


class Parser(argparse.ArgumentParser):
    """A parser whose errors have the form of all others."""

    def error(self, message):
        self.print_usage(sys.stderr)
        exit_with(message, 2)


def plain_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser without flags: it prints the description as it is, and accepts no abbreviated flags."""
    return Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)


def make_parser(description: str, seeds: dict = SEEDS) -> argparse.ArgumentParser:
    """Return a parser with the flags that all scripts share."""
    parser = plain_parser(description)
    add = parser.add_argument
    add(
        "--scale",
        choices=("quick", "full"),
        help="full: the report's data, epochs and batch sizes; "
        "quick: minutes, on the embedded sample (default: full on CUDA, else quick)",
    )
    add("--device", choices=machine.DEVICES, default="auto", help="where to train (default: auto)")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with CIFAR-10 in any official form, or to download it to (default: data/)",
    )
    add(
        "--seeds",
        type=seed_count,
        metavar="N",
        help=f"train each configuration with seeds 0 to N-1 (default: quick {seeds['quick']}, full {seeds['full']})",
    )
    own = "(default: each configuration's own)"
    add("--epochs", type=positive, metavar="N", help=f"train every configuration for N epochs {own}")
    add("--batch-size", type=positive, metavar="N", help=f"train every configuration in batches of N images {own}")
    add(
        "--precision",
        choices=machine.PRECISIONS,
        default="auto",
        help="default: auto, bf16 where the hardware supports it and it is faster, fp16 on GPUs without it, else fp32",
    )
    add(
        "--deterministic",
        action="store_true",
        help="bit-reproducible on CUDA, and slower; a CPU with the same number of cores always is",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: outputs/; outputs_quick/ at quick "
        "scale; outputs_custom/ with other settings or fewer seeds than the report's)",
    )
    add = parser.add_mutually_exclusive_group().add_argument
    add("--plan", action="store_true", help="print every run with its estimated time and memory, and train nothing")
    add("--redraw", action="store_true", help="redraw tables and figures from the saved history, without training")
    add = parser.add_argument
    add("--fresh", action="store_true", help="start over instead of resuming from an unfinished run's checkpoints")
    add("--keep-checkpoints", action="store_true", help="keep checkpoints after a finished run")
    return parser


def add_convolutions(parser: argparse.ArgumentParser) -> None:
    """Add --convolutions, for the scripts whose networks have enough 3x3 convolutions for it to matter."""
    parser.add_argument(
        "--convolutions",
        choices=machine.CONVOLUTIONS,
        default="auto",
        help="algorithm of 3x3 convolutions: winograd (fp32 on a CPU), direct, or auto, the faster (default: auto)",
    )


def resolve_options(
    args: argparse.Namespace, folder: Path, seeds: dict = SEEDS, *, altered: bool = False, name: str = ""
) -> Options:
    """Return the Options that parsed flags ask for.

    folder: of the script; results go to its outputs/ (or outputs_quick/, outputs_custom/), below that to `name`.
    altered: a flag that only this script has makes its runs differ from the report's.

    Raises:
        UsageError: the requested device is not available.
    """
    convolutions = getattr(args, "convolutions", None)
    fewer_seeds = args.seeds is not None and args.seeds < seeds["full"]
    chosen = args.precision != "auto" or convolutions not in (None, "auto")
    altered = altered or args.epochs or args.batch_size or chosen or fewer_seeds
    scale, device, precision = args.scale, args.device, args.precision
    if args.redraw:
        scale = scale or "full"
    elif args.plan and device == "cuda":  # the GPU need not be available
        scale, precision, convolutions = scale or "full", "bf16", convolutions and "direct"
    else:
        device = machine.choose_device(device)
        precision = machine.choose_precision(precision, device)
        convolutions = convolutions and machine.choose_convolutions(convolutions, device, precision)
        if scale is None:
            scale = "full" if device == "cuda" else "quick"
            reason = (
                "CUDA is available" if scale == "full" else "no CUDA device; --scale full trains on all of CIFAR-10"
            )
            print(f"scale: {scale} ({reason})", flush=True)
    if args.deterministic:
        machine.be_deterministic()
    outputs = "outputs_quick" if scale == "quick" else "outputs_custom" if altered else "outputs"
    return Options(
        command=command_line(),
        started=time.time(),
        git_commit=git_commit(),
        scale=scale,
        device=device,
        precision=precision,
        convolutions=convolutions,
        seeds=range(args.seeds or seeds[scale]),
        epochs=args.epochs,
        batch_size=args.batch_size,
        data=args.data,
        out=(args.out or folder / outputs) / name,
        redraw=args.redraw,
        plan=args.plan,
        fresh=args.fresh,
        keep_checkpoints=args.keep_checkpoints,
    )


def run_task(
    description: str, folder: Path, train: Callable, write_results: Callable, *, seeds: dict = SEEDS, name: str = ""
) -> None:
    """Run a task of the assignment from its command line to its tables and figures.

    train: called with the Options. write_results: called with (folder to read from, folder to write to).
    name: folder below outputs/, for a second script of the same task.
    """
    options = resolve_options(make_parser(description, seeds).parse_args(), folder, seeds, name=name)
    if options.plan:
        train(options)
        return
    with output_folder(options):
        if not options.redraw:
            train(options)
        with reading_results(options):
            write_results(options.out, options.out)
    print(f"results: {options.out}")


def reading_results(options: Options) -> contextlib.AbstractContextManager:
    """Return a context manager for writing tables: with --redraw from old results, which may be damaged."""
    return reading(options.out) if options.redraw else contextlib.nullcontext()


@contextlib.contextmanager
def output_folder(options: Options) -> Iterator[None]:
    """Lock `options.out` for this start, and remove the unfinished files that a killed run left there.

    With --fresh the checkpoints are removed first. They are also removed at the end, once everything is written, except
    with --keep-checkpoints: run_all.sh keeps them until all its tasks are done, so that it can resume. The log of
    epochs starts anew unless there is something to resume.

    Raises:
        UserError: another run writes there.
    """
    folder = options.out / "checkpoints"
    with locked(folder / "lock", wait=False, busy="another run of this task is writing there"):
        remove_stale(options.out)
        if not options.redraw:
            failures.discard(options.out)
            if options.fresh:
                checkpoints.discard_all(folder)
            resumable = [*folder.rglob("*.pt"), *options.out.glob("runs/*.npz")]
            if options.fresh or not resumable:
                epoch_log.discard(options.out)
        yield
        if not (options.redraw or options.keep_checkpoints):
            checkpoints.discard_all(folder)


def write_run_json(options: Options, source: str, **facts) -> None:
    """Write run.json: everything needed to reproduce the results. source: where the data came from."""
    document = {
        "command": options.command,
        "scale": options.scale,
        "seeds": list(options.seeds),
        "device_type": options.device,
        "device": machine.device_name(options.device),
        "cores": machine.cores(),
        "precision": options.precision,
        **({"convolutions": options.convolutions} if options.convolutions else {}),
        "data": source,
        "git_commit": options.git_commit,
        "started": timestamp(options.started),
        "seconds": round(time.time() - options.started, 1),
        "peak_memory_gb": machine.peak_memory_gb(options.device),
        **versions(),
    }
    write_json(options.out / "run.json", document | facts)


def versions() -> dict:
    """Return the versions of Python and of the packages, and the platform, for run.json."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def timestamp(seconds: float) -> str:
    """Format seconds since 1970 as UTC: 2026-11-22T05:09:22Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def command_line() -> str:
    """Return the command that started this process, its script relative to the repository."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT).as_posix() if ROOT in script.parents else sys.argv[0]
    return " ".join(["python", name, *sys.argv[1:]])


def git_commit() -> str | None:
    """Return the commit of the code, marked where files differ from it; None outside a checkout."""

    def git(*arguments):
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path: Path, document: object) -> None:
    """Write `document` to `path`, whole or not at all."""
    with atomic(path) as temporary:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a path need not be UTF-8


def read_json(path: Path, kind: type | tuple = dict) -> Any:
    """Return the content of a JSON file, an object or, with `kind`, a list; its objects are Fields.

    Raises:
        UserError: the file is missing, it is not JSON, or of another kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_hook=functools.partial(Fields, path))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(content, kind):
        raise unreadable(path, f"it holds {'an object' if isinstance(content, dict) else type(content).__name__}")
    return content


def entry_point(main: Callable) -> NoReturn:
    """Call `main` and exit with its status; print an error that the user can fix as one line without traceback.

    A signal ends it with a line and 128 + the signal's number. Where nobody reads what is printed any more, as after
    `| head`, it runs to its end all the same, with status 0.
    """
    signals.raise_on_signals()
    streams.keep_open()
    try:
        sys.exit(main())
    except UsageError as error:
        exit_with(str(error), 2)
    except UserError as error:
        exit_with(str(error), 1)
    except KeyboardInterrupt as stop:
        name, number = signals.name_of(stop)
        exit_with(f"stopped by {name}; what was trained until the last checkpoint is saved. {RESUME}", 128 + number)
    except OSError as error:
        if errno.errorcode.get(error.errno) in OF_FILES:
            path = error.filename or "a file"
            exit_with(f"{path}: {error.strerror}; free some space, or choose another folder", 1)
        raise
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            exit_with(
                "out of memory; close what else uses the GPU, use --device cpu, or lower --batch-size: these are other"
                " settings, which train from the start. The last checkpoint is kept",
                1,
            )
        if line := gpu_failure(error):
            exit_with(line, 1)
        raise


def exit_with(line: str, status: int) -> NoReturn:
    """Print one line to standard error and exit."""
    line = "".join(c if c.isprintable() else " " for c in line)  # it may name a file or quote a flag
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(status)
