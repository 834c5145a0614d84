import math

import pytest

from logger.history import History
from utils.errors import RunError


def filled(folder, *epochs):
    history = History(folder)
    for epoch in epochs:
        history.append({"epoch": epoch, "loss": 1 / epoch})
    return history


def epochs_of(history):
    return [row["epoch"] for row in history.rows()]


def cut(history, num_bytes):
    history.path.write_bytes(history.path.read_bytes()[:-num_bytes])


def test_appended_rows_come_back_bit_for_bit(tmp_path):
    row = {"epoch": 1, "loss": 0.1 + 0.2, "note": "\u00e9\u2028\x85"}
    history = History(tmp_path)
    history.append(row)
    assert history.rows() == [row]


def test_values_that_are_not_finite_are_kept(tmp_path):
    history = History(tmp_path)
    history.append({"epoch": 1, "loss": math.nan, "low": -math.inf})
    history.keep_until(1)
    row, = history.rows()
    assert math.isnan(row["loss"]) and row["low"] == -math.inf


def test_history_without_file_is_empty(tmp_path):
    assert History(tmp_path).rows() == []


def test_rows_after_the_epoch_are_dropped(tmp_path):
    """D26"""
    history = filled(tmp_path, 1, 2, 3, 4)
    history.keep_until(2)
    history.append({"epoch": 3})
    assert epochs_of(history) == [1, 2, 3]


@pytest.mark.parametrize("num_bytes", [1, 2, 10, 20])
def test_half_written_last_line_does_not_spoil_the_next_row(tmp_path, num_bytes):
    history = filled(tmp_path, 1, 2)
    cut(history, num_bytes)
    history.append({"epoch": 3})
    assert epochs_of(history) == ([1, 2, 3] if num_bytes == 1 else [1, 3])


@pytest.mark.parametrize("garbage", [b'{"epoch": 3, "lo', b"\xff\xfe", b"\0\0\0"])
def test_half_written_last_line_is_dropped_on_a_resume(tmp_path, garbage):
    history = filled(tmp_path, 1, 2)
    with open(history.path, "ab") as file:
        file.write(garbage)
    history.keep_until(2)
    assert history.path.read_text(encoding="ascii").count("\n") == 2
    assert epochs_of(history) == [1, 2]


@pytest.mark.parametrize("write", [lambda history: history.append({"epoch": 1}),
                                   lambda history: history.keep_until(1)])
def test_file_that_cannot_be_written_is_named(tmp_path, write):
    with pytest.raises(RunError, match=r"history\.jsonl: cannot be written"):
        write(History(tmp_path / "absent"))
