"""Runs that go by steps: where they end, when they validate, what they keep."""

from pathlib import Path
from typing import Any

import pytest

from base import Callback
from tests.framework.tiny_run import (
    STEPS_PER_EPOCH,
    ClippingTrainer,
    StopAt,
    final_state,
    history,
    make_trainer,
    same,
    train,
)
from tests.framework.toy.trainer import Trainer
from utils.errors import ConfigError, RunError
from utils.runs.checkpoint_file import read_checkpoint


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pth")}


def test_max_steps_ends_a_run_inside_an_epoch_with_its_validation(tmp_path: Path) -> None:
    folder = train(tmp_path, max_steps=7, epochs=None)
    assert [(row["epoch"], row["step"]) for row in history(folder)] == [(1, 5), (2, 7)]
    assert all("val_loss" in row for row in history(folder))
    assert names(folder) == {"latest.pth", "model_best.pth", "checkpoint-epoch1.pth"}


def test_whatever_comes_first_of_epochs_and_max_steps_ends_the_run(tmp_path: Path) -> None:
    assert history(train(tmp_path / "a", max_steps=99))[-1]["step"] == 2 * STEPS_PER_EPOCH
    assert history(train(tmp_path / "b", max_steps=3))[-1]["step"] == 3


def test_finished_run_goes_on_to_more_steps(tmp_path: Path, capsys: Any) -> None:
    folder = train(tmp_path, max_steps=7, epochs=None)
    train(tmp_path, resume=folder / "latest.pth", max_steps=7, epochs=None)
    assert "give trainer.max_steps=8 or more" in capsys.readouterr().out
    train(tmp_path, resume=folder / "latest.pth", max_steps=9, epochs=None)
    assert [row["step"] for row in history(folder)] == [5, 7, 9]


def test_run_that_max_steps_ended_and_that_goes_on_is_that_of_one_so_long(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", max_steps=12, epochs=None)
    parts = train(tmp_path / "parts", max_steps=7, epochs=None)
    train(tmp_path / "parts", resume=parts / "latest.pth", max_steps=12, epochs=None)
    one, other = final_state(whole), final_state(parts)
    assert same(one["state_dict"], other["state_dict"])
    assert same(one["optimizer"], other["optimizer"])
    assert one["parts"]["counters"] == other["parts"]["counters"]


@pytest.mark.parametrize(("settings", "places"), [
    ({"valid_steps": 2}, [(1, 2), (1, 4), (2, 6), (2, 8), (2, 10)]),
    ({"valid_steps": 4}, [(1, 4), (2, 8), (2, 10)]),
    ({"valid_steps": 5}, [(1, 5), (2, 10)]),
    ({"valid_steps": 100}, [(2, 10)]),
    ({"valid_steps": 4, "len_epoch": 3, "epochs": 3}, [(2, 4), (3, 8), (3, 9)]),
    ({"valid_steps": 4, "max_steps": 6}, [(1, 4), (2, 6)]),
    ({"valid_steps": 3, "is_stream": True}, [(1, 3), (2, 6), (2, 9), (2, 10)]),
], ids=str)
def test_validations_come_every_so_many_steps_and_at_the_end(
        tmp_path: Path, settings: Any, places: list[tuple[int, int]]) -> None:
    folder = train(tmp_path, **settings)
    assert [(row["epoch"], row["step"]) for row in history(folder)] == places


def test_training_values_are_means_since_the_validation_before(tmp_path: Path) -> None:
    each = history(train(tmp_path / "each", valid_steps=1))
    both = history(train(tmp_path / "both", valid_steps=2))
    for index, row in enumerate(both[:2]):  # batches of 8
        assert row["loss"] == pytest.approx((each[2 * index]["loss"]
                                             + each[2 * index + 1]["loss"]) / 2)
    assert [row["val_loss"] for row in both] == [row["val_loss"] for row in each[1::2]]


def test_validations_inside_epochs_change_no_training(tmp_path: Path) -> None:
    for is_stream in (False, True):
        plain, by_steps = (final_state(train(
            tmp_path / f"{steps} {is_stream}", valid_steps=steps, is_stream=is_stream, epochs=3))
            for steps in (None, 3))
        assert same(plain["state_dict"], by_steps["state_dict"])
        assert plain["parts"]["counters"] == by_steps["parts"]["counters"]


def test_early_stopping_and_plateau_go_by_validations(tmp_path: Path) -> None:
    folder = train(tmp_path, valid_steps=1, early_stop=2, min_delta=1e9, epochs=9)
    assert len(history(folder)) == 3
    folder = train(tmp_path / "plateau", valid_steps=2, schedule="ReduceLROnPlateau")
    assert final_state(folder)["parts"]["lr_scheduler"]["last_epoch"] == 5


def test_epochs_still_have_their_files_and_schedules(tmp_path: Path) -> None:
    for valid_steps, is_stream in ((3, False), (3, True), (5, True)):
        folder = train(tmp_path / f"{valid_steps} {is_stream}", valid_steps=valid_steps,
                       monitor="off", is_stream=is_stream)
        assert names(folder) == {"latest.pth", "checkpoint-epoch1.pth", "checkpoint-epoch2.pth"}
        parts = read_checkpoint(folder / "checkpoint-epoch1.pth")["parts"]
        assert (parts["counters"]["step"], parts["lr_scheduler"]["last_epoch"]) == (5, 1)
        assert final_state(folder)["epoch"] == 2


class Worse(Callback):
    """Gives values that were thought out, one for each epoch or validation."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        log["own"] = self.values.pop(0)


@pytest.mark.parametrize(("mode", "values", "kept"), [
    ("min", [3.0, 1.0, 2.0, 4.0], {2, 3}), ("max", [3.0, 1.0, 2.0, 4.0], {1, 4}),
    ("min", [1.0, 1.0, 1.0, float("nan")], {1, 2})])
def test_keep_best_keeps_the_best_epochs_as_files(tmp_path: Path, mode: str, values: list[float],
                                                  kept: set[int]) -> None:
    folder = train(tmp_path, callbacks=(Worse(values),), monitor=f"{mode} own", keep_best=2,
                   keep_last=1, epochs=4)
    assert names(folder) == {"latest.pth", "model_best.pth", "checkpoint-epoch4.pth",
                             *(f"model_best-epoch{epoch}.pth" for epoch in kept)}
    for epoch in kept:
        assert read_checkpoint(folder / f"model_best-epoch{epoch}.pth")["epoch"] == epoch


def test_keep_best_goes_by_steps_with_validations_and_on_a_resume(tmp_path: Path) -> None:
    values = [3.0, 1.0, 2.0, 4.0, 0.5]
    folder = train(tmp_path, callbacks=(Worse(values[:]),), monitor="min own", keep_best=2,
                   valid_steps=2, stop_batch=7)
    train(tmp_path, callbacks=(Worse(values[3:]),), monitor="min own", keep_best=2,
          valid_steps=2, resume=folder / "latest.pth")
    assert {name for name in names(folder) if "best" in name} == {
        "model_best.pth", "model_best-step4.pth", "model_best-step10.pth"}


@pytest.mark.parametrize("save_steps", [5, 10])
def test_save_steps_counts_the_last_step_of_an_epoch_too(tmp_path: Path, save_steps: int) -> None:
    saved = []
    trainer = make_trainer(tmp_path, save_steps=save_steps, save_freq=100, monitor="off", epochs=3)
    trainer.saver.save_epoch = lambda *args, **options: saved.append(trainer.counters.step)
    trainer.train()
    assert saved == [step for step in (5, 10, 15) if step % save_steps == 0 or step == 15]


class EveryFourth(ClippingTrainer):
    batches_per_step = 4

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        data, target = batch
        output = self.model(data)
        loss = self.criterion(output, target)
        self.backward(loss)
        if (batch_idx + 1) % 4 == 0:
            self.step()
            self.zero_grad()
        return output, target, loss


def test_save_steps_saves_once_a_step_where_a_step_is_several_batches(tmp_path: Path) -> None:
    saved = []
    trainer = make_trainer(tmp_path, kind=EveryFourth, save_steps=1, monitor="off")
    trainer.saver.save_latest = lambda *args, **options: saved.append(trainer.counters.step)
    trainer.train()
    assert saved == [1, 2]


def test_schedule_of_a_trainer_that_accumulates_may_be_as_long_as_its_steps(
        tmp_path: Path) -> None:
    make_trainer(tmp_path, kind=EveryFourth, schedule="OneCycleLR", epochs=8).train()
    with pytest.raises(ConfigError, match="ends after 10 steps, but the run makes 40"):
        make_trainer(tmp_path / "each", schedule="OneCycleLR", epochs=8).train()


class OwnLoop(ClippingTrainer):
    """Draws from the loader itself."""

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        for batch_idx, batch in enumerate(self.data_loader):
            self.train_metrics.update("loss", self._train_step(batch, batch_idx)[2])
        return {**self.train_metrics.result(), **self.validate()}


def test_loop_over_the_loader_itself_is_warned_of_counted_and_exact_at_epochs(
        tmp_path: Path, capsys: Any) -> None:
    whole = train(tmp_path / "whole", kind=OwnLoop, epochs=3)
    assert "draws no batch from self.train_batches()" in capsys.readouterr().out
    assert [row["step"] for row in history(whole)] == [5, 10, 15]
    parts = train(tmp_path / "parts", kind=OwnLoop, epochs=1)
    train(tmp_path / "parts", kind=OwnLoop, epochs=3, resume=parts / "latest.pth")
    assert history(parts) == history(whole)


def test_accumulating_trainer_ends_with_its_epochs_under_valid_steps(tmp_path: Path) -> None:
    folder = train(tmp_path, kind=EveryFourth, valid_steps=1, epochs=2)
    assert [(row["epoch"], row["step"]) for row in history(folder)] == [(1, 1), (2, 2), (2, 2)]
    assert final_state(folder)["epoch"] == 2


def test_best_models_are_those_that_their_names_say(tmp_path: Path) -> None:
    folder = train(tmp_path, max_steps=7, epochs=None, keep_best=2)
    steps = {epoch: read_checkpoint(folder / f"model_best-epoch{epoch}.pth")["parts"]["counters"][
        "step"] for epoch in (1, 2)}
    assert steps == {1: 5, 2: 7}


@pytest.mark.parametrize("new_run", [False, True])
def test_best_models_are_there_after_going_back_to_an_older_epoch(tmp_path: Path,
                                                                  new_run: bool) -> None:
    options: dict[str, Any] = {"monitor": "min own", "keep_best": 2}
    folder = train(tmp_path, callbacks=(Worse([3.0, 2.0, 1.0, 0.5]),), epochs=4, **options)
    trainer = make_trainer(tmp_path, callbacks=(StopAt(None), Worse([9.0, 9.0])), epochs=4,
                           resume=folder / "checkpoint-epoch2.pth", new_run=new_run, **options)
    trainer.train()
    assert {name for name in names(trainer.checkpoint_dir) if "best-" in name} == {
        "model_best-epoch1.pth", "model_best-epoch2.pth"}


class GapInTheLog(ClippingTrainer):
    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        log = super()._train_epoch(epoch)
        return {**log, "gap": log["val_loss"] - log["loss"]}


@pytest.mark.parametrize("settings", [
    {"valid_steps": 5, "is_stream": True}, {"valid_steps": 5}, {"max_steps": 10}], ids=str)
def test_no_validation_comes_without_training(tmp_path: Path, settings: Any) -> None:
    folder = train(tmp_path, kind=GapInTheLog, monitor="min gap", **settings)
    assert [row["step"] for row in history(folder)] == [5, 10]


def test_run_that_max_steps_ended_with_a_stream_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": GapInTheLog, "is_stream": True, "monitor": "min loss",
                               "epochs": None}
    folder = train(tmp_path, max_steps=10, **options)
    train(tmp_path, resume=folder / "latest.pth", max_steps=12, **options)
    assert [(row["epoch"], row["step"]) for row in history(folder)] == [(1, 5), (2, 10), (3, 12)]


def test_lr_of_a_row_is_that_of_its_epoch(tmp_path: Path) -> None:
    rows = [[row["lr"] for row in history(train(tmp_path / str(steps), valid_steps=steps))]
            for steps in (None, 5)]
    assert rows[0] == rows[1]


class Forgets(Trainer):
    def step(self, optimizer: str | None = None) -> None:
        pass


@pytest.mark.parametrize("settings", [
    {}, {"max_steps": 5, "epochs": None}, {"max_steps": 5, "epochs": None, "valid_steps": 2}],
    ids=str)
def test_epoch_without_any_step_is_an_error(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(RunError, match=r"no optimizer has made a step.*self\.step\(\)"):
        train(tmp_path, kind=Forgets, **settings)


def test_schedule_may_be_as_long_as_the_epochs_that_the_code_asks_for(tmp_path: Path) -> None:
    """``len_epoch`` given to the trainer rather than in the config."""
    trainer = make_trainer(tmp_path, schedule="OneCycleLR", epochs=5)
    trainer.len_epoch = 2
    trainer.train()
    assert trainer.counters.step == trainer.lr_scheduler.total_steps == 10


def test_gradients_are_clipped_in_a_loop_over_the_loader_itself_too(tmp_path: Path) -> None:
    class OwnLoopOfOurSteps(Trainer):
        _train_epoch = OwnLoop._train_epoch

    rows = history(train(tmp_path / "own", kind=OwnLoopOfOurSteps, clip_grad_norm=0.1))
    ours = history(train(tmp_path / "ours", kind=Trainer, clip_grad_norm=0.1))
    assert rows[0]["gradient_norm"] == pytest.approx(ours[0]["gradient_norm"], rel=0.2)
    assert [row["val_loss"] for row in rows] == [row["val_loss"] for row in ours]


@pytest.mark.parametrize("settings", [{"ema_decay": 0.9}, {"accumulate": 2}], ids=str)
def test_loop_over_the_loader_itself_is_refused_with_what_needs_its_batches(
        tmp_path: Path, settings: Any) -> None:
    """An average would stay what it was at first, and validation would be of that."""
    with pytest.raises(ConfigError, match=r"need.* self\.train_batches\(\)"):
        train(tmp_path, kind=OwnLoop, **settings)


class Leaves(ClippingTrainer):
    """Leaves its loop by ``break`` after some batches, then validates."""

    num_batches = 2

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        for number, (batch_idx, batch) in enumerate(self.train_batches(), 1):
            output, target, loss = self._train_step(batch, batch_idx)
            self.train_metrics.update_batch(output, target, loss, len(target))
            if number == self.num_batches:
                break
        return {**self.train_metrics.result(), **self.validate(), "at": self.counters.step}


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}, {"ema_decay": 0.5, "valid_steps": 2}],
                         ids=str)
def test_loop_that_is_left_and_one_that_ends_validate_the_same(tmp_path: Path,
                                                               settings: Any) -> None:
    left, ended = (history(train(tmp_path / kind.__name__, kind=kind, len_epoch=2, epochs=4,
                                 **settings)) for kind in (Leaves, ClippingTrainer))
    assert [row.pop("at") for row in left] == [2, 4, 6, 8]
    assert left == ended


@pytest.mark.parametrize(("settings", "num_batches", "places"), [
    ({"len_epoch": 2}, 2, [(1, 2), (2, 4), (3, 6)]),
    ({"len_epoch": 2}, 1, [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]),
    ({}, 5, [(1, 5), (2, 10), (3, 15)])], ids=str)
def test_loop_left_between_validations_has_a_row_for_each(
        tmp_path: Path, settings: Any, num_batches: int, places: list[tuple[int, int]]) -> None:
    kind = type("Kind", (Leaves,), {"num_batches": num_batches})
    folder = train(tmp_path, kind=kind, valid_steps=100, epochs=3, **settings)
    assert [(row["epoch"], row["step"]) for row in history(folder)] == places


class TwoLoops(ClippingTrainer):
    """Goes on in a second loop where the first was left."""

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        for last in (2, 99):
            for batch_idx, batch in self.train_batches():
                output, target, loss = self._train_step(batch, batch_idx)
                self.train_metrics.update_batch(output, target, loss, len(target))
                if batch_idx + 1 == last:
                    break
        return {**self.train_metrics.result(), **self.validate()}


def test_second_loop_goes_on_where_the_first_was_left(tmp_path: Path) -> None:
    two, one = (history(train(tmp_path / kind.__name__, kind=kind))
                for kind in (TwoLoops, ClippingTrainer))
    assert two == one
