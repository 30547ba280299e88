"""The same seed again: the same bytes on a CPU."""

import pytest

from tests.conftest import run_python
from tests.faults.starts import STARTS, assert_same, command, results

SHOW_SECONDS = {"hyperparameters", "architectures", "comparison", "performance"}  # pages and figures


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.attack("the same command twice", short=0, whole=1)
def test_the_same_command_twice(name, attempt, straight, tmp_path):
    """Weights, histories, tables, pages and figures; seconds aside."""
    expected, _, folder = straight(name)
    process = run_python(*command(name, tmp_path))
    assert process.returncode == 0, process.stderr
    assert_same(results(tmp_path), expected)
    for path in [*folder.rglob("*.md"), *folder.rglob("*.png")]:
        if path.name.split(".")[0] not in SHOW_SECONDS:
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


@pytest.mark.parametrize("name", ["task 1", "task 3", "task 4"])
@pytest.mark.attack("tasks 1 to 4 on another number of cores", short=0, whole=1)
def test_another_number_of_cores(name, attempt, straight, tmp_path):
    process = run_python(*command(name, tmp_path), cores=1)
    assert process.returncode == 0, process.stderr
    assert_same(results(tmp_path), straight(name)[0])
