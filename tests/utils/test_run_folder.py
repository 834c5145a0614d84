import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from utils import run_folder as module
from utils import run_lock
from utils.checkpoint_file import link_checkpoint, write_checkpoint
from utils.errors import CheckpointError, ConfigError, RunError
from utils.run_folder import RunFolder, find_checkpoint

CONFIG = {"name": "net", "trainer": {"epochs": 1}}


@pytest.fixture(autouse=True)
def no_locks_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run_lock, "_held", held := {})
    yield
    for file in held.values():
        file.close()


def checkpoint(path: Path, epoch: int = 1, *, age: int = 0, **more: Any) -> Path:
    """A file that was changed ``age`` seconds before the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, {"state_dict": {}, "epoch": epoch, **more})
    os.utime(path, (1_700_000_000 - age,) * 2)
    return path


class Noon(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2031, 2, 3, 12, 0, 5)


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "datetime", Noon)


def test_folders_of_a_run(tmp_path: Path, noon: None) -> None:
    """D34"""
    folder = RunFolder(tmp_path, "net", None)
    folder.make(CONFIG)

    assert folder.save_dir == tmp_path / "models" / "net" / "20310203_120005"
    assert folder.log_dir == tmp_path / "log" / "net" / "20310203_120005"
    assert folder.save_dir.is_dir() and folder.log_dir.is_dir() and folder.is_made


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path, "net", None).is_made and not list(tmp_path.iterdir())


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path, noon: None) -> None:
    """D34"""
    folders = [RunFolder(tmp_path, "net", None) for _ in range(3)]
    for folder in folders:
        folder.make(CONFIG)

    assert [folder.save_dir.name for folder in folders] == [
        "20310203_120005", "20310203_120005_2", "20310203_120005_3"]
    assert [folder.log_dir.name for folder in folders] == [
        folder.save_dir.name for folder in folders]


def test_folder_holds_config_and_environment(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "net", "a")
    folder.make(CONFIG)

    assert json.loads((folder.save_dir / "config.json").read_text()) == CONFIG
    assert "git_commit" in json.loads((folder.save_dir / "environment.json").read_text())


def test_chosen_name_is_taken_once(tmp_path: Path) -> None:
    RunFolder(tmp_path, "net", "mine").make(CONFIG)

    with pytest.raises(ConfigError, match=r"--run-id: .*mine exists; go on with it by --resume"):
        RunFolder(tmp_path, "net", "mine").make(CONFIG)


def test_empty_run_id_is_the_folder_of_the_name(tmp_path: Path) -> None:
    for _ in range(2):
        folder = RunFolder(tmp_path, "net", "")
        folder.make(CONFIG)

    assert folder.save_dir == tmp_path / "models" / "net"


@pytest.mark.parametrize("run_id", [
    "a/b", "a\\b", "a:b", "..", ".hidden", "end.", "end ", " a", "a*", "a?", 'a"', "a<b", "a>b",
    "a|b", "a\n", "a\0", "CON", "nul.txt", "Com1", "lpt9", "a" * 101])
def test_run_id_that_not_every_system_takes_is_an_error(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ConfigError, match="--run-id: expected a name"):
        RunFolder(tmp_path, "net", run_id)


@pytest.mark.parametrize("run_id", ["a", "lr=0.1,bs=64", "2031-02-03", "v1.2", "connect", "a b"])
def test_run_id_that_every_system_takes(tmp_path: Path, run_id: str) -> None:
    RunFolder(tmp_path, "net", run_id).make(CONFIG)

    assert (tmp_path / "models" / "net" / run_id).is_dir()


def test_name_that_not_every_system_takes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: expected a name"):
        RunFolder(tmp_path, "aux", None)


def test_timestamp_is_safe_everywhere(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d{8}_\d{6}", RunFolder(tmp_path, "net", None).save_dir.name)


@pytest.mark.parametrize("run_id", ["20310203_120005", ""])
def test_resume_goes_on_in_the_same_folder(tmp_path: Path, run_id: str) -> None:
    """D26"""
    path = checkpoint(tmp_path / "s" / "models" / "net" / run_id / "latest.pth", log_bytes=77)

    folder = RunFolder(tmp_path / "elsewhere", "net", None, resume=path)
    kept = folder.make(CONFIG)

    assert folder.goes_on and kept == 77
    assert folder.save_dir == path.parent
    assert folder.log_dir == tmp_path / "s" / "log" / "net" / run_id


def test_run_that_goes_on_is_named_as_seen_from_here(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path / "saved" / "models" / "net" / "a" / "latest.pth")

    assert RunFolder(Path("x"), "net", None, resume=path).save_dir == Path("saved/models/net/a")


@pytest.mark.parametrize("place", ["copy.pth", "models/other/a/c.pth", "net/a/c.pth"])
def test_checkpoint_from_elsewhere_starts_a_run_of_its_own(tmp_path: Path, place: str) -> None:
    path = checkpoint(tmp_path / "in" / place, log_bytes=77)

    folder = RunFolder(tmp_path / "saved", "net", None, resume=path)

    assert folder.make(CONFIG) is None and not folder.goes_on
    assert folder.save_dir.parent == tmp_path / "saved" / "models" / "net"


def test_chosen_name_branches_off(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "models" / "net" / "a" / "latest.pth", log_bytes=77)

    folder = RunFolder(tmp_path, "net", "b", resume=path)

    assert folder.make(CONFIG) is None
    assert folder.save_dir == tmp_path / "models" / "net" / "b"


def test_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "models").touch()

    with pytest.raises(RunError, match=r"cannot be written.*choose another trainer\.save_dir"):
        RunFolder(tmp_path, "net", None).make(CONFIG)


def test_folder_on_a_read_only_disk_is_one_error(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(Path, "mkdir", mkdir)

    with pytest.raises(RunError, match="Read-only file system"):
        RunFolder(tmp_path, "net", None).make(CONFIG)


def test_folder_in_use_keeps_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path / "models" / "net" / "a" / "latest.pth")
    (path.parent / "config.json").write_text("{}")

    def refuse(folder: Path) -> None:
        raise RunError(f"{folder}: another process")
    monkeypatch.setattr(module, "lock_folder", refuse)

    with pytest.raises(RunError, match="another process"):
        RunFolder(tmp_path, "net", None, resume=path).make(CONFIG)
    assert (path.parent / "config.json").read_text() == "{}"


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
    lambda path: (path.unlink(), path.mkdir())])
def test_unreadable_newest_falls_back_and_says_so(
        tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any) -> None:
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


def test_latest_is_the_newest_run_of_that_name(tmp_path: Path) -> None:
    checkpoint(tmp_path / "net" / "a" / "latest.pth", 1, age=10)
    checkpoint(tmp_path / "net" / "b" / "latest.pth", 2, age=5)
    checkpoint(tmp_path / "other" / "c" / "latest.pth", 3)

    assert find_checkpoint(tmp_path, pattern="net/*")[1]["epoch"] == 2
    assert find_checkpoint(tmp_path, pattern="*/*")[1]["epoch"] == 3


def test_latest_prefers_the_name_latest_among_links(tmp_path: Path) -> None:
    newest = checkpoint(tmp_path / "net" / "a" / "checkpoint-epoch1.pth")
    for name in ("model_best.pth", "latest.pth"):
        link_checkpoint(newest, newest.with_name(name))

    assert find_checkpoint(tmp_path, pattern="net/*")[0].name == "latest.pth"


def test_latest_falls_back_to_an_older_run(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint(tmp_path / "net" / "a" / "latest.pth", 1, age=10)
    checkpoint(tmp_path / "net" / "b" / "latest.pth", 2).write_bytes(b"")

    assert find_checkpoint(tmp_path, pattern="net/*")[1]["epoch"] == 1
    assert "taking the newest readable one" in caplog.text


@pytest.mark.parametrize("pattern", [None, "net/*"])
def test_folder_without_checkpoints(tmp_path: Path, pattern: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint \(\.pth\) in this folder"):
        find_checkpoint(tmp_path, pattern=pattern)


def test_config_in_place_of_a_checkpoint(tmp_path: Path) -> None:
    """D43"""
    with pytest.raises(CheckpointError, match=r"config\.json: expected a checkpoint .*use -c"):
        find_checkpoint(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["gone.pth", "a" * 300, "a\0b", "file/x.pth"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    """D43"""
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"no such file; expected a checkpoint .*'latest'"):
        find_checkpoint(tmp_path / name)


def test_copied_run_folder_goes_on_where_it_is_now(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a" / "models" / "net" / "x" / "latest.pth")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    path = tmp_path / "b" / "models" / "net" / "x" / "latest.pth"

    assert RunFolder(tmp_path / "a", "net", None, resume=path).save_dir == path.parent
