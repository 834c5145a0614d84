"""The file of the best model and the best value are always of one epoch."""

from pathlib import Path
from typing import Any

import pytest

from base import Callback
from tests.framework.tiny_run import history, train
from utils.runs.checkpoint_file import read_checkpoint


class BestEpoch(Callback):
    """A value by which a chosen epoch is the best."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        log["own"] = self.values[epoch - 1]


def best_of(folder: Path) -> tuple[int, float, float]:
    """Epoch and value of the best model's file, and the best value that the monitor has."""
    best, latest = (read_checkpoint(folder / name) for name in ("model_best.pth", "latest.pth"))
    return best["epoch"], best["monitor_best"], latest["parts"]["best_monitor"]["best"]


def trained(folder: Path, *values: float, **options: Any) -> Path:
    return train(folder, monitor="min own", callbacks=(BestEpoch(*values),), epochs=len(values),
                 **options)


@pytest.mark.parametrize("new_run", [False, True])
@pytest.mark.parametrize(("values", "best"), [
    ([9.0, 9.0], (1, 2.0, 2.0)), ([1.5, 9.0], (3, 1.5, 1.5)), ([9.0, 1.5, 9.0], (4, 1.5, 1.5))])
def test_best_model_and_best_value_are_of_one_epoch_after_resuming_an_older_one(
        tmp_path: Path, new_run: bool, values: list[float], best: Any) -> None:
    """The first run's best is epoch 3; a branch begins after epoch 2, until when it was 1."""
    folder = trained(tmp_path, 2.0, 3.0, 1.0)
    branch = trained(tmp_path, 2.0, 3.0, *values, resume=folder / "checkpoint-epoch2.pth",
                     new_run=new_run)
    assert (branch == folder) is not new_run
    assert best_of(branch) == best
    if new_run:
        assert best_of(folder) == (3, 1.0, 1.0)


@pytest.mark.parametrize("new_run", [False, True])
def test_best_value_whose_model_is_gone_starts_anew(tmp_path: Path, new_run: bool) -> None:
    folder = trained(tmp_path, 2.0, 3.0, 1.0, keep_last=2)  # of epoch 1 nothing is left
    branch = trained(tmp_path, 2.0, 3.0, 9.0, 8.0, resume=folder / "checkpoint-epoch2.pth",
                     new_run=new_run)
    assert best_of(branch) == (4, 8.0, 8.0)


def test_best_model_of_the_run_goes_along_into_a_new_folder(tmp_path: Path) -> None:
    folder = trained(tmp_path, 1.0, 2.0, keep_last=1)
    branch = trained(tmp_path, 1.0, 2.0, 9.0, resume=folder / "latest.pth", new_run=True)
    assert branch != folder and best_of(branch) == (1, 1.0, 1.0)
    assert len(history(branch)) == 3 and history(folder) == history(branch)[:2]


class Fails(Callback):
    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        raise RuntimeError("at once")


class FailsLate(Callback):
    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if trainer.counters.epoch == 2:
            raise RuntimeError("before any save")


def test_history_stays_until_the_branch_has_saved(tmp_path: Path) -> None:
    folder = trained(tmp_path, 2.0, 3.0, 4.0)
    rows = history(folder)
    with pytest.raises(RuntimeError, match="before any save"):
        train(tmp_path, monitor="off", callbacks=(FailsLate(),), epochs=9, save_freq=9,
              resume=folder / "checkpoint-epoch1.pth")
    assert history(folder) == rows and len(rows) == 3


def test_branch_that_fails_before_its_first_save_leaves_the_folder_as_it_was(
        tmp_path: Path) -> None:
    folder = trained(tmp_path, 2.0, 3.0, 1.0)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RuntimeError, match="at once"):
        train(tmp_path, monitor="min own", callbacks=(Fails(),), epochs=9,
              resume=folder / "checkpoint-epoch2.pth")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
