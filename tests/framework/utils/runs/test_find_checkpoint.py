"""Which run and which checkpoint is meant by a path, ``latest`` or ``auto``."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from utils.errors import CheckpointError
from utils.runs.checkpoint_file import link_checkpoint, write_checkpoint
from utils.runs.find_checkpoint import auto_run, find_checkpoint, newest_run


def checkpoint(path: Path, epoch: int = 1, *, age: int = 0) -> Path:
    """A file that was changed ``age`` seconds before the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, {"state_dict": {}, "epoch": epoch})
    os.utime(path, (1_700_000_000 - age,) * 2)
    return path


def run(root: Path, run_id: str, *, age: int, name: str = "net", state: str = "running",
        has_checkpoint: bool = True) -> Path:
    """A run's folder that was written to last ``age`` seconds before the others."""
    folder = root / "models" / name / run_id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    os.utime(folder / "config.json", (1_700_000_000 - age - 1,) * 2)
    (folder / "status.json").write_text(json.dumps({"state": state}))
    if has_checkpoint:
        checkpoint(folder / "latest.pth", age=age)
    return folder


def test_find_a_file(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "any.pth", 4)
    found, content = find_checkpoint(path)
    assert (found, content["epoch"]) == (path, 4)


@pytest.mark.parametrize(("best_first", "name"), [(False, "latest.pth"), (True, "model_best.pth")])
def test_find_in_a_folder(tmp_path: Path, best_first: bool, name: str) -> None:
    newest = checkpoint(tmp_path / "checkpoint-epoch3.pth", 3)
    link_checkpoint(newest, tmp_path / "latest.pth")
    checkpoint(tmp_path / "model_best.pth", 1, age=50)
    assert find_checkpoint(tmp_path, best_first=best_first)[0].name == name


def test_latest_counts_as_newest_in_a_copied_folder(tmp_path: Path) -> None:
    """Copying gives files new times, in any order."""
    checkpoint(tmp_path / "latest.pth", 3, age=9)
    checkpoint(tmp_path / "model_best.pth", 1)
    assert find_checkpoint(tmp_path)[1]["epoch"] == 3


def test_newest_file_where_there_is_no_latest(tmp_path: Path) -> None:
    for epoch, age in ((1, 30), (10, 10), (2, 20)):
        checkpoint(tmp_path / f"checkpoint-epoch{epoch}.pth", epoch, age=age)
    assert find_checkpoint(tmp_path)[1]["epoch"] == 10


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:300]),
    lambda path: (path.unlink(), path.symlink_to("gone")),
    lambda path: (path.unlink(), path.mkdir())], ids=["empty", "cut", "dangling", "folder"])
def test_unreadable_newest_falls_back_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                  damage: Any) -> None:
    checkpoint(tmp_path / "checkpoint-epoch1.pth", 1, age=20)
    checkpoint(tmp_path / "checkpoint-epoch2.pth", 2, age=10)
    damage(checkpoint(tmp_path / "latest.pth", 3))
    with caplog.at_level(logging.WARNING):
        found, content = find_checkpoint(tmp_path)
    assert content["epoch"] == 2
    assert f"{tmp_path / 'latest.pth'}: " in caplog.text
    assert f"taking the newest readable one: {found}" in caplog.text


def test_folder_of_unreadable_files_is_one_error_with_all_reasons(tmp_path: Path) -> None:
    for name in ("latest.pth", "model_best.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"(?s)no readable.*latest.*model_best.*empty"):
        find_checkpoint(tmp_path)


def test_folder_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint \(\.pth\) in this folder$"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("place", ["models/net", "models", ""])
def test_folder_of_runs_is_told_with_the_newest_of_them(tmp_path: Path, place: str) -> None:
    run(tmp_path, "old", age=20)
    newest = run(tmp_path, "new", age=10)
    with pytest.raises(CheckpointError, match=f"it holds runs, the newest is {newest}$"):
        find_checkpoint(tmp_path / place)


def test_config_in_place_of_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: expected a checkpoint .*use -c"):
        find_checkpoint(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["gone.pth", "a" * 300, "a\0b", "file/x.pth"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"no such file; expected a checkpoint .*'latest'"):
        find_checkpoint(tmp_path / name)


def test_latest_is_the_newest_run_of_that_name(tmp_path: Path) -> None:
    run(tmp_path, "a", age=30)
    second = run(tmp_path, "b", age=20)
    other = run(tmp_path, "c", age=10, name="other")
    assert newest_run(tmp_path, "net") == second
    assert newest_run(tmp_path, None) == other


def test_newest_run_without_a_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    older = run(tmp_path, "a", age=20)
    newest = run(tmp_path, "b", age=10, has_checkpoint=False)
    with pytest.raises(CheckpointError, match="no checkpoint yet") as told:
        newest_run(tmp_path, "net")
    assert str(newest) in str(told.value) and f"an older one: {older}" in str(told.value)


@pytest.mark.parametrize("name", ["net", None])
def test_no_run_at_all_is_told(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"models.*: no run in this folder"):
        newest_run(tmp_path, name)


def test_job_goes_on_with_the_run_of_its_name_or_starts_one(tmp_path: Path) -> None:
    folder = run(tmp_path, "job", age=20, state="finished")
    run(tmp_path, "other", age=10)
    assert auto_run(tmp_path, "net", "job") == folder
    assert auto_run(tmp_path, "net", "job2") is None


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_without_a_name_a_job_goes_on_with_the_newest_unfinished_run(tmp_path: Path,
                                                                     has_checkpoint: bool) -> None:
    run(tmp_path, "a", age=40)
    folder = run(tmp_path, "b", age=30, state="failed", has_checkpoint=has_checkpoint)
    run(tmp_path, "c", age=20, state="finished")
    run(tmp_path, "d", age=10, state="stopped early")
    run(tmp_path, "e", age=0, name="other")
    assert auto_run(tmp_path, "net", None) == folder
    assert auto_run(tmp_path, "nobody", None) is None
