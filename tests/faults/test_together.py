"""Two processes at once: one waits for the other or is refused in one line, and all outputs are whole."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from common import tables, winograd
from common.support import cifar_files, download, files, native
from grading import build
from tests.conftest import BASH, ROOT, assert_single_error_line, run_python

TASK1 = ROOT / "task1_loss_curves" / "main.py"
START = ("--scale", "quick", "--device", "cpu", "--seeds", "1", "--batch-size", "100", "--epochs")
WAIT = 120  # seconds, for a loaded machine


def begin(*words, cwd=ROOT, **environment):
    """Start this Python with `words`; return the process, whose output is read by `communicate`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=cwd, env={**os.environ, **environment}, **pipes)


def ended(process):
    """Return a process that `begin` started as a finished one, with its output."""
    out, err = process.communicate(timeout=WAIT)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(path):
    """Wait until a file is there."""
    deadline = time.monotonic() + WAIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)


def losses(out):
    return {
        name: values.tobytes()
        for name, values in tables.load_arrays(out / "loss_history_seeds.npz").items()
        if not name.endswith("seconds")
    }


@pytest.mark.attack("a second start, and a --redraw, of a task that trains into the same folder", short=1, whole=3)
def test_two_of_one_task(attempt, tmp_path):
    epochs = 20 + attempt
    first = begin(TASK1, *START, epochs, "--out", tmp_path / "out")
    wait_for(tmp_path / "out" / "checkpoints" / "loss_history_seeds" / "baseline-0.pt")
    others = [begin(TASK1, *START, epochs, *flags, "--out", tmp_path / "out") for flags in ([], ["--redraw"])]
    if os.name == "posix":
        first.send_signal(signal.SIGSTOP)
    for other in others:
        assert_single_error_line(ended(other), "another run of this task is writing there", status=1)
    if os.name == "posix":
        first.send_signal(signal.SIGCONT)
    process = ended(first)
    assert process.returncode == 0, process.stderr
    alone = run_python(TASK1, *START, epochs, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert losses(tmp_path / "out") == losses(tmp_path / "alone")
    pages = [(tmp_path / name / "loss_table.md").read_bytes() for name in ("out", "alone")]
    assert pages[0] == pages[1]
    assert not any(map(files.is_temporary, (tmp_path / "out").rglob("*")))


FETCH = """
import json, sys, time
from common.support import cifar_files, download
folder, md5s = sys.argv[1], json.loads(sys.argv[2])
download.FILES = md5s
source = download._from_archive
def slow(file):
    time.sleep(1)
    return source(file)
download._from_archive = slow
print(download.ensure(folder)[1])
"""


@pytest.mark.attack("two processes that fetch the data into the same folder", short=1, whole=3)
def test_two_that_fetch_the_data(attempt, sample, tmp_path):
    """One makes the six files from an archive; the other waits, prints so, and takes them."""
    part = sample[1][:60]
    raw = cifar_files.encode(part.labels.numpy(), part.images.flatten(1).numpy())
    size = len(raw) // len(cifar_files.FILES)
    parts = {name: raw[size * i : size * (i + 1)] for i, name in enumerate(cifar_files.FILES)}
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = size
            archive.addfile(info, io.BytesIO(content))
    md5s = json.dumps({name: cifar_files.md5(content) for name, content in parts.items()})
    both = [begin("-c", FETCH, tmp_path, md5s) for _ in range(2)]
    done = [ended(process) for process in both]
    assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    sources = sorted(process.stdout.strip() for process in done)
    assert sources[0].endswith("cifar-10-binary.tar.gz") and sources[1].endswith("all six MD5s right")
    assert {name: (tmp_path / download.BINARY / name).read_bytes() for name in parts} == parts
    assert not list(tmp_path.glob(".cifar-10-*"))


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
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    both = [subprocess.Popen(words, cwd=clone, **pipes) for _ in range(2)]
    done = [ended(process) for process in both]
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


LIBRARY = "from common import winograd; winograd.library(); print('built')"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Return an empty folder for compiled libraries; skip where nothing can be compiled."""
    if sys.platform != "linux" or not any(map(shutil.which, native.COMPILERS)):
        pytest.skip("the library is compiled on Linux, by a C compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return native.cache_folder()


STATES = ("empty", "half a library", "of another CPU", "a stale lock", "a killed write", "read-only")


@pytest.mark.attack("two processes that compile one library, in a cache in any state", short=1, whole=len(STATES))
def test_two_that_compile(attempt, cache, monkeypatch):
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
    both = [ended(process) for process in [begin("-c", LIBRARY) for _ in range(2)]]
    assert [process.stdout for process in both] == ["built\n"] * 2, [process.stderr for process in both]
    if state == "read-only":
        return
    assert library.read_bytes() == good and native._intact(library)
    assert not any(map(files.is_temporary, cache.iterdir()))


@pytest.mark.attack("two that write the page, while a task writes its outputs", short=1, whole=2)
def test_two_pages(attempt, tmp_path):
    """The page is that of one alone; the second waits for the first."""
    build.build(tmp_path / "alone")
    (tmp_path / "page").mkdir()
    words = (ROOT / "grading" / "build.py", "--out", tmp_path / "page")
    task = begin(TASK1, *START, 1, "--out", tmp_path / "out")
    done = [ended(process) for process in [begin(*words), begin(*words), task]]
    assert [process.returncode for process in done] == [0, 0, 0], [process.stderr for process in done]
    names = {"index.html", "claims.md", "forest.png", "forest.zh.png"}
    assert {path.name for path in (tmp_path / "page").iterdir()} == {".lock", *names}
    for name in names:
        alone, together = ((tmp_path / folder / name).read_bytes() for folder in ("alone", "page"))
        assert hashlib.sha256(alone).digest() == hashlib.sha256(together).digest(), name
