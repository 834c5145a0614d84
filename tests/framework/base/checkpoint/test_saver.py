import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from base.checkpoint import saver as module
from base.checkpoint.saver import Saver
from parse_config import ConfigParser
from tests.framework.conftest import ROOT
from tests.framework.tiny_run import STEPS_PER_EPOCH, ClippingTrainer, train
from utils.errors import CheckpointError, ConfigError, RunError
from utils.runs.checkpoint_file import read_checkpoint, write_checkpoint
from utils.runs.folder import BEST, LATEST

WEIGHT = ("state_dict", "weight")


def state(epoch: int = 1) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((8,), float(epoch))}, "epoch": epoch}


def saver_of(folder: Path, **options: Any) -> Saver:
    return Saver(lambda: folder, **options)


def save_epochs(saver: Saver, *epochs: int, best: int = 0) -> None:
    for epoch in epochs:
        saver.save_epoch(state(epoch), epoch, is_best=epoch == best, is_last=False)
    saver.wait()


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


def test_names_are_one_file(tmp_path: Path, is_async: bool) -> None:
    save_epochs(saver_of(tmp_path / "run", async_save=is_async), 1, best=1)
    files = [tmp_path / "run" / name for name in ("checkpoint-epoch1.pth", BEST, LATEST)]
    assert len({file.stat().st_ino for file in files}) == 1


def test_latest_is_the_newest(tmp_path: Path, is_async: bool) -> None:
    save_epochs(saver_of(tmp_path, async_save=is_async), 1, 2, 3, best=2)
    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 3
    assert read_checkpoint(tmp_path / BEST)["epoch"] == 2


@pytest.mark.parametrize(("keep_last", "kept"), [(0, {1, 2, 3, 9, 10}), (1, {10}), (2, {9, 10}),
                                                 (9, {1, 2, 3, 9, 10})])
def test_keep_last_keeps_the_newest_epochs_by_number(
        tmp_path: Path, keep_last: int, kept: set[int]) -> None:
    save_epochs(saver_of(tmp_path, keep_last=keep_last), 1, 2, 3, 9, 10)
    assert names_in(tmp_path) == {f"checkpoint-epoch{epoch}.pth" for epoch in kept} | {LATEST}


def test_pruning_never_removes_best_and_latest(tmp_path: Path, is_async: bool) -> None:
    save_epochs(saver_of(tmp_path, keep_last=1, async_save=is_async), 1, 2, 3, best=1)
    assert names_in(tmp_path) == {"checkpoint-epoch3.pth", BEST, LATEST}
    assert read_checkpoint(tmp_path / BEST)["epoch"] == 1


def test_pruning_leaves_files_of_others(tmp_path: Path) -> None:
    others = {"checkpoint-epoch1.pth.bak", "my-checkpoint-epoch1.pth", "checkpoint-epochX.pth"}
    for name in others:
        (tmp_path / name).touch()
    save_epochs(saver_of(tmp_path, keep_last=1), 2, 3)
    assert names_in(tmp_path) == others | {"checkpoint-epoch3.pth", LATEST}


def test_epochs_beyond_the_resumed_one_do_not_count(tmp_path: Path) -> None:
    save_epochs(saver_of(tmp_path), 1, 2, 8, 9)
    save_epochs(saver_of(tmp_path, keep_last=2), 3)
    epochs = {name for name in names_in(tmp_path) if name != LATEST}
    assert epochs == {f"checkpoint-epoch{epoch}.pth" for epoch in (2, 3, 8, 9)}


@pytest.mark.parametrize(("name", "last"), [
    ("{epoch:03d}.pth", "003.pth"), ("a.{epoch:02}=b.pth", "a.03=b.pth"),
    ("e{epoch}.pth", "e3.pth")])
def test_names_of_every_accepted_format_are_pruned(tmp_path: Path, name: str, last: str) -> None:
    config: dict[str, Any] = {"name": "x", "trainer": {"epochs": 1, "checkpoint_name": name}}
    save_epochs(saver_of(tmp_path, keep_last=1, name=ConfigParser(
        config).trainer.checkpoint_name), 1, 2, 3)
    assert names_in(tmp_path) == {last, LATEST}


@pytest.mark.parametrize("name", ["{epoch:3}.pth", "{epoch:>3}.pth", "{epoch:x}.pth", "a.pth"])
def test_names_that_could_not_be_found_again_are_not_taken(name: str) -> None:
    config: dict[str, Any] = {"name": "x", "trainer": {"epochs": 1, "checkpoint_name": name}}
    assert ConfigParser(config).trainer.checkpoint_name == "checkpoint-epoch{epoch}.pth"
    with pytest.raises(ConfigError, match=r"trainer\.checkpoint_name"):
        ConfigParser(config, modules={"arch": "torch.nn"})


@pytest.mark.parametrize(("save_freq", "is_last", "has_file"), [
    (1, False, True), (2, False, False), (3, False, True), (2, True, True)])
def test_epoch_has_a_file_when_one_is_due_and_at_the_end(tmp_path: Path, save_freq: int,
                                                         is_last: bool, has_file: bool) -> None:
    saver = saver_of(tmp_path, save_freq=save_freq)
    saver.save_epoch(state(3), 3, is_best=True, is_last=is_last)
    assert names_in(tmp_path) == {LATEST, BEST} | (
        {"checkpoint-epoch3.pth"} if has_file else set())


def test_between_steps_only_latest_is_written_and_nothing_pruned(tmp_path: Path) -> None:
    save_epochs(saver_of(tmp_path), 1, 2)
    saver_of(tmp_path, keep_last=1).save_latest(state(3))
    assert len(names_in(tmp_path)) == 3 and read_checkpoint(tmp_path / LATEST)["epoch"] == 3


@pytest.mark.parametrize("save", ["epoch", "latest"])
def test_weights_that_are_not_finite_are_not_saved_over_good_ones(tmp_path: Path, save: str,
                                                                  is_async: bool) -> None:
    saver, bad = saver_of(tmp_path, keep_last=1, async_save=is_async), state(2)
    save_epochs(saver, 1, best=1)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    bad["state_dict"]["weight"][3] = math.nan
    with pytest.raises(RunError, match=r"not finite any more \(state_dict\.weight\)"):
        if save == "epoch":
            saver.save_epoch(bad, 2, is_best=True, is_last=True, finite=[WEIGHT])
        else:
            saver.save_latest(bad, [WEIGHT])
        saver.wait()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


class BadGradient(ClippingTrainer):
    """The loss of a step is finite, its gradient is not."""
    step = 2 * STEPS_PER_EPOCH - 1

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        if self.counters.step == self.step:
            self.model[0].weight.register_hook(lambda gradient: gradient * math.nan)
        return super()._train_step(batch, batch_idx)


def test_gradient_that_is_not_finite_in_the_last_step_costs_no_good_checkpoint(
        tmp_path: Path, is_async: bool) -> None:
    with pytest.raises(RunError, match="weights are not finite"):
        train(tmp_path, kind=BadGradient, validation=0.0, keep_last=1, async_save=is_async)
    folder = tmp_path / "models/tiny/run"
    for name in ("checkpoint-epoch1.pth", LATEST, BEST):
        content = read_checkpoint(folder / name)
        assert content["epoch"] == 1 and content["state_dict"]["0.weight"].isfinite().all()


def test_leftovers_of_a_killed_write_go_with_the_next_save(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-epoch1.pth.01234567.tmp").write_bytes(b"half")
    (tmp_path / "mine.tmp").touch()
    save_epochs(saver_of(tmp_path), 2)
    assert names_in(tmp_path) == {"checkpoint-epoch2.pth", LATEST, "mine.tmp"}


def test_failed_save_leaves_earlier_checkpoints(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    save_epochs(saver_of(tmp_path), 1, best=1)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", lambda _: os.write(-1, b""))  # EBADF
    with pytest.raises(CheckpointError, match="Bad file descriptor"):
        save_epochs(saver_of(tmp_path, async_save=is_async, keep_last=1), 2, best=2)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be made"):
        save_epochs(saver_of(tmp_path / "file" / "run"), 1)


def test_file_that_cannot_be_pruned_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-epoch1.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"epoch1\.pth: could not be removed.*keep_last"):
        save_epochs(saver_of(tmp_path, keep_last=1), 2)


def test_async_save_does_not_wait_for_the_file(tmp_path: Path, gate: threading.Event) -> None:
    saver = saver_of(tmp_path, async_save=True)
    saver.save_latest(state())
    was_there = (tmp_path / LATEST).exists()
    gate.set()
    saver.wait()
    assert not was_there and read_checkpoint(tmp_path / LATEST)["epoch"] == 1


def test_changes_after_an_async_save_do_not_reach_the_file(
        tmp_path: Path, gate: threading.Event) -> None:
    saver = saver_of(tmp_path, async_save=True)
    content = state() | {"parts": {"list": [1], "set": {1}, "dict": {"a": [1]}}}
    saver.save_latest(content)
    content["state_dict"]["weight"].fill_(9)
    content["parts"]["list"].append(2)
    content["parts"]["set"].add(2)
    content["parts"]["dict"]["a"].append(2)
    gate.set()
    saver.wait()
    read = read_checkpoint(tmp_path / LATEST)
    assert torch.equal(read["state_dict"]["weight"], torch.ones(8))
    assert read["parts"] == {"list": [1], "set": {1}, "dict": {"a": [1]}}


def test_async_and_sync_saves_hold_the_same(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("pairs", torch.eye(3).to_sparse())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])
    content = {"state_dict": model.state_dict(), "epoch": 1, "parts": {
        "size": torch.Size([1, 2]), "schedule": schedule.state_dict()}}
    for name in ("sync", "async"):
        saver = saver_of(tmp_path / name, async_save=name == "async")
        saver.save_latest(content)
        saver.wait()
    one, other = (torch.load(tmp_path / name / LATEST) for name in ("sync", "async"))
    assert one["state_dict"]._metadata == other["state_dict"]._metadata
    assert one["parts"] == other["parts"] and other["parts"]["schedule"]["milestones"][3] == 2
    assert torch.equal(other["state_dict"]["pairs"].to_dense(), torch.eye(3))
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key])
               for key in one["state_dict"] if key != "pairs")


@pytest.mark.parametrize("ask", ["save", "wait"])
@pytest.mark.parametrize("error", [CheckpointError("disk"), AttributeError("cannot pickle")])
def test_error_in_the_background_is_raised_at_the_next_call(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error
    saver = saver_of(tmp_path, async_save=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_checkpoint", fail)
        saver.save_latest(state())
        saver._thread.join()
        with pytest.raises(type(error), match=str(error)):
            saver.wait() if ask == "wait" else saver.save_latest(state())


def test_error_in_the_background_is_raised_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = saver_of(tmp_path, async_save=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_checkpoint", full_disk)
        saver.save_latest(state())
        with pytest.raises(CheckpointError):
            saver.wait()
    save_epochs(saver, 2)
    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 2


def test_buffers_of_the_copy_are_reused(tmp_path: Path) -> None:
    saver = saver_of(tmp_path, async_save=True)
    places = set()
    for epoch in (1, 2, 3):
        save_epochs(saver, epoch)
        places.add(saver._buffers["state_dict"]["weight"].data_ptr())
    assert len(places) == 1
    assert read_checkpoint(tmp_path / LATEST)["state_dict"]["weight"][0] == 3


@pytest.mark.slow
def test_file_is_complete_when_the_process_ends(tmp_path: Path) -> None:
    program = """
import sys, time, torch
from pathlib import Path
from base.checkpoint import saver as module
write = module.write_checkpoint
def slowly(*args):
    time.sleep(0.5)
    write(*args)
module.write_checkpoint = slowly
module.Saver(lambda: Path(sys.argv[1]), async_save=True).save_latest(
    {"state_dict": {"a": torch.ones(3)}, "epoch": 4})
"""
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, check=True)
    assert read_checkpoint(tmp_path / LATEST)["epoch"] == 4


def test_directory_may_be_assigned(tmp_path: Path) -> None:
    saver = saver_of(tmp_path / "a")
    saver.directory = tmp_path / "b"
    save_epochs(saver, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
