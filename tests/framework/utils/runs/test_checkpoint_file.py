"""Checkpoint files are written whole or not at all, and read without executing anything."""

import errno
import os
import resource
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.tiny_run import same
from utils.errors import CheckpointError
from utils.runs import checkpoint_file
from utils.runs.checkpoint_file import (
    link_checkpoint,
    read_checkpoint,
    remove_leftovers,
    write_checkpoint,
)

NUMBERS = torch.arange(64.0)


def small_state(epoch: int = 1) -> dict[str, Any]:
    return {"state_dict": {"weight": NUMBERS}, "epoch": epoch}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good checkpoint of epoch 1."""
    path = tmp_path / "latest.pth"
    write_checkpoint(path, small_state())
    return path


def fail(code: int) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))
    return function


def assert_failed_cleanly(path: Path) -> None:
    assert read_checkpoint(path)["epoch"] == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    state = {"state_dict": {"a": torch.randn(3, 4), "b": torch.tensor(True)},
             "parts": {"list": [1, 2.5, None, "x", (True, b"\0")]}, "epoch": 7}
    write_checkpoint(tmp_path / "a.pth", state)
    read = read_checkpoint(tmp_path / "a.pth")
    assert torch.equal(read["state_dict"]["a"], state["state_dict"]["a"])
    assert (read["parts"], read["epoch"]) == (state["parts"], 7)


def test_plain_torch_reads_the_file(path: Path) -> None:
    assert torch.equal(torch.load(path)["state_dict"]["weight"], NUMBERS)


def test_file_has_the_rights_that_any_file_gets(path: Path) -> None:
    other = path.with_name("other")
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@pytest.mark.parametrize(("owner", "name"), [
    (os, "fsync"), (os, "replace"), (checkpoint_file, "open")])
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_failing_system_call_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 owner: Any, name: str, code: int) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail(code), raising=False)
        with pytest.raises(CheckpointError, match=os.strerror(code)):
            write_checkpoint(path, small_state(2))
    assert_failed_cleanly(path)


@pytest.mark.parametrize("num_bytes", [0, 1, 30, 100, 400, 700, 1000, 1500, 4000])
def test_file_that_cannot_grow_leaves_the_old_one(path: Path, num_bytes: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"latest\.pth.*File too large.*free some"):
            write_checkpoint(path, small_state(2) | {"more": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_failed_cleanly(path)


def test_state_that_cannot_be_pickled_leaves_the_old_file(path: Path) -> None:
    with pytest.raises(Exception, match="lambda"):
        write_checkpoint(path, small_state(2) | {"function": lambda: None})
    assert_failed_cleanly(path)


def test_folder_that_cannot_be_synced_is_no_error(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    checkpoint_file._sync_folder(tmp_path)


def test_failing_sync_of_a_folder_is_an_error(tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        checkpoint_file._sync_folder(tmp_path)


def test_link_is_the_same_file(path: Path) -> None:
    link_checkpoint(path, path.with_name("model_best.pth"))
    assert path.samefile(path.with_name("model_best.pth"))


def test_link_replaces_an_older_one(path: Path) -> None:
    link_checkpoint(path, path.with_name("link.pth"))
    write_checkpoint(path, small_state(2))
    old = read_checkpoint(path.with_name("link.pth"))["epoch"]
    link_checkpoint(path, path.with_name("link.pth"))
    assert (old, read_checkpoint(path.with_name("link.pth"))["epoch"]) == (1, 2)


def test_linking_a_file_to_its_own_other_name_changes_nothing(path: Path) -> None:
    link_checkpoint(path, path)
    assert_failed_cleanly(path)


def test_copy_where_links_do_not_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", fail(errno.EPERM))
    other = path.with_name("model_best.pth")
    link_checkpoint(path, other)
    assert other.read_bytes() == path.read_bytes() and not other.samefile(path)


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_failing_link_leaves_both_files(path: Path, monkeypatch: pytest.MonkeyPatch,
                                        name: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail(errno.EPERM))
        patch.setattr(os, name, fail(errno.ENOSPC))
        with pytest.raises(CheckpointError, match=r"best\.pth.*No space left"):
            link_checkpoint(path, path.with_name("best.pth"))
    assert_failed_cleanly(path)


def test_link_in_a_folder_where_nothing_can_be_changed(path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail(errno.EROFS))
        patch.setattr(shutil, "copyfile", fail(errno.EROFS))
        patch.setattr(Path, "unlink", fail(errno.EROFS))
        with pytest.raises(CheckpointError, match="Read-only file system"):
            link_checkpoint(path, path.with_name("best.pth"))
    assert_failed_cleanly(path)


def test_leftovers_of_a_killed_write_are_removed(path: Path) -> None:
    for name in ("latest.pth.0a1b2c3d.tmp", "checkpoint-epoch3.pth.link.tmp"):
        path.with_name(name).write_bytes(b"half")
    remove_leftovers(path.parent)
    assert_failed_cleanly(path)


@pytest.mark.parametrize("name", ["notes.tmp", "latest.pth.tmp", "a.pth.backup00.tmp"])
def test_temporary_files_of_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("part", range(16))
def test_truncated_file_is_refused(path: Path, part: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:len(content) * part // 16])
    with pytest.raises(CheckpointError, match=r"empty|damaged|some other kind"):
        read_checkpoint(path)


@pytest.mark.parametrize("missing", [1, 2, 60, 73, 80])
def test_file_without_its_last_bytes_is_refused(path: Path, missing: int) -> None:
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("bit", [0, 7])
def test_byte_flipped_anywhere_is_refused_or_changes_nothing(path: Path, bit: int) -> None:
    content = path.read_bytes()
    length = len(content)
    whole, changes = read_checkpoint(path), []
    for place in sorted({*range(0, length, 7), *range(length - 200, length)}):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            if not same(read_checkpoint(path), whole):
                changes.append(place)
        except CheckpointError as error:
            assert "latest.pth" in str(error)
    assert changes == []


def test_torch_alone_does_not_notice_a_flipped_bit(path: Path) -> None:
    """The checksum is not there for nothing."""
    content = bytearray(path.read_bytes())
    content[content.index(NUMBERS.numpy().tobytes()) + 6] ^= 64
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["state_dict"]["weight"], NUMBERS)
    with pytest.raises(CheckpointError, match=r"checksum of .* is wrong"):
        read_checkpoint(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_checkpoint_that_somebody_changed_and_saved_again_is_read(path: Path, is_zip: bool) -> None:
    content = torch.load(path) | {"epoch": 5}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert read_checkpoint(path)["epoch"] == 5


def test_structure_is_read_without_the_tensors(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(NUMBERS.numpy().tobytes())
    path.write_bytes(content[:start] + bytes(256) + content[start + 256:])
    assert read_checkpoint(path, with_tensors=False)["epoch"] == 1


def test_tensors_of_a_gpu_are_read_onto_the_cpu(tmp_path: Path) -> None:
    torch.save(small_state(), tmp_path / "cpu.pth")
    with zipfile.ZipFile(tmp_path / "cpu.pth") as cpu, \
            zipfile.ZipFile(tmp_path / "gpu.pth", "w") as gpu:
        for name in cpu.namelist():
            # where the storages were, as strings of the pickle
            gpu.writestr(name, cpu.read(name).replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:0"))
    assert b"cuda:0" in (tmp_path / "gpu.pth").read_bytes()
    weight = read_checkpoint(tmp_path / "gpu.pth")["state_dict"]["weight"]
    assert weight.device.type == "cpu" and torch.equal(weight, NUMBERS)


@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), ValueError("x"), KeyError(1)])
def test_any_failure_of_torchs_reader_is_told_in_one_line(
        path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise error
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(CheckpointError, match=r"checkpoint, or damaged .*use another") as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("content", "message"), [
    ([1, 2], "got a list"), ({"weight": 1}, r"got a dict with \['weight'\]"),
    ({"state_dict": [1]}, "'state_dict' in a checkpoint to be of type dict, got a list"),
    ({"state_dict": {1: 2}}, "names as keys of 'state_dict'"),
    ({"state_dict": {}, "epoch": "3"}, "'epoch' .* int, got a str"),
    ({"state_dict": {}, "parts": 3}, "'parts' .* dict, got a int"),
    ({"state_dict": {}, "rank_parts": {}}, "'rank_parts' .* list")])
def test_file_of_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["", "absent.pth", "a" * 300, "latest.pth/x"])
def test_file_that_cannot_be_opened(path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path.parent / name)
