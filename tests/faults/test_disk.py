"""A disk that fails at each write of a task, of a study, of the page and of the data; folders that cannot be written.

A small tmpfs is a disk that is really full; only root may mount one. Everywhere else a write fails by an error that is
injected where the program syncs, names or makes a file.
"""

import errno
import itertools
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from common import cli, tables, training, winograd
from common.support import checkpoints, cifar_files, download, files, machine, native
from common.support.errors import UserError
from grading import build, outputs
from project3_wrn import compare_models
from project3_wrn import main as project3
from project3_wrn.method.recipes import Recipe
from task1_loss_curves import main as task1
from tests import small_cifar
from tests.conftest import ROOT, assert_single_error_line

START = ("--scale", "quick", "--device", "cpu", "--epochs", "1", "--seeds", "1", "--batch-size", "100")
LENET = ("--model", "lenet", "--precision", "fp32", *START)
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
STUDY = {name: ("lenet", Recipe(lr=0.02, cutout=0, weight_decay=decay)) for name, decay in (("a", 0.0), ("b", 0.1))}


@pytest.fixture(autouse=True)
def _quick_starts(monkeypatch):
    """Train in this process, with every epoch as long, and draw nothing: a figure is written as an empty picture."""
    ticks = itertools.count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(machine, "cores", lambda: 1)
    picture = Image.new("RGB", (8, 8))
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: picture.save(file, format="png"))


def contents(folder):
    """Return {path: bytes} of all files below a folder, but not of the lock."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def results(folder):
    """Return {path: content} of the results below a folder, without what says when they were made."""
    found = {name: raw for name, raw in contents(folder).items() if Path(name).name not in ("run.json", "log.csv")}
    for path in folder.rglob("*.npz"):  # a zip has the time of its making
        arrays = tables.load_arrays(path).items()
        found[path.relative_to(folder).as_posix()] = {
            name: values.tobytes() for name, values in arrays if name not in ("started", "git_commit")
        }
    return found


class Disk:
    """Count the writes of this process, and let one of them and all later ones fail.

    number: of the first write that fails, from 0. how: the call that fails: "mkstemp", "fsync" or "replace". below: the
    folder that fails; by default all do.
    """

    def __init__(self, monkeypatch, number, how="fsync", code=errno.ENOSPC, below=None):
        self.count, self.written, self.failed = 0, set(), None
        self.number, self.how, self.code = number, how, code
        real = {"mkstemp": tempfile.mkstemp, "fsync": os.fsync, "replace": os.replace}
        target = None

        def fail(call):
            if self.how == call and self.number < self.count and (below is None or below in target.parents):
                self.failed = self.failed or target
                raise OSError(self.code, os.strerror(self.code))

        def mkstemp(*args, **options):
            nonlocal target
            if "dir" not in options or not str(options.get("prefix", "")).startswith("."):
                return real["mkstemp"](*args, **options)
            target = Path(options["dir"]) / options["prefix"][1:-1]
            self.count += target.name != "log.csv"
            if target.name != "log.csv":
                fail("mkstemp")
            return real["mkstemp"](*args, **options)

        def fsync(handle):
            if target.name != "log.csv":
                fail("fsync")
            return real["fsync"](handle)

        def replace(old, new):
            if target.name != "log.csv":
                fail("replace")
            self.written.add(Path(new))
            return real["replace"](old, new)

        monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)
        monkeypatch.setattr(files.os, "fsync", fsync)
        monkeypatch.setattr(files.os, "replace", replace)


@pytest.fixture
def whole(tmp_path_factory, run_in_process, _quick_starts):
    """Return whole(main, words): the folder of a start that never failed, which is made once."""

    def make(main, words):
        if main not in WHOLE:
            WHOLE[main] = tmp_path_factory.mktemp("whole")
            process = run_in_process(main, *words, "--out", WHOLE[main])
            assert process.returncode == 0, process.stderr
        return WHOLE[main]

    return make


WHOLE = {}


def check_failing_write(main, words, number, attempt, whole, out, monkeypatch, run_in_process):
    """Start with old outputs in `out`, let one write fail, and start again; check what both starts leave.

    attempt: seeds how the write fails.
    """
    chance, whole = random.Random(attempt), whole(main, words)
    how, code = chance.choice(("mkstemp", "fsync", "replace")), chance.choice(ERRORS)
    for path, raw in ((path, b"old " + raw) for path, raw in contents(whole).items() if "runs/" not in path):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(raw)
    old = contents(out)
    with monkeypatch.context() as patch:
        disk = Disk(patch, number, how, code)
        process = run_in_process(main, *words, "--out", out)
    assert_single_error_line(process, "cannot write", disk.failed.name, os.strerror(code), status=1)
    new = contents(out)
    written = {path.relative_to(out).as_posix() for path in disk.written}
    untouched = old.keys() - written - {"log.csv"}
    assert {path: new[path] for path in untouched} == {path: old[path] for path in untouched}
    assert new.keys() <= old.keys() | written | {"log.csv"}  # so no temporary file is left
    process = run_in_process(main, *words, "--out", out)
    assert process.returncode == 0, process.stderr
    assert results(out) == results(whole)


@pytest.mark.attack("a full disk, a used-up quota or a failing disk at one of task 1's writes", short=2, whole=10)
def test_each_write_of_a_task(attempt, whole, tmp_path, monkeypatch, run_in_process):
    check_failing_write(task1.main, START, attempt, attempt, whole, tmp_path, monkeypatch, run_in_process)


@pytest.mark.attack("a full disk, a used-up quota or a failing disk at one of project 3's writes", short=1, whole=14)
def test_each_write_of_project_3(attempt, whole, tmp_path, monkeypatch, run_in_process):
    check_failing_write(project3.main, LENET, 2 * attempt + 1, attempt, whole, tmp_path, monkeypatch, run_in_process)


@pytest.mark.attack("a full disk when a later checkpoint is written", short=1, whole=6)
def test_a_later_checkpoint(attempt, tmp_path, monkeypatch, run_in_process):
    """The checkpoint before it is whole, and the training resumes from there to the same results."""
    number, how = 1 + attempt % 2, ("fsync", "mkstemp", "replace")[attempt // 2]
    words, path = (*START, "--epochs", "3"), Path("checkpoints", "loss_history_seeds", "baseline-0.pt")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "INTERVAL", 0)
        Disk(patch, number, how)
        process = run_in_process(task1.main, *words, "--out", tmp_path / "full")
    assert_single_error_line(process, "cannot write", path.name, "No space left on device", status=1)
    before = checkpoints.load(tmp_path / "full" / path, "", "")
    assert before["epoch"] == 0 and len(before["partial"]["losses"]) == number
    for folder in ("full", "straight"):
        process = run_in_process(task1.main, *words, "--out", tmp_path / folder)
        assert process.returncode == 0, process.stderr
    assert results(tmp_path / "full") == results(tmp_path / "straight")


@pytest.mark.attack("an epoch that cannot be added to log.csv", short=1, whole=2)
def test_the_log_is_not_needed(attempt, whole, tmp_path, monkeypatch, run_in_process):
    main, words = ((task1.main, START), (project3.main, LENET))[attempt]
    real = files.tempfile.mkstemp

    def full(*args, **options):
        if options.get("prefix") == ".log.csv.":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile, "mkstemp", full)
        process = run_in_process(main, *words, "--out", tmp_path)
    assert process.returncode == 0 and process.stderr.count("log.csv is not up to date; training continues") == 1
    assert results(tmp_path) == results(whole(main, words))
    assert not list(tmp_path.rglob("log.csv"))


@pytest.fixture
def disk(tmp_path):
    """Return the folder of a new tmpfs, and resize(kilobytes), which also makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(kilobytes, *options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={kilobytes}k", *options]), "tmpfs", str(folder)]
        process = subprocess.run(words, capture_output=True, text=True)
        if process.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {process.stderr.strip()}")

    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs, and on Linux only")
    resize(16)
    yield folder, lambda *words: resize(*words)
    while subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
        pass


def sizes(folder):
    """Return the kilobytes of all files below a folder, in blocks of a tmpfs."""
    return sum(-(-len(raw) // 4096) * 4 for raw in contents(folder).values())


@pytest.mark.attack("a small disk that is full at a random place of a task", short=1, whole=12)
def test_a_disk_that_is_full(attempt, whole, disk, run_in_process):
    folder, resize = disk
    main, words = ((task1.main, START), (project3.main, LENET))[attempt % 2]
    finished = whole(main, words)
    resize(random.Random(attempt).randrange(24, sizes(finished)), "remount")
    out = folder / "results"
    process = run_in_process(main, *words, "--out", out)
    assert_single_error_line(process, "No space left on device", status=1)
    left = contents(folder)
    assert not [name for name in left if files.is_temporary(name)]
    for name in left:
        if name.endswith((".npz", ".pt")):
            checkpoints.load(folder / name, "", "") if name.endswith(".pt") else tables.load_arrays(folder / name)
    process = run_in_process(main, *words, "--out", out)
    assert_single_error_line(process, "No space left on device", status=1)
    resize(65_536, "remount")
    process = run_in_process(main, *words, "--out", out)
    assert process.returncode == 0, process.stderr
    assert results(out) == results(finished)


@pytest.mark.attack("a disk that is full when the first checkpoint is written, with jobs in several processes")
@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of a file there")
def test_a_training_that_cannot_be_saved_ends_soon(tmp_path):
    """Of ten jobs of many epochs, none trains a second epoch in vain; the message names the cause once."""
    import resource  # not on Windows

    words = ["--scale", "quick", "--device", "cpu", "--seeds", "10", "--epochs", "50", "--out", tmp_path]
    process = subprocess.run(
        [sys.executable, ROOT / "task1_loss_curves" / "main.py", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert_single_error_line(process, "cannot write", "File too large", status=1)
    assert process.stderr.count("File too large") == 1
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.attack("a full disk while a study of several networks trains")
def test_a_study_ends_at_once_and_names_the_cause_once(tmp_path, monkeypatch, run_in_process):
    monkeypatch.setattr(compare_models, "CONFIGS", STUDY)
    words = (*START, "--precision", "fp32", "--out", tmp_path)
    with monkeypatch.context() as patch:
        disk = Disk(patch, number=1)  # the first network's result, after its checkpoint
        process = run_in_process(compare_models.main, *words)
    assert_single_error_line(process, "cannot write", "No space left on device", status=1)
    assert disk.failed.name == "a-0.npz" and process.stderr.count("No space left on device") == 1
    assert list(contents(tmp_path)) == ["compare_models/checkpoints/a-0.pt", "compare_models/log.csv"]
    process = run_in_process(compare_models.main, *words)
    assert process.returncode == 0, process.stderr


@pytest.mark.attack("a full disk at one of the page's writes", short=1, whole=4)
def test_each_write_of_the_page(attempt, tmp_path, monkeypatch, run_in_process):
    names = ("index.html", "claims.md", "forest.png", "forest.zh.png")
    for name in names:
        (tmp_path / name).write_text("old")
    with monkeypatch.context() as patch:
        disk = Disk(patch, number=attempt)
        process = run_in_process(build.main, "--out", tmp_path)
    assert_single_error_line(process, "cannot write", names[attempt], status=1)
    assert disk.failed.name == names[attempt]
    assert [name for name in names if (tmp_path / name).read_bytes() == b"old"] == list(names[attempt:])
    assert {path.name for path in tmp_path.iterdir()} == {".lock", *names}


@pytest.mark.attack("a full disk at a README's write")
def test_a_readme_that_cannot_be_written_is_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text("old")
    Disk(monkeypatch, number=0, how="replace")
    with pytest.raises(files.CannotWrite, match="No space left"):
        tables.write_text(path, "new")
    assert {name: raw for name, raw in contents(tmp_path).items()} == {"README.md": b"old"}


@pytest.fixture
def archived(official, tmp_path):
    """Return a folder with an archive of six small files, which the checks take for the official ones."""
    folder = tmp_path / "data"
    folder.mkdir()
    small_cifar.archive(folder / "cifar-10-binary.tar.gz", official[0])
    return folder


@pytest.mark.attack("a full disk while the data files are written", short=2, whole=18)
def test_each_write_of_the_data(attempt, archived, monkeypatch):
    """Each of the six files once cannot be made, written or named; those before are whole, the next start has all."""
    number, step = divmod(attempt, 3)
    owner, name = ((files.tempfile, "mkstemp"), (Path, "write_bytes"), (files.os, "replace"))[step]
    before, calls, real = contents(archived), [], getattr(owner, name)

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(UserError, match="cannot write"):
            download.load(archived)
    folder = archived / download.BINARY
    written = {path.name: cifar_files.md5(path.read_bytes()) for path in folder.iterdir()}
    assert len(written) == number and written.items() <= download.FILES.items()
    assert before.items() <= contents(archived).items()
    download.load(archived)
    assert {name: cifar_files.md5((folder / name).read_bytes()) for name in download.FILES} == download.FILES


@pytest.mark.attack("a full disk while Winograd's library is compiled", short=1, whole=6)
def test_each_write_of_a_library(attempt, cache, monkeypatch):
    """It is compiled elsewhere for this process; the next one finds no half of it and compiles it for all."""
    with monkeypatch.context() as patch:
        disk = Disk(patch, attempt % 2, ("mkstemp", "fsync", "replace")[attempt // 2], below=cache)
        native.load.__wrapped__(winograd.SOURCE)
    assert disk.failed.parent == cache and not any(map(files.is_temporary, cache.iterdir()))
    native.load.__wrapped__(winograd.SOURCE)
    (library,) = cache.glob("*.so")
    assert native._intact(library)


# --- folders that cannot be written ---


def blocked(kind, folder):
    """Put an obstacle into a folder; return the --out that leads to it."""
    out = folder / "out"
    if kind == "a file":
        out.write_text("in the way")
    elif kind == "below a file":
        (folder / "file").write_text("in the way")
        return folder / "file" / "out"
    elif kind == "a name of 300 letters":
        return folder / ("x" * 300)
    elif kind == "a dangling link":
        out.symlink_to(folder / "nowhere" / "else")
    elif kind == "a loop of links":
        out.symlink_to(out)
    elif kind == "a device":
        return Path(os.devnull)
    elif kind == "a read-only folder":
        if os.geteuid() == 0:
            pytest.skip("root writes into read-only folders")
        folder.chmod(0o500)
    else:  # a folder in the place of a file
        (out / kind).mkdir(parents=True)
        (out / kind / "kept").write_text("in the way")
    return out


PLACES = (
    *("a file", "below a file", "a name of 300 letters", "a dangling link", "a loop of links", "a device"),
    *("a read-only folder", "checkpoints/lock", "run.json", "results.csv", "loss_curves.png", "loss_history.npz"),
    "checkpoints/loss_history_seeds/baseline-0.pt",
)
PLACES3 = ("lenet/checkpoints/lenet-0.pt", "lenet/runs/lenet-0.npz", "lenet/weights-0.pt", "lenet/metrics.json")


@pytest.mark.attack("a folder of outputs that cannot be written", short=3, whole=2 * len(PLACES + PLACES3))
@pytest.mark.skipif(os.name == "nt", reason="other links and devices there")
def test_an_obstacle_is_one_line_and_stays(attempt, tmp_path, run_in_process):
    kind = (PLACES + PLACES3)[attempt // 2 if attempt > 2 else -1 - attempt]
    main, words = (project3.main, LENET) if kind in PLACES3 else (task1.main, START)
    out = blocked(kind, tmp_path)
    before = contents(tmp_path)
    process = run_in_process(main, *words, *(["--fresh"] if attempt % 2 else []), "--out", out)
    tmp_path.chmod(0o700)
    if kind not in PLACES3 or process.returncode:
        assert_single_error_line(process, status=1)
    assert before.items() <= contents(tmp_path).items()
    assert not any(map(files.is_temporary, tmp_path.rglob("*")))


@pytest.mark.attack("a read-only disk", short=1, whole=2)
def test_a_read_only_disk(attempt, whole, disk, run_in_process):
    folder, resize = disk
    resize(65_536, "remount")
    if attempt:
        shutil.copytree(whole(task1.main, START), folder / "out")
    before = contents(folder)
    resize(65_536, "remount", "ro")
    for flags in ([], ["--fresh"], ["--redraw"]):
        process = run_in_process(task1.main, *START, *flags, "--out", folder / "out")
        assert_single_error_line(process, "Read-only file system", status=1)
    assert contents(folder) == before


# --- what killed runs leave ---


def killed_write(path):
    """Write half of a file and die, as by SIGKILL: in a process of its own."""
    if pid := os.fork():
        os.waitpid(pid, 0)
        return
    with files.atomic(path) as temporary:
        temporary.write_bytes(b"half of it")
        os._exit(9)


PLACES_OF_WRITES = ("loss_curves.png", "run.json", "checkpoints/a/0.pt", "runs/a-0.npz", "failed/a-0.log")


@pytest.mark.attack("a process killed while it writes", short=1, whole=3)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_temporary_files_of_the_killed(attempt, cache, archived, tmp_path, monkeypatch, run_in_process):
    """The next write of the same file removes them, the next start those of all files of its folder."""
    out, single = tmp_path / "out", tmp_path / "benchmark.json"
    places = [out / name for name in PLACES_OF_WRITES]
    page = [tmp_path / name for name in ("index.html", "forest.png")]
    libraries = [cache / "winograd.so"]
    for path in (*places, single, *page, *libraries):
        killed_write(path)
    assert len([path for path in tmp_path.rglob(".*") if files.is_temporary(path)]) == len(places) + 4
    (archived / download.BINARY).mkdir()
    killed_write(archived / download.BINARY / "test_batch.bin")
    assert outputs.list_files(out, "*.png") == []
    assert checkpoints.exists(places[2]) is False

    cli.write_json(single, {})
    for path in (*page, *libraries):
        tables.write_text(path, "new")
    process = run_in_process(task1.main, *START, "--out", out)
    assert process.returncode == 0, process.stderr
    download.load(archived)
    assert not list(filter(files.is_temporary, tmp_path.rglob(".*")))


@pytest.mark.attack("a power cut after a file is renamed")
@pytest.mark.skipif(os.name != "posix", reason="only there can a folder be synced")
def test_a_rename_is_synced(tmp_path, monkeypatch):
    """The last call is a sync of the folder, after the rename, which a power cut would undo otherwise."""
    calls, real = [], {"fsync": os.fsync, "replace": os.replace}
    monkeypatch.setattr(
        files.os, "fsync", lambda handle: calls.append(stat.S_ISDIR(os.fstat(handle).st_mode)) or real["fsync"](handle)
    )
    monkeypatch.setattr(files.os, "replace", lambda *paths: calls.append("renamed") or real["replace"](*paths))
    cli.write_json(tmp_path / "a.json", {})
    assert calls == [False, "renamed", True]
