"""What surrounds a start: programs and folders that are missing, closed streams, small terminals, old Pythons.

`predict.py` stands for all scripts where no training is needed, as it takes the least time.
"""

import ast
import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.support import download, native, streams
from project3_wrn import main
from task1_loss_curves import main as task1
from tests.conftest import BASH, ROOT, assert_single_error_line, run, run_python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="its attacks are those of a POSIX system")
PHOTO = ROOT / "project3_wrn" / "photo.png"
PREDICT = ROOT / "project3_wrn" / "predict.py"
TRAIN = ("--scale", "quick", "--device", "cpu", "--seeds", "1", "--epochs", "1")
TRAININGS = (  # script, flags, and what it writes last
    (ROOT / "task1_loss_curves" / "main.py", TRAIN, "loss_table.md"),
    (ROOT / "project3_wrn" / "main.py", (*TRAIN, "--model", "lenet"), "performance.md"),
)
SECONDS = 280


def predict(out, *flags, **environment):
    return run_python(PREDICT, PHOTO, "--out", out, *flags, **environment)


def shell(line, *arguments, **environment):
    """Run a line of bash in which "$@" is a command of this Python; return the finished process."""
    return run(BASH, "-c", line, "bash", sys.executable, *arguments, timeout=SECONDS, **environment)


def succeeds(process, *files):
    """Assert that a process ended well, without a traceback, and has written whole files."""
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr and "Exception ignored" not in process.stderr
    for file in files:
        assert Path(file).stat().st_size > 1000, file


# --- the streams ---

STREAMS = (  # lines of bash
    '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}',
    '"$@" <&- >&- 2>&-',
    '"$@" | head -n 1; exit ${PIPESTATUS[0]}',
    '"$@" >&-',
    '"$@" 2>&-',
    '"$@" >&- 2>&-',
)


@pytest.mark.attack("closed streams, and readers that end: a prediction", short=2, whole=len(STREAMS))
def test_streams_of_a_prediction(attempt, tmp_path):
    out = tmp_path / "out.png"
    succeeds(shell(STREAMS[attempt], PREDICT, PHOTO, "--out", out), out)


@pytest.mark.attack("closed streams, and readers that end: a training", short=1, whole=2 * len(STREAMS))
def test_streams_of_a_training(attempt, tmp_path):
    """A training outlasts whoever reads its progress."""
    script, flags, last = TRAININGS[attempt % 2]
    line = STREAMS[attempt // 2]
    succeeds(shell(line, script, *flags, "--out", tmp_path))
    assert list(tmp_path.rglob(last))


@pytest.mark.attack("the output goes to a full disk")
def test_output_to_a_full_disk(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    process = shell('"$@" >/dev/full', PREDICT, PHOTO, "--out", tmp_path / "out.png")
    assert_single_error_line(process, "No space left", status=1)


PRINT = """
import sys, time
from common.support import streams
streams.keep_open()
for number in range(200):
    print(number, file=sys.stderr if number % 2 else sys.stdout, flush=True)
    time.sleep(0.01)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.attack("the terminal is closed", short=1, whole=10)
def test_a_closed_terminal(attempt, tmp_path):
    """As after a connection is lost: writing to the terminal is an error from then on."""
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", PRINT, tmp_path / "file"], cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.read(ours, 10)
    time.sleep(0.02 * attempt)
    os.close(ours)
    assert process.wait(SECONDS) == 0
    assert (tmp_path / "file").read_text() == "done"


def test_output_is_as_it_was_where_nothing_closes():
    """Encoding, buffering and what is printed stay the same."""
    code = (
        "import sys; from common.support import streams; {} print('é', sys.stdout.encoding, sys.stdout.line_buffering)"
    )
    for flags in ((), ("-u",)):
        outputs = [run_python(*flags, "-c", code.format(call)) for call in ("", "streams.keep_open();")]
        assert outputs[0].stdout == outputs[1].stdout and outputs[1].returncode == 0, outputs[1].stderr
    assert streams.GONE


# --- what is missing ---


MISSING = (  # all at once, then one after another
    {"PATH": "/nonexistent", "HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
    {"PATH": "/nonexistent"},
    {"TMPDIR": "/nonexistent"},
    *({"HOME": home} for home in ("/nonexistent", "/proc/1", "", "relative")),
)


@pytest.mark.attack("no git, npm and compiler, no home, no folder for temporary files", whole=len(MISSING))
def test_what_is_missing(attempt, tmp_path):
    succeeds(predict(tmp_path / "out.png", **MISSING[attempt]), tmp_path / "out.png")


@pytest.mark.attack("no home: neither $HOME nor an entry of the account")
def test_no_home(tmp_path, monkeypatch):
    def unknown(*arguments):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(download, "FOLDER", tmp_path)
    monkeypatch.setattr(download, "_remote", lambda: iter(()))
    with pytest.raises(download.UserError, match="could not obtain CIFAR-10"):
        download.load()
    if shutil.which("cc") or shutil.which("gcc"):
        assert native.load(ROOT / "common" / "winograd.c")


# --- language, terminal and clock ---

LOCALES = ({"LANG": "C", "LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {})


@pytest.mark.attack("the language is C, and a folder is named in Chinese", whole=len(LOCALES))
def test_names_that_the_encoding_lacks(attempt, tmp_path):
    folder = tmp_path / "课程 作业 é"
    folder.mkdir()
    settings = {"PYTHONIOENCODING": "ascii", **LOCALES[attempt]}
    process = predict(folder / "out.png", **settings)
    succeeds(process, folder / "out.png")
    assert "\\u8bfe" in process.stdout


@pytest.mark.attack("--help in a terminal of 20 columns, or of a width that makes no sense")
@pytest.mark.parametrize("columns", ["20", "1", "0", "-5", "x", "9" * 30])
def test_help_in_a_narrow_terminal(columns, monkeypatch, run_in_process):
    monkeypatch.setenv("COLUMNS", columns)
    process = run_in_process(main.main, "--help")
    assert process.returncode == 0 and "--gradcam-layer" in process.stdout, process.stderr


BAR = """
import time
from common.support.progress import Progress
with Progress(3, "a long description, " * 9) as progress:
    for _ in range(3):
        progress.advance(1, "a long text, " * 20)
        progress.log("a line")
print("done")
"""


@pytest.mark.attack("a real terminal of 20 columns that knows no codes")
def test_progress_on_a_small_terminal():
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x05\0\x14\0\0\0\0\0")  # 5 rows of 20 columns
    environment = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen([sys.executable, "-c", BAR], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while chunk := os.read(ours, 1 << 16):
            printed += chunk
    os.close(ours)
    assert process.wait(SECONDS) == 0 and b"done" in printed and b"Traceback" not in printed, printed
    assert printed.count(b"\r\n") <= 6, "a bar that is too long is broken into several lines"


@pytest.mark.attack("the clock is wrong")
@pytest.mark.parametrize("seconds", [0, 86400 * 365, 1 << 33])
def test_a_wrong_clock(seconds, monkeypatch, tmp_path, run_in_process):
    monkeypatch.setattr(time, "time", lambda: float(seconds))
    monkeypatch.setattr(task1, "write_results", lambda *_: None)
    process = run_in_process(task1.main, *TRAIN, "--plan", "--out", tmp_path)
    assert process.returncode == 0, process.stderr


# --- Python, folders and rights ---

FILES = sorted(path for path in ROOT.glob("[a-z]*/**/*.py") if "shared" not in path.parts)


@pytest.mark.attack("Python 3.10: its grammar")
def test_the_grammar_of_the_oldest_python(record_property):
    for path in FILES:
        ast.parse(path.read_text(encoding="utf-8"), path.name, feature_version=(3, 10))
    record_property("tried", len(FILES))


@pytest.mark.attack("another Python compiles every file")
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13", "3.14"])
def test_other_pythons_compile_every_file(version, tmp_path, record_property):
    """A warning of the compiler, such as of an escape sequence that does not exist, is an error here."""
    python = shutil.which(f"python{version}")
    if not python or run(python, "-c", "").returncode:
        pytest.skip(f"there is no Python {version}")
    code = "import sys\nfor name in sys.argv[1:]: compile(open(name, encoding='utf-8').read(), name, 'exec')"
    process = run(python, "-W", "error", "-c", code, *FILES)
    assert process.returncode == 0, process.stderr
    record_property("tried", len(FILES))


@pytest.mark.attack("warnings are errors", whole=4)
def test_warnings_are_errors(attempt, tmp_path):
    (task, flags, _), (project, project_flags, _) = TRAININGS
    lines = (
        [(project, *project_flags, "--plan")],
        [(task, *flags, "--out", tmp_path)],
        [(PREDICT, PHOTO, "--out", tmp_path / "out.png")],
        [(project, *project_flags, "--out", tmp_path, *redraw) for redraw in ((), ("--redraw",))],
    )
    for line in lines[attempt]:
        succeeds(run_python("-W", "error", *line, timeout=SECONDS))


@pytest.fixture
def copy(tmp_path):
    """Return a copy of the program in a folder whose name has spaces and Chinese."""
    folder = tmp_path / "课程 作业" / "it's a copy"
    ignored = shutil.ignore_patterns("outputs*", "__pycache__", "*.png", "*.gif")
    for name in ("common", "project3_wrn", "task1_loss_curves"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "run_all.sh", folder)
    return folder


@pytest.mark.attack("a start from another folder, by a relative path, with spaces and Chinese in it", whole=2)
def test_a_relative_path_with_spaces(attempt, copy, tmp_path):
    script, flags, last = (Path(copy.name) / "task1_loss_curves" / "main.py", TRAIN, "loss_table.md")
    if attempt:
        process = run_python(script, *flags, cwd=copy.parent, timeout=SECONDS)
        succeeds(process)
        assert (copy / "task1_loss_curves" / "outputs_quick" / last).exists()
        assert "课程" not in (copy / "task1_loss_curves" / "outputs_quick" / "run.json").read_text(encoding="utf-8")
    else:
        shutil.copy(PHOTO, tmp_path / "a photo.png")
        photo = Path("..") / "a photo.png"
        process = run_python(Path(copy.name) / "project3_wrn" / "predict.py", photo, cwd=copy.parent)
        succeeds(process, tmp_path / "a photo-gradcam.png")


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.mark.attack("a repository that cannot be written, and results elsewhere", whole=2)
def test_a_read_only_repository(attempt, copy, tmp_path):
    """Its folder is mounted read-only, for the attacked process alone: root may write where rights forbid it."""
    mounted = ("unshare", "--mount", BASH, "-c", READ_ONLY, copy)
    if not shutil.which("unshare") or run(*mounted, "true").returncode:
        pytest.skip("only root can mount a folder read-only, and not in every container")
    start = (*mounted, sys.executable, copy / "task1_loss_curves" / "main.py", *TRAIN)
    if attempt:
        succeeds(run(*start, "--out", tmp_path / "new", timeout=SECONDS))
        assert (tmp_path / "new" / "loss_table.md").exists()
    else:
        assert_single_error_line(run(*start), "Read-only file system", status=1)


@pytest.mark.attack("files that only their owner may read (umask 077)")
def test_a_strict_umask(tmp_path):
    process = shell('umask 077; "$@"', PREDICT, PHOTO, "--out", tmp_path / "new" / "out.png")
    succeeds(process, tmp_path / "new" / "out.png")
