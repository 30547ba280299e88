"""log.csv, the file to watch a run by."""

import csv

import pytest
import torch

from common.support.epoch_log import EpochLog, last_epoch

COLUMNS = ("train_loss", "seconds")


def row(config, epoch, loss="1.0", seconds="5"):
    return {"config": config, "seed": 0, "epoch": epoch, "train_loss": loss, "seconds": seconds}


def open_log(folder):
    return EpochLog(folder, ("config", "seed"), COLUMNS)


def lines(folder):
    with open(folder / "log.csv", encoding="utf-8", newline="") as file:
        return [(one["config"], one["epoch"], one["train_loss"]) for one in csv.DictReader(file)]


def test_each_epoch_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    log = open_log(tmp_path)
    for epoch in (1, 2):
        log.write([row("a", epoch), row("b", epoch)])
        assert lines(tmp_path)[-2:] == [("a", str(epoch), "1.0"), ("b", str(epoch), "1.0")]
    text = (tmp_path / "log.csv").read_text(encoding="utf-8")
    assert text.startswith("time,config,seed,epoch,train_loss,seconds\n") and text.count("\n") == 5


def test_a_resumed_run_repeats_no_epoch(tmp_path):
    """Three epochs were logged, and the checkpoint is of the second: it is reported again, then the third is."""
    log = open_log(tmp_path)
    for epoch in (1, 2, 3):
        log.write([row("a", epoch, loss=f"{epoch}")])
        log.write([row("b", epoch)])
    before = (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()
    log = open_log(tmp_path)
    log.write([row("a", 2, loss="2")])
    assert (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines() == [*before[:5], before[6]]
    log.write([row("a", 3, loss="3.5")])
    assert [loss for config, _, loss in lines(tmp_path) if config == "a"] == ["1", "2", "3.5"]
    assert len(lines(tmp_path)) == 6


def test_a_run_that_is_trained_again_replaces_its_lines_only(tmp_path):
    log = open_log(tmp_path)
    for epoch in (1, 2):
        log.write([row("a", epoch), row("b", epoch)])
    open_log(tmp_path).write([row("a", 1, loss="9")])
    assert lines(tmp_path) == [("b", "1", "1.0"), ("b", "2", "1.0"), ("a", "1", "9")]


@pytest.mark.parametrize("content", ["", "text\n", "time,config\n1,2\n", "\x00\n", "time,config,seed,epoch,x\na,b\n"])
def test_another_file_is_replaced(tmp_path, content):
    (tmp_path / "log.csv").write_text(content, encoding="utf-8")
    open_log(tmp_path).write([row("a", 1)])
    assert lines(tmp_path) == [("a", "1", "1.0")]


def test_half_a_last_line_is_dropped(tmp_path):
    log = open_log(tmp_path)
    for epoch in (1, 2):
        log.write([row("a", epoch)])
    path = tmp_path / "log.csv"
    path.write_bytes(path.read_bytes()[:-12])
    open_log(tmp_path).write([row("b", 1)])
    assert lines(tmp_path) == [("a", "1", "1.0"), ("b", "1", "1.0")]


def test_what_cannot_be_written_now_is_written_later(tmp_path, monkeypatch, capsys):
    """As while a spreadsheet has the file open on Windows; training is not stopped."""
    log = open_log(tmp_path)
    log.write([row("a", 1)])
    real = EpochLog._write

    def locked(self, path, rows):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(EpochLog, "_write", locked)
    log.write([row("a", 2)])
    log.write([row("a", 3)])
    monkeypatch.setattr(EpochLog, "_write", real)
    log.write([row("a", 4)])
    assert [epoch for _, epoch, _ in lines(tmp_path)] == ["1", "2", "3", "4"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "log.csv" in line and "training continues" in line


def test_a_row_has_the_last_epoch_of_its_member():
    history = {
        "batch_losses": [torch.zeros(7, 1, 2)],
        "epoch_losses": [torch.zeros(1, 2), torch.tensor([[1.25, 2.5]])],
        "test_accuracy": [torch.zeros(1, 2), torch.tensor([[10.0, 45.678]])],
        "lr": [torch.tensor(1.0), torch.tensor(0.5)],
        "seconds": [torch.tensor(9.0), torch.tensor(3.0)],
    }
    values = last_epoch(history, 0.01, lambda value: value[0, 1] if value.ndim else value)
    assert values == {"train_loss": "2.5000", "test_accuracy": "45.68", "learning_rate": "0.005", "seconds": "3.00"}
