import errno
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from base import checkpointer as module
from base.checkpointer import BEST, LATEST, Checkpointer, copy_to_host
from tests.conftest import ROOT
from utils.checkpoint_file import read_checkpoint, write_checkpoint
from utils.errors import CheckpointError


def state(epoch: int = 1) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((8,), float(epoch))}, "epoch": epoch}


def save_epochs(checkpointer: Checkpointer, *epochs: int, best: int = 0) -> None:
    for epoch in epochs:
        names = [checkpointer.epoch_name(epoch), *([BEST] if epoch == best else []), LATEST]
        checkpointer.save(state(epoch), names, epoch=epoch)
    checkpointer.wait()


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def full_disk(*_: Any) -> None:
    raise CheckpointError("no space left")


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writes wait until it is set."""
    event = threading.Event()

    def write(path: Path, content: dict[str, Any]) -> None:
        assert event.wait(5)
        write_checkpoint(path, content)
    monkeypatch.setattr(module, "write_checkpoint", write)
    return event


def test_negative_keep_last_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep_last must be 0 \(all\) or more, got -1"):
        Checkpointer(tmp_path, keep_last=-1)


def test_names_are_one_file(tmp_path: Path, is_async: bool) -> None:
    """D32"""
    save_epochs(Checkpointer(tmp_path / "run", async_save=is_async), 1, best=1)

    files = [tmp_path / "run" / name for name in ("checkpoint-epoch1.pth", BEST, LATEST)]
    assert len({file.stat().st_ino for file in files}) == 1


def test_latest_is_the_newest(tmp_path: Path, is_async: bool) -> None:
    """D33"""
    save_epochs(Checkpointer(tmp_path, async_save=is_async), 1, 2, 3, best=2)

    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 3
    assert read_checkpoint(tmp_path / BEST)["epoch"] == 2


def test_latest_is_the_newest_where_links_do_not_work(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D33"""
    def no_link(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links")
    monkeypatch.setattr(os, "link", no_link)

    save_epochs(Checkpointer(tmp_path, keep_last=1), 1, 2, best=1)

    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 2
    assert read_checkpoint(tmp_path / BEST)["epoch"] == 1


@pytest.mark.parametrize(("keep_last", "kept"), [(0, {1, 2, 3, 9, 10}), (1, {10}), (2, {9, 10}),
                                                 (9, {1, 2, 3, 9, 10})])
def test_keep_last_keeps_the_newest_epochs_by_number(
        tmp_path: Path, keep_last: int, kept: set[int]) -> None:
    """D33"""
    save_epochs(Checkpointer(tmp_path, keep_last=keep_last), 1, 2, 3, 9, 10)

    assert names_in(tmp_path) == {f"checkpoint-epoch{epoch}.pth" for epoch in kept} | {LATEST}


def test_pruning_never_removes_best_and_latest(tmp_path: Path, is_async: bool) -> None:
    """D33"""
    save_epochs(Checkpointer(tmp_path, keep_last=1, async_save=is_async), 1, 2, 3, best=1)

    assert names_in(tmp_path) == {"checkpoint-epoch3.pth", BEST, LATEST}
    assert read_checkpoint(tmp_path / BEST)["epoch"] == 1


def test_pruning_leaves_files_of_others(tmp_path: Path) -> None:
    others = {"checkpoint-epoch1.pth.bak", "my-checkpoint-epoch1.pth", "checkpoint-epochX.pth"}
    for name in others:
        (tmp_path / name).touch()

    save_epochs(Checkpointer(tmp_path, keep_last=1), 2, 3)

    assert names_in(tmp_path) == others | {"checkpoint-epoch3.pth", LATEST}


def test_epochs_beyond_the_resumed_one_do_not_count(tmp_path: Path) -> None:
    save_epochs(Checkpointer(tmp_path), 1, 2, 8, 9)

    save_epochs(Checkpointer(tmp_path, keep_last=2), 3)

    epochs = {name for name in names_in(tmp_path) if name != LATEST}
    assert epochs == {f"checkpoint-epoch{epoch}.pth" for epoch in (2, 3, 8, 9)}


@pytest.mark.parametrize(("name", "last"), [
    ("{epoch:03d}.pth", "003.pth"), ("a.{epoch:02}=b.pth", "a.03=b.pth"),
    ("e{epoch}+.pth", "e3+.pth")])
def test_names_with_formats_are_pruned(tmp_path: Path, name: str, last: str) -> None:
    save_epochs(Checkpointer(tmp_path, keep_last=1, name=name), 1, 2, 3)

    assert names_in(tmp_path) == {last, LATEST}


def test_without_an_epoch_nothing_is_pruned(tmp_path: Path) -> None:
    save_epochs(Checkpointer(tmp_path), 1, 2)

    Checkpointer(tmp_path, keep_last=1).save(state(3), [LATEST])

    assert len(names_in(tmp_path)) == 3


def test_leftovers_of_a_killed_write_go_with_the_next_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-epoch1.pth.01234567.tmp").write_bytes(b"half")
    (tmp_path / "mine.tmp").touch()

    save_epochs(Checkpointer(tmp_path), 2)

    assert names_in(tmp_path) == {"checkpoint-epoch2.pth", LATEST, "mine.tmp"}


def test_failed_save_leaves_earlier_checkpoints(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    """D32"""
    save_epochs(Checkpointer(tmp_path), 1, best=1)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", lambda _: os.write(-1, b""))  # EBADF

    with pytest.raises(CheckpointError, match="Bad file descriptor"):
        save_epochs(Checkpointer(tmp_path, async_save=is_async, keep_last=1), 2, best=2)

    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match="cannot be made"):
        save_epochs(Checkpointer(tmp_path / "file" / "run"), 1)


def test_file_that_cannot_be_pruned_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-epoch1.pth").mkdir()

    with pytest.raises(CheckpointError, match=r"epoch1\.pth: could not be removed.*keep_last"):
        save_epochs(Checkpointer(tmp_path, keep_last=1), 2)


def test_async_save_does_not_wait_for_the_file(tmp_path: Path, gate: threading.Event) -> None:
    checkpointer = Checkpointer(tmp_path, async_save=True)

    checkpointer.save(state(), [LATEST])
    was_there = (tmp_path / LATEST).exists()
    gate.set()
    checkpointer.wait()

    assert not was_there and read_checkpoint(tmp_path / LATEST)["epoch"] == 1


def test_changes_after_an_async_save_do_not_reach_the_file(
        tmp_path: Path, gate: threading.Event) -> None:
    checkpointer = Checkpointer(tmp_path, async_save=True)
    content = state() | {"parts": {"list": [1], "set": {1}, "dict": {"a": [1]}}}

    checkpointer.save(content, [LATEST])
    content["state_dict"]["weight"].fill_(9)
    content["parts"]["list"].append(2)
    content["parts"]["set"].add(2)
    content["parts"]["dict"]["a"].append(2)
    gate.set()
    checkpointer.wait()

    read = read_checkpoint(tmp_path / LATEST)
    assert torch.equal(read["state_dict"]["weight"], torch.ones(8))
    assert read["parts"] == {"list": [1], "set": {1}, "dict": {"a": [1]}}


def test_async_and_sync_saves_hold_the_same(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    content = {"state_dict": model.state_dict(), "epoch": 1, "parts": {"size": torch.Size([1, 2])}}
    for name in ("sync", "async"):
        checkpointer = Checkpointer(tmp_path, async_save=name == "async")
        checkpointer.save(content, [f"{name}.pth"])
        checkpointer.wait()

    one, other = (torch.load(tmp_path / f"{name}.pth") for name in ("sync", "async"))
    assert one["state_dict"]._metadata == other["state_dict"]._metadata
    assert one["parts"] == other["parts"]
    assert all(map(torch.equal, one["state_dict"].values(), other["state_dict"].values()))


@pytest.mark.parametrize("ask", ["save", "wait"])
@pytest.mark.parametrize("error", [CheckpointError("disk"), AttributeError("cannot pickle")])
def test_error_in_the_background_is_raised_at_the_next_call(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error
    checkpointer = Checkpointer(tmp_path, async_save=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_checkpoint", fail)
        checkpointer.save(state(), [LATEST])
        checkpointer._thread.join()

        with pytest.raises(type(error), match=str(error)):
            checkpointer.wait() if ask == "wait" else checkpointer.save(state(), [LATEST])


def test_error_in_the_background_is_raised_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = Checkpointer(tmp_path, async_save=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_checkpoint", full_disk)
        checkpointer.save(state(), [LATEST])
        with pytest.raises(CheckpointError):
            checkpointer.wait()

    save_epochs(checkpointer, 2)
    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 2


def test_buffers_of_the_copy_are_reused(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, async_save=True)
    places = set()
    for epoch in (1, 2, 3):
        save_epochs(checkpointer, epoch)
        places.add(checkpointer._buffers["state_dict"]["weight"].data_ptr())

    assert len(places) == 1
    assert read_checkpoint(tmp_path / LATEST)["state_dict"]["weight"][0] == 3


@pytest.mark.slow
def test_file_is_complete_when_the_process_ends(tmp_path: Path) -> None:
    program = """
import sys, time, torch
from pathlib import Path
from base import checkpointer as module
write = module.write_checkpoint
def slowly(*args):
    time.sleep(0.5)
    write(*args)
module.write_checkpoint = slowly
module.Checkpointer(Path(sys.argv[1]), async_save=True).save(
    {"state_dict": {"a": torch.ones(3)}, "epoch": 4}, ["latest.pth"])
"""
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, check=True)

    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 4


@pytest.mark.parametrize("tensor", [
    torch.randn(3), torch.zeros(0), torch.tensor(5), torch.randn(2, 3).t(),
    torch.ones(1).expand(4), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    torch.randn(3).bfloat16(), nn.Parameter(torch.randn(2))],
    ids=["vector", "empty", "number", "transposed", "expanded", "channels_last", "bfloat16",
         "parameter"])
def test_copy_of_a_tensor(tensor: torch.Tensor) -> None:
    copied = copy_to_host(tensor)

    assert torch.equal(copied, tensor) and copied.dtype == tensor.dtype
    assert not copied.requires_grad
    assert tensor.numel() == 0 or copied.data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("buffers", [
    None, {"a": torch.zeros(2)}, {"a": torch.zeros(3, dtype=torch.int64)}, {"a": 3}, [1], {}])
def test_buffers_that_do_not_fit_are_not_used(buffers: Any) -> None:
    copied = copy_to_host({"a": torch.tensor([1.5, 2.5, 3.5])}, buffers)

    assert torch.equal(copied["a"], torch.tensor([1.5, 2.5, 3.5]))


def test_copy_keeps_types_and_attributes_of_containers() -> None:
    content = OrderedDict(a=[torch.ones(1)], b=(1, "x"))
    content._metadata = {"": {"version": 2}}

    copied = copy_to_host(content)

    assert type(copied) is OrderedDict and copied._metadata == content._metadata
    assert type(copied["a"]) is list and copied["b"] == (1, "x")
