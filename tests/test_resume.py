"""A run that was stopped anywhere and resumed ends with the same bits as one that was not."""

import functools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from base import Callback, checkpointer
from tests.tiny_run import STEPS_PER_EPOCH, final_state, history, same, train
from utils.checkpoint_file import read_checkpoint

KINDS: dict[str, dict[str, Any]] = {
    "StepLR": {},
    "OneCycleLR": {"schedule": "OneCycleLR"},
    "ReduceLROnPlateau": {"schedule": "ReduceLROnPlateau"},
    "two optimizers": {"optimizers": 2},
    "two workers": {"num_workers": 2},
}
STEPS = range(1, 2 * STEPS_PER_EPOCH + 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs that were never stopped, by their kind."""
    @functools.cache
    def run(kind: str) -> Path:
        return train(tmp_path_factory.mktemp("whole"), **KINDS[kind])
    return run


def assert_same_end(parts: Path, whole: Path) -> None:
    assert same(final_state(parts), final_state(whole))
    assert same(final_state(parts, "model_best.pth"), final_state(whole, "model_best.pth"))
    assert history(parts) == history(whole)


@pytest.mark.parametrize("stop_step", STEPS)
@pytest.mark.parametrize("kind", ["StepLR", "OneCycleLR", "ReduceLROnPlateau", "two optimizers"])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, whole: Any, kind: str,
                                              stop_step: int) -> None:
    """D22, D23, D24: scheduler, random generators and patience are restored."""
    folder = train(tmp_path, stop_step=stop_step, **KINDS[kind])
    train(tmp_path, resume=folder / "latest.pth", **KINDS[kind])
    assert_same_end(folder, whole(kind))


@pytest.mark.slow
@pytest.mark.parametrize("stop_step", STEPS)
def test_resumed_run_with_workers_equals_uninterrupted_run(tmp_path: Path, whole: Any,
                                                           stop_step: int) -> None:
    folder = train(tmp_path, stop_step=stop_step, num_workers=2)
    train(tmp_path, resume=folder / "latest.pth", num_workers=2)
    assert_same_end(folder, whole("two workers"))


def test_three_interruptions_in_a_row_change_nothing(tmp_path: Path, whole: Any) -> None:
    folder = train(tmp_path, stop_step=2)
    for stop_step in (3, 7, None):
        train(tmp_path, resume=folder / "latest.pth", stop_step=stop_step)
    assert_same_end(folder, whole("StepLR"))


def test_stop_on_the_last_batch_finishes_the_epoch(tmp_path: Path) -> None:
    folder = train(tmp_path, stop_step=STEPS_PER_EPOCH)
    assert read_checkpoint(folder / "latest.pth")["parts"]["progress"] == {
        "epoch": 1, "batch": 0, "step": STEPS_PER_EPOCH, "data_epoch": 1, "data_batch": 0}


def test_stop_inside_an_epoch_keeps_its_place(tmp_path: Path) -> None:
    folder = train(tmp_path, stop_step=STEPS_PER_EPOCH + 2)
    assert read_checkpoint(folder / "latest.pth")["parts"]["progress"] == {
        "epoch": 1, "batch": 2, "step": STEPS_PER_EPOCH + 2, "data_epoch": 1, "data_batch": 2}


@pytest.mark.parametrize("stop_step", [2, 6, 9])
def test_resume_with_iteration_based_epochs_is_exact(tmp_path: Path, stop_step: int) -> None:
    """D16: with ``len_epoch`` the order of data goes on across epochs."""
    whole = train(tmp_path / "whole", len_epoch=3, epochs=4)
    folder = train(tmp_path / "parts", len_epoch=3, epochs=4, stop_step=stop_step)
    train(tmp_path / "parts", resume=folder / "latest.pth", len_epoch=3, epochs=4)
    assert_same_end(folder, whole)
    assert final_state(whole)["parts"]["progress"]["step"] == 12


@pytest.mark.parametrize("save_steps", [1, 2, 3])
def test_saving_inside_epochs_changes_nothing(tmp_path: Path, whole: Any, save_steps: int) -> None:
    assert_same_end(train(tmp_path, save_steps=save_steps), whole("StepLR"))


def test_saving_in_the_background_changes_nothing(tmp_path: Path, whole: Any) -> None:
    assert_same_end(train(tmp_path, async_save=True, save_steps=1), whole("StepLR"))


def test_number_of_workers_changes_nothing(tmp_path: Path, whole: Any) -> None:
    assert_same_end(train(tmp_path, num_workers=1), whole("StepLR"))
    assert same(final_state(whole("two workers")), final_state(whole("StepLR")))


@pytest.mark.parametrize("settings", [
    {"validation": 0.0}, {"tensorboard": True}, {"verbosity": 2}, {"log_steps": 3}], ids=str)
def test_what_is_watched_changes_no_weight(tmp_path: Path, whole: Any,
                                           settings: dict[str, Any]) -> None:
    """D19: validation, TensorBoard and verbosity leave the training as it is."""
    state = final_state(train(tmp_path, **settings))
    for key in ("state_dict", "optimizer"):
        assert same(state[key], final_state(whole("StepLR"))[key])


def test_workers_may_change_on_resume(tmp_path: Path, whole: Any) -> None:
    folder = train(tmp_path, stop_step=3, num_workers=2)
    train(tmp_path, resume=folder / "latest.pth", num_workers=0)
    assert_same_end(folder, whole("StepLR"))


def test_finished_run_goes_on_to_more_epochs(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", epochs=3)
    folder = train(tmp_path / "parts", epochs=2)
    train(tmp_path / "parts", resume=folder / "latest.pth", epochs=3)
    assert_same_end(folder, whole)


def test_resuming_an_older_epoch_drops_the_later_rows(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", epochs=3)
    folder = train(tmp_path / "parts", epochs=3)
    train(tmp_path / "parts", resume=folder / "checkpoint-epoch1.pth", epochs=3)
    assert history(folder) == history(whole)
    assert same(final_state(folder), final_state(whole))


class StopWhileValidating(Callback):
    """Asks the run to stop while its validation data is read, in the first epoch."""

    def on_train_start(self, trainer: Any) -> None:
        read, batches = iter, trainer.valid_data_loader

        class Signalling:
            def place(self, epoch: int, skip_batches: int = 0) -> None:
                batches.place(epoch, skip_batches)

            def __iter__(self) -> Any:
                trainer._signals._note(signal.SIGUSR1, None)
                return read(batches)

        trainer.valid_data_loader = Signalling()


def test_stop_during_validation_finishes_the_epoch_and_changes_nothing(tmp_path: Path,
                                                                       whole: Any) -> None:
    folder = train(tmp_path, callbacks=(StopWhileValidating(),), status=128 + signal.SIGUSR1)
    assert read_checkpoint(folder / "latest.pth")["parts"]["progress"]["epoch"] == 1
    train(tmp_path, resume=folder / "latest.pth")
    assert_same_end(folder, whole("StepLR"))


@pytest.mark.parametrize("save", [1, 2, 5])
def test_stop_during_a_save_changes_nothing(tmp_path: Path, whole: Any, save: int,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A real SIGTERM inside the write of a file: the file is finished, then the run stops."""
    write, calls = checkpointer.write_checkpoint, []

    def signalled(path: Path, state: dict[str, Any]) -> None:
        calls.append(path)
        if len(calls) == save:
            os.kill(os.getpid(), signal.SIGTERM)
        write(path, state)

    monkeypatch.setattr(checkpointer, "write_checkpoint", signalled)
    folder = train(tmp_path, save_steps=1)
    assert final_state(folder)["parts"]["progress"]["step"] < 2 * STEPS_PER_EPOCH
    train(tmp_path, resume=folder / "latest.pth", save_steps=1)
    assert_same_end(folder, whole("StepLR"))
