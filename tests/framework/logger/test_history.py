"""The table of epochs: the rows of the checkpoint and those of the file are the same."""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from logger.history import History
from utils.errors import RunError


def history(folder: Path, *epochs: int, state: dict[str, Any] | None = None) -> History:
    """With rows of these epochs, or of a state and these, written after each."""
    made = History(lambda: folder)
    if state is not None:
        made.load_state_dict(state)
    for epoch in epochs:
        made.append({"epoch": epoch, "loss": 1 / epoch}, step=5 * epoch, seconds=1.0)
        made.write()
    return made


def in_file(folder: Path) -> list[int]:
    lines = (folder / "history.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def test_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    row = {"epoch": 1, "loss": 0.1 + 0.2, "note": "\u00e9\u2028\x85"}
    made = History(lambda: tmp_path)
    made.append(row, step=5, seconds=1.23456)
    made.write()
    read, = made.rows()
    assert json.loads((tmp_path / "history.jsonl").read_text()) == read
    time = read.pop("time")
    assert read == row | {"step": 5, "seconds": 1.235}
    assert abs((datetime.now() - datetime.fromisoformat(time)).total_seconds()) < 60


def test_values_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    made = History(lambda: tmp_path)
    made.append({"epoch": 1, "loss": math.nan, "low": -math.inf}, step=1, seconds=1.0)
    row, = history(tmp_path, state=made.state_dict()).rows()
    assert math.isnan(row["loss"]) and row["low"] == -math.inf


def test_nothing_is_written_and_no_folder_asked_for_before_write() -> None:
    made = History(lambda: pytest.fail("asked for"))
    made.append({"epoch": 1}, step=0, seconds=0.0)
    assert [row["epoch"] for row in made.rows()] == [1]


def test_each_write_adds_the_new_rows(tmp_path: Path) -> None:
    made = history(tmp_path, 1, 2)
    made.write()
    assert in_file(tmp_path) == [1, 2]


def test_resumed_run_brings_the_file_to_where_the_checkpoint_is(tmp_path: Path) -> None:
    state = history(tmp_path, 1, 2).state_dict()
    history(tmp_path, 3, 4, state=state)
    resumed = history(tmp_path, state=state)
    assert in_file(tmp_path) == [1, 2, 3, 4]  # nothing of it is lost before the first save
    resumed.append({"epoch": 3}, step=0, seconds=0.0)
    resumed.write()
    assert in_file(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("damage", [b'{"epoch": 3, "lo', b"\xff\xfe", b"\0\0\0"])
def test_half_written_line_does_not_outlast_a_resume(tmp_path: Path, damage: bytes) -> None:
    state = history(tmp_path, 1, 2).state_dict()
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(damage)
    history(tmp_path, 3, state=state)
    assert in_file(tmp_path) == [1, 2, 3]


def test_file_that_somebody_removed_is_written_whole(tmp_path: Path) -> None:
    made = history(tmp_path, 1, 2)
    (tmp_path / "history.jsonl").unlink()
    made.append({"epoch": 3}, step=0, seconds=0.0)
    made.write()
    assert in_file(tmp_path) == [1, 2, 3]


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"history\.jsonl: cannot be written"):
        history(tmp_path / "absent", 1)


def test_seconds_of_an_epoch_go_on_after_a_resume(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    before, after = History(lambda: tmp_path), History(lambda: tmp_path)
    before.begin()
    now[0] += 7
    state = before.state_dict()
    now[0] += 1000
    after.load_state_dict(state)
    after.begin()
    now[0] += 3
    assert after.end() == 10 and after.seconds() == 0
