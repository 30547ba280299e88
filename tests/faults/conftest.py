"""Attacks on the program from outside. A test with the mark `attack` is one kind of attack, tried several times.

    @pytest.mark.attack("SIGKILL while a network trains", short=1, whole=12)
    def test_...(attempt): ...

`attempt` counts the tries, from 0, and seeds what is random in them. `bash tests/run.sh` tries `short` of them, or none
where it is 0; `bash tests/run.sh --faults` tries `whole`, and writes what was tried and survived to results.csv and
run.json, which the README's table of reliability is made from. A test that makes several tries itself says how many by
`record_property("tried", number)`.
"""

import collections
import csv
import shutil
import sys
import time
from pathlib import Path

import pytest

from common import cli
from common.support import machine, native
from tests.conftest import run_python
from tests.faults.starts import command, results

FOLDER = Path(__file__).parent
COLUMNS = ("area", "attack", "tried", "survived")


def pytest_configure(config):
    config.addinivalue_line("markers", "attack(name, short=1, whole=1): one kind of attack, and how often it is tried")


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("attack")
    if mark and "attempt" in metafunc.fixturenames:
        metafunc.parametrize("attempt", range(max(1, tries(mark, metafunc.config))))


def tries(mark, config):
    """Return how often an attack is tried."""
    return mark.kwargs.get("whole" if config.getoption("--faults") else "short", 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    left_out = []
    for item in items:
        if mark := item.get_closest_marker("attack"):
            area = item.path.stem.removeprefix("test_")
            item.user_properties.append(("attack", [area, mark.args[0]]))
            # what needs the same start shares it, and the rest of a file goes to one process too
            start = item.callspec.params.get("name") if hasattr(item, "callspec") else None
            item.add_marker(pytest.mark.xdist_group(start or area))
            if not tries(mark, config):
                left_out.append(item)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """Return straight(name): (results, seconds, folder) of a start of starts.py that nothing stops."""
    done = {}

    def start(name):
        if name not in done:
            if "bf16" in name and machine.choose_precision("auto", "cpu") != "bf16":
                pytest.skip("this CPU has no fast bf16")
            folder, started = tmp_path_factory.mktemp("straight"), time.monotonic()
            process = run_python(*command(name, folder))
            assert process.returncode == 0, process.stderr
            done[name] = results(folder), time.monotonic() - started, folder
        return done[name]

    return start


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Return an empty folder for compiled libraries; skip where nothing can be compiled."""
    if sys.platform != "linux" or not any(map(shutil.which, native.COMPILERS)):
        pytest.skip("the library is compiled on Linux, by a C compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return native.cache_folder()


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Write results.csv and run.json after a whole run of all attacks."""
    whole = config.getoption("--faults") and not config.getoption("keyword")
    if not whole or [Path(name).resolve() for name in config.args] != [FOLDER]:
        return
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    if not (rows := count_attacks(reports)):
        return
    with open(FOLDER / "results.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    cli.write_json(FOLDER / "run.json", facts(time.time() - terminalreporter._session_start.time))


def count_attacks(reports):
    """Return [area, attack, tried, survived] for each attack in the reports of tests, in the order of their files."""
    tried, survived = collections.Counter(), collections.Counter()
    for report in reports:
        properties = dict(report.user_properties)
        if "attack" in properties and (report.when == "call" or report.failed):
            key, number = tuple(properties["attack"]), int(properties.get("tried", 1))
            tried[key] += number
            survived[key] += number if report.passed else 0
    return [[*key, tried[key], survived[key]] for key in sorted(tried)]


def facts(seconds):
    """Return what a reader of the figures must know about the run that they are from."""
    return {
        "command": "bash tests/run.sh --faults",
        "git_commit": cli.git_commit(),
        "minutes": round(seconds / 60, 1),
        "device": machine.device_name("cpu"),
        "cores": machine.cores(),
        **cli.versions(),
    }
