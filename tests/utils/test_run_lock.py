import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils import run_lock
from utils.errors import RunError
from utils.run_lock import lock_folder, unlock_folder

HOLD = """
import os, sys, time
from pathlib import Path
from utils.run_lock import lock_folder
lock_folder(Path(sys.argv[1]))
child = os.fork() if "fork" in sys.argv else None
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


class Holder:
    """Another process that has the lock."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, folder, *arguments],
                                        stdout=subprocess.PIPE, text=True, cwd=ROOT)
        first = self.process.stdout.readline().strip()
        self.child = None if first == "None" else int(first)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    unlock_folder(tmp_path)


def test_second_living_process_is_refused(folder: Path) -> None:
    holder = Holder(folder)
    try:
        with pytest.raises(RunError, match=rf"process {holder.process.pid}\) writes to this run"):
            lock_folder(folder)
    finally:
        holder.kill()


def test_refusal_does_not_take_the_lock_away(folder: Path) -> None:
    holder = Holder(folder)
    try:
        for _ in range(2):
            with pytest.raises(RunError, match="--new-run"):
                lock_folder(folder)
    finally:
        holder.kill()


def test_killed_process_leaves_no_lock(folder: Path) -> None:
    Holder(folder).kill()

    lock_folder(folder)

    assert (folder / ".lock").read_text() == f"process {os.getpid()}"


def test_killed_process_with_a_living_child_leaves_no_lock(folder: Path) -> None:
    holder = Holder(folder, "fork")
    holder.kill()
    try:
        lock_folder(folder)
        os.kill(holder.child, 0)  # it does live
    finally:
        os.kill(holder.child, signal.SIGKILL)


def test_same_process_may_lock_again(folder: Path) -> None:
    lock_folder(folder)
    lock_folder(folder)
    holder = subprocess.run([sys.executable, "-c", HOLD, folder], cwd=ROOT, capture_output=True,
                            text=True)

    assert f"RunError: {folder}: another process (process {os.getpid()})" in holder.stderr


def test_another_spelling_of_the_folder_is_the_same_lock(
        folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "x").mkdir()
    lock_folder(folder)
    lock_folder(folder / "x" / "..")

    monkeypatch.chdir(folder)
    unlock_folder(Path("."))

    Holder(folder).kill()  # could lock it


def test_unlocked_folder_is_free(folder: Path) -> None:
    lock_folder(folder)
    unlock_folder(folder)

    holder = Holder(folder)

    assert holder.process.poll() is None
    holder.kill()


def test_unlocking_what_is_not_locked_does_nothing(tmp_path: Path) -> None:
    unlock_folder(tmp_path)


def test_forked_child_does_not_have_the_lock(folder: Path) -> None:
    lock_folder(folder)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_exit_with_outcome, args=(folder,))
    child.start()
    child.join()

    assert child.exitcode == 7


def _exit_with_outcome(folder: Path) -> None:
    try:
        lock_folder(folder)
    except RunError:
        os._exit(7)
    os._exit(0)


@pytest.mark.skipif(sys.platform == "win32", reason="another kind of lock")
def test_file_system_without_locks_gets_a_warning(
        folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(run_lock.fcntl, "lockf", lockf)

    lock_folder(folder)

    assert "cannot be locked (No locks available)" in caplog.text
