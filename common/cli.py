"""The few flags every main.py shares, and what follows from them: device, scale, where results go, provenance.

Nothing here imports torch before it has to: `--help` and a wrong flag answer at once.
"""

import argparse
import contextlib
import errno
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from common.files import atomic, clear_checkpoints, locked, remove_stale
from common.problem import Problem

USAGE_ERROR = 2  # the status that argparse exits with
ROOT = Path(__file__).resolve().parents[1]
DEVICES = ("auto", "cpu", "cuda", "mps")
CONVOLUTIONS = ("auto", "direct", "winograd")
SEEDS = {"quick": 2, "full": 5}


def positive(text):
    """An argparse type: a whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def flags(description, seeds=SEEDS):
    """Return a parser with the flags that all tasks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--scale",
        choices=("quick", "full"),
        help="full: the report's data, epochs and batch sizes; quick: minutes, on the embedded sample (full on CUDA, else quick)",
    )
    add("--device", choices=DEVICES, default="auto", help="where to train (auto)")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with CIFAR-10 in any official form, or to download it to (default: data/)",
    )
    add(
        "--seeds",
        type=positive,
        metavar="N",
        help=f"trainings of each run, with seeds 0 to N-1 (quick {seeds['quick']}, full {seeds['full']})",
    )
    add("--epochs", type=positive, metavar="N", help="override the epochs of every run")
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="override the batch size of every run",
    )
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where the hardware supports it and it is faster, else fp32",
    )
    add(
        "--deterministic",
        action="store_true",
        help="bit-reproducible on CUDA, and slower; a CPU always is",
    )
    add("--lang", choices=("en", "zh"), default="en", help="language of the figures (en)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results go (outputs/; outputs_quick/ at quick scale; outputs_custom/ with altered runs or fewer seeds)",
    )
    add("--redraw", action="store_true", help="redraw tables and figures from the saved history, without training")
    add(
        "--keep-checkpoints",
        action="store_true",
        help="keep checkpoints after a finished run; run_all.sh removes them at its end",
    )
    add("--fresh", action="store_true", help="start over instead of resuming from an unfinished run's checkpoints")
    return parser


def add_convolutions(parser):
    """Add --convolutions, for the scripts whose networks have 3x3 convolutions enough for it to matter."""
    parser.add_argument(
        "--convolutions",
        choices=CONVOLUTIONS,
        default="auto",
        help="how 3x3 convolutions are computed: winograd (fp32 on a CPU), direct, or winograd where it is faster (auto)",
    )


def settle(options, task, seeds=SEEDS, altered=False):
    """Fill in what the flags left open: device, precision, scale, seeds and `options.out`, the folder of results.

    altered: a flag that only this task has makes its runs others than the report's.
    """
    options.command = "python " + " ".join(
        [
            Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix() if _inside(sys.argv[0]) else sys.argv[0],
            *sys.argv[1:],
        ]
    )
    options.started = time.time()
    options.git_commit = git_commit()  # of the code that runs, whatever is committed meanwhile
    if options.deterministic:
        be_deterministic()
    fewer_seeds = options.seeds is not None and options.seeds < seeds["full"]
    otherwise = options.precision != "auto" or getattr(options, "convolutions", "auto") != "auto"
    altered = altered or options.epochs or options.batch_size or otherwise or fewer_seeds
    if options.redraw and options.scale is None:
        options.scale = "full"
    if not options.redraw:
        options.device = choose_device(options.device)
        options.precision = choose_precision(options.precision, options.device)
        if hasattr(options, "convolutions"):
            options.convolutions = choose_convolutions(options.convolutions, options.device, options.precision)
        if options.scale is None:
            options.scale = "full" if options.device == "cuda" else "quick"
            why = (
                "CUDA is here"
                if options.scale == "full"
                else "there is no CUDA; --scale full trains on all of CIFAR-10"
            )
            print(f"scale: {options.scale} ({why})", flush=True)
    folder = "outputs_quick" if options.scale == "quick" else "outputs_custom" if altered else "outputs"
    options.out = options.out or task / folder
    options.seeds = range(options.seeds or seeds[options.scale])
    return options


def be_deterministic():
    """Ask torch for the algorithms that give the same each time; where an operation has none, torch warns and names it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS reads as it starts
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)


def _inside(path):
    return ROOT in Path(path).resolve().parents


def choose_device(name):
    """The torch device type for `auto`, `cpu`, `cuda` or `mps`.

    Leaves with status 2, a usage error, where it was asked for by name and is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        here = " or ".join(device for device in there if there[device])
        _leave(f"device {name} is not available here; use --device {here}", USAGE_ERROR)
    return name


def choose_precision(name, device):
    """`auto` is bf16 on CUDA and on CPUs with bf16 instructions. Emulated bf16 is a hundred times slower than fp32."""
    if name != "auto":
        return name
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16():
    """Return whether this CPU computes in bf16 rather than emulates it."""
    import torch

    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_convolutions(name, device, precision):
    """Return `direct` or `winograd` for `auto`, `direct` or `winograd`; `auto` prints one line where it cannot have the faster.

    CPUs with bf16 also have AVX-512, whose direct fp32 convolutions are as fast as Winograd's: there `auto` is direct.
    Exits with status 2, a usage error, where Winograd's is asked for on a GPU or in bf16.

    Raises:
        Problem: Winograd's is asked for by name and cannot be compiled here.
    """
    if name == "direct" or (name == "auto" and (device != "cpu" or precision != "fp32" or cpu_has_bf16())):
        return "direct"
    if device != "cpu" or precision != "fp32":
        _leave(
            f"--convolutions winograd computes in fp32 on a CPU, not in {precision} on {device};"
            " add --device cpu --precision fp32, or leave it out",
            USAGE_ERROR,
        )
    from common import winograd

    try:
        winograd.library()
    except Problem as problem:
        if name == "winograd":
            raise
        print(f"convolutions: direct ({problem})", flush=True)
        return "direct"
    return "winograd"


def cores():
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provenance(options, source):
    """Return everything needed to reproduce the results, as a dict for run.json."""
    import torch

    packages = ("torch", "torchvision", "numpy", "matplotlib", "scikit-learn")
    return {
        "command": options.command,
        "scale": options.scale,
        "seeds": list(options.seeds),
        "device_type": options.device,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else cpu_name(),
        "cores": cores(),
        "precision": options.precision,
        **({"convolutions": options.convolutions} if hasattr(options, "convolutions") else {}),
        "data": source,
        "git_commit": options.git_commit,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(options.started)),
        "seconds": round(time.time() - options.started, 1),
        "peak_memory_gb": peak_memory_gb(options.device),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: metadata.version(name) for name in packages},
    }


def peak_memory_gb(device):
    """Return the peak memory in GB of the GPU, else of this process or its largest child; None if unknown."""
    import torch

    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(largest * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


def cpu_name():
    import torch

    named = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name")
    return f"{named or platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def git_commit():
    """Return the commit of the code, marked where files differ from it; None outside a checkout."""
    try:
        run = lambda *words: subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + (
            " with changes" if run("status", "--porcelain", "--untracked-files=no", "--", "*.py") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path, document):
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path):
    """Raises Problem where there is no such file, or it is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}; run the task without --redraw first") from error
    except ValueError as error:
        raise Problem(f"{path} is damaged ({error}); run the task without --redraw to write it again") from error


@contextlib.contextmanager
def alone(folder):
    """Hold `folder` for this run alone, and remove what a run that was killed left half written there.

    Raises:
        Problem: another run writes there.
    """
    busy = "another run of this task is writing there"
    with locked(Path(folder) / "checkpoints" / "lock", wait=False, busy=busy):
        remove_stale(folder)
        yield


def finish(options):
    """Let go of the checkpoints of a task, once its report is drawn: the work is done.

    run_all.sh keeps them until all its tasks are done, so that it can resume too.
    """
    if not (options.redraw or options.keep_checkpoints):
        clear_checkpoints(options.out / "checkpoints")


def run(main):
    """Call `main` and leave with its exit status; what the user can put right becomes one line and no traceback."""
    try:
        sys.exit(main())
    except Problem as problem:
        _leave(str(problem), 1)
    except KeyboardInterrupt:
        _leave(
            "interrupted; finished work is saved. Rerun the same command without --fresh to resume",
            130,
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            _leave(
                f"{error.filename or 'a file'}: {error.strerror}; free some space or choose another folder with --out",
                1,
            )
        raise
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            _leave("out of memory; lower --batch-size or use --device cpu. The last checkpoint is kept", 1)
        raise


def _leave(line, status):
    print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(status)
