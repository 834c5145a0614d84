"""The layout of the console: 80 columns, numbers below each other."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from base.epoch_log import epoch_lines
from logger.console import (
    go_on_hint,
    loading_hint,
    number,
    plain_number,
    table,
)


def lines(log: dict[str, Any], **options: Any) -> list[str]:
    return epoch_lines({"epoch": 3, **log},
                       **{"epochs": 10, "seconds": 12.34, "is_best": False} | options)


@pytest.mark.parametrize(("value", "text"), [
    (0.123456, "0.1235"), (3, "3"), (1e-7, "1e-07"), (math.nan, "nan"), (True, "True"), ("a", "a"),
    (1234567, "1234567"), ([1, 2, 3], "[3]"), ([[1, 2]] * 9, "[9x2]")])
def test_numbers_have_four_digits(value: Any, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "plain"), [
    (torch.tensor(2.5), 2.5), (np.float32(2.5), 2.5), (torch.tensor([1, 2]), [1, 2]),
    (np.array([1.0, 2.0]), [1.0, 2.0]), ("text", "text"), (None, None)])
def test_scalars_and_arrays_become_pythons_own(value: Any, plain: Any) -> None:
    assert plain_number(value) == plain and type(plain_number(value)) is type(plain)


def test_table_has_the_values_below_each_other() -> None:
    assert table({"loss": 0.5, "accuracy": 1}) == "loss      0.5\naccuracy  1"
    assert table({}) == ""


def test_epoch_has_a_line_of_training_and_one_of_validation() -> None:
    assert lines({"loss": 0.5, "val_loss": 0.25}, is_best=True) == [
        "epoch 3/10  12.3 s  best so far", "  train  loss 0.5", "  valid  loss 0.25"]


def test_epoch_without_validation_has_no_line_of_it() -> None:
    assert len(lines({"loss": 0.5})) == 2


def test_numbers_of_training_and_validation_stand_below_each_other() -> None:
    _, train, valid = lines({"loss": 0.5, "f1": 0.1, "val_loss": 0.1234, "val_f1": 1})
    assert train.index("f1") == valid.index("f1")


NAMES = st.text("abcdefgh_-.", min_size=1, max_size=120)
VALUES = st.floats() | st.integers() | st.text("xyz ", max_size=100)


@given(st.dictionaries(NAMES, VALUES, max_size=12), st.floats(0, 1e9))
def test_no_line_is_longer_than_80_columns(log: dict[str, Any], seconds: float) -> None:
    log |= {f"val_{name}": value for name, value in log.items()}
    assert max(map(len, lines(log, seconds=seconds))) <= 80


@given(st.dictionaries(st.text("abc-", min_size=1, max_size=30), st.floats(), max_size=12))
def test_name_and_value_stay_together(log: dict[str, Any]) -> None:
    text = "\n".join(lines(log))
    assert all(f"{name} {number(value)}" in text for name, value in log.items())


@pytest.mark.parametrize(("waited", "seconds", "has_hint"), [
    (4.0, 11.0, True), (3.0, 11.0, False), (4.0, 9.0, False)])
def test_hint_comes_where_loading_takes_much_of_a_long_epoch(waited: float, seconds: float,
                                                             has_hint: bool) -> None:
    assert (loading_hint(waited, seconds) is not None) == has_hint


def test_table_of_numbers_is_not_a_hundred_lines() -> None:
    matrix = [[0.5] * 100] * 100
    assert lines({"val_confusion": matrix})[1:] == ["  valid  confusion [100x100]"]


def test_command_that_goes_on_is_told_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    latest = tmp_path / "a b" / "latest.pth"
    assert go_on_hint(latest) == "no checkpoint was written yet"
    latest.parent.mkdir()
    latest.touch()
    assert go_on_hint(latest) == f"go on with:\n  python train.py --resume '{latest}'"
