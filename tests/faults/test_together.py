"""Two processes at once: one waits for the other or is refused in one line, and all outputs are whole."""

import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

import pytest

from common import tables, winograd
from common.support import download, files, machine, native
from grading import build
from task1_loss_curves import main as task1
from tests import small_cifar
from tests.conftest import BASH, ROOT, assert_single_error_line

TASK1 = ROOT / "task1_loss_curves" / "main.py"
START = ("--scale", "quick", "--device", "cpu", "--seeds", "1", "--batch-size", "100", "--epochs")
WAIT = 120  # seconds, for a loaded machine
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}


def together(folder, *functions):
    """Call functions at once, each in a process that is forked from this one; return [(status, output), ...]."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    children = []
    for number, function in enumerate(functions):
        log = folder / f"{number}.log"
        if pid := os.fork():
            children.append((pid, log))
            continue
        signal.alarm(WAIT)
        status = 1
        try:
            with open(log, "w", encoding="utf-8") as file:
                sys.stdout = sys.stderr = file
                try:
                    function()
                    status = 0
                except BaseException:
                    traceback.print_exc()
        finally:
            os._exit(status)
    return [
        (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text(encoding="utf-8")) for pid, log in children
    ]


def wait_for(path):
    """Wait until a file is there."""
    deadline = time.monotonic() + WAIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)


def losses(out):
    arrays = tables.load_arrays(out / "loss_history_seeds.npz").items()
    return {name: values.tobytes() for name, values in arrays if not name.endswith("seconds")}


@pytest.mark.attack("a second start, and a --redraw, of a task that trains into the same folder", short=1, whole=3)
def test_two_of_one_task(attempt, tmp_path, monkeypatch, run_in_process):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    out, words = tmp_path / "out", (*START, 20 + attempt)
    first = subprocess.Popen([sys.executable, TASK1, *map(str, words), "--out", out], **PIPES)
    wait_for(out / "checkpoints" / "loss_history_seeds" / "baseline-0.pt")
    if os.name == "posix":
        first.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
    for flags in ([], ["--redraw"], ["--fresh"]):
        second = run_in_process(task1.main, *words, *flags, "--out", out)
        assert_single_error_line(second, "another run of this task is writing there", status=1)
    if os.name == "posix":
        first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=WAIT)
    assert first.returncode == 0, errors
    alone = run_in_process(task1.main, *words, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert losses(out) == losses(tmp_path / "alone")
    pages = [(folder / "loss_table.md").read_bytes() for folder in (out, tmp_path / "alone")]
    assert pages[0] == pages[1]
    assert not any(map(files.is_temporary, out.rglob("*")))


@pytest.mark.attack("two processes that fetch the data into the same folder", short=1, whole=3)
def test_two_that_fetch_the_data(attempt, official, tmp_path, monkeypatch):
    """One makes the six files from an archive; the other waits, prints so, and takes them."""
    parts, _ = official
    small_cifar.archive(tmp_path / "cifar-10-binary.tar.gz", parts)
    real = download._from_archive
    monkeypatch.setattr(download, "_from_archive", lambda file: time.sleep(0.5) or real(file))

    def fetch():
        print(download.load(tmp_path)[1])

    (first, one), (second, other) = together(tmp_path, fetch, fetch)
    assert (first, second) == (0, 0), one + other
    waited, made = sorted((one, other), key=lambda output: "waiting for it" not in output)
    assert made.endswith("cifar-10-binary.tar.gz\n")
    assert "another run is using it; waiting" in waited and waited.endswith("all six MD5s right\n")
    assert {name: (tmp_path / download.BINARY / name).read_bytes() for name in parts} == parts
    assert not list(filter(files.is_temporary, (tmp_path / download.BINARY).iterdir()))


@pytest.mark.attack("two run_all.sh in one clone", short=1, whole=1)
@pytest.mark.skipif(os.name == "nt" or not shutil.which("git"), reason="needs git and links")
def test_two_run_all(request, tmp_path):
    """Each task is trained by one of them and refused to the other, or by both in turn; page and READMEs are whole."""
    if not request.config.getoption("--faults"):
        pytest.skip("takes a minute: with --faults")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    (clone / ".venv").symlink_to(sys.prefix)
    words = [BASH, "run_all.sh", "--scale", "quick", "--device", "cpu", "task1_loss_curves"]
    both = [subprocess.Popen(words, cwd=clone, **PIPES) for _ in range(2)]
    done = [
        subprocess.CompletedProcess(words, process.wait(), *output)
        for process, output in [(process, process.communicate(timeout=2 * WAIT)) for process in both]
    ]
    assert sorted(process.returncode for process in done) in ([0, 0], [0, 1])
    for process in done:
        assert "Traceback" not in process.stderr
        if process.returncode:
            assert process.stderr.count("another run of this task is writing there") == 1
            assert "failed: task1_loss_curves/main.py" in process.stderr
    out = clone / "task1_loss_curves" / "outputs_quick"
    assert losses(out) and (out / "loss_table.md").exists()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True).stdout
    assert "README" not in changed, changed
    assert (clone / "grading" / "index.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert not any(map(files.is_temporary, clone.rglob(".*")))


STATES = ("empty", "half a library", "of another CPU", "a stale lock", "a killed write", "read-only")


@pytest.mark.attack("two processes that compile one library, in a cache in any state", short=1, whole=len(STATES))
def test_two_that_compile(attempt, cache, tmp_path):
    state = STATES[attempt]
    native.load.__wrapped__(winograd.SOURCE)
    (library,) = cache.glob("*.so")
    good = library.read_bytes()
    if state == "half a library":
        library.unlink()
        library.write_bytes(good[: len(good) // 2])
    elif state == "of another CPU":  # its name has another key, so it is neither used nor removed
        library.rename(cache / "winograd-0123456789abcdef.so")
    else:
        shutil.rmtree(cache)
        cache.mkdir()
    if state == "a stale lock":
        (cache / ".lock").write_text("12345")
    if state == "a killed write":
        (cache / f".{library.name}.abcdefgh.so").write_bytes(good[:100])
    if state == "read-only":
        if os.geteuid() == 0:
            shutil.rmtree(cache)
            cache.write_text("root writes into read-only folders, and not into a file")
        else:
            cache.chmod(0o500)
    done = together(tmp_path, *[lambda: native.load.__wrapped__(winograd.SOURCE)] * 2)
    assert [status for status, _ in done] == [0, 0], done
    if state == "read-only":
        return
    assert library.read_bytes() == good and native._intact(library)
    assert not any(map(files.is_temporary, cache.iterdir()))


@pytest.mark.attack("two processes that write the page into one folder", short=1, whole=3)
def test_two_pages(attempt, tmp_path, monkeypatch):
    """The page is that of one alone; the second waits for the first."""
    build.build(tmp_path / "alone")
    monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path / "page")])
    done = together(tmp_path, build.main, build.main)
    assert [status for status, _ in done] == [0, 0], done
    assert sum("another process is writing the page; waiting" in output for _, output in done) == 1
    names = {"index.html", "claims.md", "forest.png", "forest.zh.png"}
    assert {path.name for path in (tmp_path / "page").iterdir()} == {".lock", *names}
    for name in names:
        assert (tmp_path / "page" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
