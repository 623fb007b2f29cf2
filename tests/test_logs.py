"""The log of a training: a row for each epoch, kept over a resume, and the same numbers for TensorBoard."""

import csv
import sys
import types

import pytest

from udlib.training.logs import EpochLog, write_csv


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_log_has_a_row_for_each_epoch_and_a_resumed_training_keeps_those_before(tmp_path):
    path = tmp_path / "new" / "log.csv"
    log = EpochLog(path)
    for epoch in (1, 2, 3):
        log(epoch, None, {"epoch": epoch, "mAP": epoch / 4})
    assert rows_of(path) == [["epoch", "mAP"], ["1", "0.25"], ["2", "0.5"], ["3", "0.75"]]
    EpochLog(path)(3, None, {"epoch": 3, "NLL": 0.1})
    assert rows_of(path) == [["epoch", "mAP", "NLL"], ["1", "0.25", ""], ["2", "0.5", ""], ["3", "", "0.1"]]
    EpochLog(path)(1, None, {"epoch": 1})
    assert rows_of(path) == [["epoch"], ["1"]]
    assert path.read_bytes() == b"epoch\n1\n"


@pytest.mark.parametrize("content", ["", "no log\n1,2\n", "epoch\nx\n", "epoch,mAP\n,0.5\n"])
def test_what_is_no_log_is_written_anew(tmp_path, content):
    (tmp_path / "log.csv").write_text(content)
    EpochLog(tmp_path / "log.csv")(4, None, {"epoch": 4})
    assert rows_of(tmp_path / "log.csv") == [["epoch"], ["4"]]


def test_a_table_is_written_as_utf_8_whatever_it_holds(tmp_path):
    write_csv(tmp_path / "a.csv", [["name", "n"], ['äß,"', 1], ["\ud800", 2]])
    assert (tmp_path / "a.csv").read_bytes() == 'name,n\n"äß,""",1\n\\ud800,2\n'.encode()


def test_tensorboard_gets_every_number_but_the_epoch(tmp_path, monkeypatch):
    events = []

    class Writer:
        def __init__(self, folder, purge_step):
            events.append((folder, purge_step))

        def add_scalar(self, name, value, epoch):
            events.append((name, value, epoch))

        def flush(self):
            events.append("flush")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    log = EpochLog(tmp_path / "log.csv", tmp_path / "tb")
    log(4, None, {"epoch": 4, "mAP": 0.5})
    log(5, None, {"epoch": 5, "mAP": 0.6})
    assert events == [(str(tmp_path / "tb"), 4), ("mAP", 0.5, 4), "flush", ("mAP", 0.6, 5), "flush"]


def test_without_tensorboard_a_log_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match="pip install tensorboard"):
        EpochLog(tmp_path / "log.csv", tmp_path / "tb")
    assert EpochLog(tmp_path / "log.csv").make_writer is None
