"""The folders of a run: their place, one run each, one writer each, nothing before it is due."""

import errno
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.framework.conftest import ROOT
from utils.errors import ConfigError, RunError
from utils.runs import folder as module
from utils.runs.folder import RunFolder, is_finished, name_problem

CONFIG = {"name": "net", "trainer": {"epochs": 1}}


class Noon(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2031, 2, 3, 12, 0, 5)


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "datetime", Noon)


def made(root: Path, run_id: str | None = None, **options: Any) -> RunFolder:
    folder = RunFolder(root, "net", run_id, **options)
    folder.make()
    folder.record(CONFIG)
    return folder


def checkpoint(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_folders_of_a_run(tmp_path: Path, noon: None) -> None:
    folder = made(tmp_path)
    assert folder.save_dir == tmp_path / "models" / "net" / "20310203_120005"
    assert folder.log_dir == tmp_path / "log" / "net" / "20310203_120005"
    assert folder.save_dir.is_dir() and folder.log_dir.is_dir() and folder.is_made


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path, "net").is_made and not list(tmp_path.iterdir())


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path, noon: None) -> None:
    folders = [made(tmp_path) for _ in range(3)]
    names = ["20310203_120005", "20310203_120005_2", "20310203_120005_3"]
    assert [folder.save_dir.name for folder in folders] == names
    assert [folder.log_dir.name for folder in folders] == names


def test_folder_holds_config_environment_and_how_the_run_goes(tmp_path: Path) -> None:
    folder = made(tmp_path, "a")
    assert json.loads((folder.save_dir / "config.json").read_text()) == CONFIG
    assert "git_commit" in json.loads((folder.save_dir / "environment.json").read_text())
    assert json.loads((folder.save_dir / "status.json").read_text())["state"] == "running"


def test_environment_keeps_the_first_start_and_adds_the_others(tmp_path: Path,
                                                               monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-c", "a b.json"])
    folder = made(tmp_path, "a")
    folder.release()
    for number in (1, 2):
        monkeypatch.setattr(sys, "argv", ["train.py", "--resume", str(number)])
        made(tmp_path, resume=folder.save_dir / "latest.pth").release()
    noted = json.loads((folder.save_dir / "environment.json").read_text())
    assert noted["command"] == "train.py -c 'a b.json'"
    assert [entry["command"] for entry in noted["resumed"]] == [
        "train.py --resume 1", "train.py --resume 2"]


@pytest.mark.parametrize(("state", "finished"), [
    ("finished", True), ("stopped early", True), ("stopped", False), ("failed", False)])
def test_finished_is_a_run_that_came_to_its_end_by_itself(tmp_path: Path, state: str,
                                                          finished: bool) -> None:
    folder = made(tmp_path)
    folder.tell(state, epoch=3)
    assert is_finished(folder.save_dir) == finished
    assert json.loads((folder.save_dir / "status.json").read_text())["epoch"] == 3


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_damaged_status_is_no_finished_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content, encoding="latin-1")
    assert not is_finished(tmp_path)


def test_chosen_name_is_taken_once(tmp_path: Path) -> None:
    made(tmp_path, "mine")
    with pytest.raises(ConfigError, match=r"--run-id: .*mine exists; go on with it by --resume"):
        made(tmp_path, "mine")


def test_empty_run_id_is_the_folder_of_the_name(tmp_path: Path) -> None:
    for _ in range(2):
        folder = made(tmp_path, "")
        folder.release()
    assert folder.save_dir == tmp_path / "models" / "net"


@pytest.mark.parametrize("name", [
    "a/b", "a\\b", "a:b", "..", ".hidden", "end.", "end ", " a", "a*", "a?", 'a"', "a<b", "a>b",
    "a|b", "a\n", "a\0", "CON", "nul.txt", "Com1", "lpt9", "a" * 101])
def test_name_that_not_every_system_takes_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--run-id: expected a name"):
        RunFolder(tmp_path, "net", name)
    with pytest.raises(ConfigError, match=r"^name: expected a name"):
        RunFolder(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "lr=0.1,bs=64", "2031-02-03", "v1.2", "connect", "a b"])
def test_name_that_every_system_takes(name: str) -> None:
    assert name_problem(name) is None


def test_timestamp_is_safe_everywhere(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d{8}_\d{6}", RunFolder(tmp_path, "net").save_dir.name)


@pytest.mark.parametrize("run_id", ["20310203_120005", ""])
@pytest.mark.parametrize(("root", "name"), [("s", "net"), ("moved/here", "net"), ("s", "renamed")])
def test_resume_goes_on_where_the_checkpoint_lies_now(tmp_path: Path, root: str, name: str,
                                                      run_id: str) -> None:
    """Whatever the config says: the folder may have been moved, copied or renamed."""
    path = checkpoint(tmp_path / root / "models" / name / run_id / "latest.pth")
    folder = RunFolder(tmp_path / "s", "net", resume=path)
    folder.make()
    assert folder.goes_on
    assert folder.save_dir == path.parent
    assert folder.log_dir == tmp_path / root / "log" / name / run_id


def test_run_that_goes_on_is_named_as_seen_from_here(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path / "saved" / "models" / "net" / "a" / "latest.pth")
    assert RunFolder(Path("x"), "net", resume=path).save_dir == Path("saved/models/net/a")


@pytest.mark.parametrize("place", ["copy.pth", "models/other/a/deep/c.pth", "net/a/c.pth"])
def test_checkpoint_from_elsewhere_starts_a_run_of_its_own_and_says_where(
        tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str) -> None:
    folder = RunFolder(tmp_path / "saved", "net", resume=checkpoint(tmp_path / "in" / place))
    assert not folder.goes_on
    assert folder.save_dir.parent == tmp_path / "saved" / "models" / "net"
    assert not caplog.records
    folder.make()
    assert f"writes to a folder of its own, {folder.save_dir}" in caplog.text


def test_run_that_was_killed_at_its_start_is_started_anew_in_its_folder(tmp_path: Path) -> None:
    killed = made(tmp_path, "job")
    killed.release()
    folder = made(tmp_path, "job", restart=killed.save_dir)
    assert folder.goes_on and folder.save_dir == killed.save_dir


def test_run_that_goes_on_changes_no_file_before_it_records(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    first.release()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder = RunFolder(tmp_path, "net", resume=first.save_dir / "latest.pth")
    folder.make()
    folder.tell("failed", reason="early")
    folder.release()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    with pytest.raises(RunError, match=r"cannot be written.*choose another trainer\.save_dir"):
        RunFolder(tmp_path, "net").make()


def test_folder_on_a_read_only_disk_is_one_error(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(RunError, match="Read-only file system"):
        RunFolder(tmp_path, "net").make()


def test_folder_in_use_is_refused_until_it_is_released(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0)
    first = made(tmp_path, "a")
    again = RunFolder(tmp_path, "net", resume=first.save_dir / "latest.pth")
    with pytest.raises(RunError, match=r"another process writes to this run; .*--new-run"):
        again.make()
    first.release()
    again.make()


def test_folder_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    code = ("import os, signal, sys; from pathlib import Path; "
            "from utils.runs.folder import RunFolder; "
            "RunFolder(Path(sys.argv[1]), 'net', 'a').make(); "
            "os.kill(os.getpid(), signal.SIGKILL)")
    result = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=False)
    assert result.returncode == -9
    RunFolder(tmp_path, "net", restart=tmp_path / "models" / "net" / "a").make()


def test_file_system_without_locks_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    import filelock

    def acquire(self: Any, *args: Any) -> None:
        raise NotImplementedError
    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    RunFolder(tmp_path, "net").make()
    assert "take care that only one process writes to it" in caplog.text
