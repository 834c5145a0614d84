"""What is told of an epoch, in it and after it."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from base import Callback
from base.epoch_log import write_epoch
from tests.framework.tiny_run import ClippingTrainer, make_trainer, train


class Writer:
    """Notes what TensorBoard would get."""

    enabled, step, mode = True, 0, ""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, str, int]] = []

    def add_scalar(self, name: str, value: float) -> None:
        self.scalars.append((self.mode, name, self.step))

    def flush(self, *args: Any, **options: Any) -> None:
        pass

    close = add_result = add_text = flush


class SeveralLosses(ClippingTrainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        for name in ("critic_loss", "third_loss", "share"):
            self.train_metrics.update(name, 0.25, len(batch[1]))
        return super()._train_step(batch, batch_idx)


def batch_lines(folder: Path) -> list[str]:
    log = (folder / "log/tiny/run/info.log").read_text()
    return [line.partition("epoch ")[2] for line in log.splitlines() if "samples/s" in line]


@pytest.mark.parametrize(("log_steps", "batches"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_log_points_have_place_loss_lr_and_rate(tmp_path: Path, log_steps: int,
                                                batches: list[int]) -> None:
    train(tmp_path, log_steps=log_steps, epochs=1)
    lines = [line.split() for line in batch_lines(tmp_path)]
    assert [line[:3] for line in lines] == [["1", "batch", f"{i}/5"] for i in batches]
    assert {(line[3], line[5], line[6], line[8]) for line in lines} == {
        ("loss", "lr", "0.05", "samples/s")}


@pytest.mark.parametrize(("options", "places"), [
    ({"stop_batch": 2}, ["1  batch 1/5", "1  batch 2/5"]),
    ({"stop_batch": 4, "len_epoch": 3}, ["2  batch 0/3", "2  batch 1/3"])])
def test_resumed_epoch_goes_on_counting(tmp_path: Path, options: dict[str, Any],
                                        places: list[str]) -> None:
    folder = train(tmp_path, **options)
    train(tmp_path, resume=folder / "latest.pth", **{**options, "stop_batch": None})
    stop = options["stop_batch"]
    assert [line[:12] for line in batch_lines(tmp_path)[stop - 1:stop + 1]] == places


def test_two_losses_are_shown_and_all_are_sent(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, kind=SeveralLosses, log_steps=5, epochs=1)
    trainer.writer = writer = Writer()
    trainer.train()
    line = batch_lines(tmp_path)[0]
    assert "critic_loss 0.2500" in line and line.count("loss") == 2 and "share" not in line
    assert [scalar for scalar in writer.scalars if scalar[1].startswith("batch_")] == [
        ("train", f"batch_{name}", 1) for name in ("loss", "critic_loss", "third_loss")]


@pytest.mark.parametrize(("schedule", "steps"), [("StepLR", [5]), ("OneCycleLR", [1, 3, 5, 5])])
def test_lr_is_sent_where_it_changes(tmp_path: Path, schedule: str, steps: list[int]) -> None:
    trainer = make_trainer(tmp_path, schedule=schedule, log_steps=2)
    trainer.epochs, trainer.writer = 1, Writer()
    trainer.train()
    assert [step for _, name, step in trainer.writer.scalars if name == "lr"] == steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("options", "labels"), [
    ({}, {"epoch 1", "epoch 2", "validation"}),
    ({"verbosity": 1}, set()), ({"verbosity": 0}, set()),
    ({"validation": 0.0}, {"epoch 1", "epoch 2"}),
    ({"valid_steps": 4, "epochs": 1}, {"to step 4", "to step 8", "validation"})], ids=str)
def test_validation_has_a_bar_on_a_terminal_as_training_has(
        tmp_path: Path, monkeypatch: Any, options: dict[str, Any], labels: set[str]) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    train(tmp_path, **{"verbosity": 2, "monitor": "off", **options})
    shown = re.findall(r"(epoch \d+|to step \d+|validation)[^|\n]*\|[^|]*\| +\d+%",
                       screen.getvalue())
    assert set(shown) == labels


@pytest.mark.parametrize("is_failing", [False, True])
def test_bar_of_a_validation_counts_its_batches_and_is_taken_away(
        tmp_path: Path, monkeypatch: Any, is_failing: bool) -> None:
    """However it ends."""
    bars: list[Any] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            self.total, self.label = options["total"], options["desc"]
            self.count, self.is_open = 0, True
            bars.append(self)

        def update(self) -> None:
            self.count += 1

        def close(self) -> None:
            self.is_open = False

        def set_description_str(self, *_: Any, **__: Any) -> None: ...

        def refresh(self) -> None: ...

        @staticmethod
        def write(text: str, file: Any) -> None: ...

    class Ending(Callback):
        def on_valid_batch_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
            if is_failing:
                raise ZeroDivisionError

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr("tqdm.tqdm", Bar)
    with contextlib.suppress(ZeroDivisionError):
        train(tmp_path, verbosity=2, epochs=1, batch_size=2, callbacks=(Ending(),))
    valid, = (bar for bar in bars if bar.label == "validation")
    assert valid.total == 4 and valid.count == (0 if is_failing else 4)
    assert not any(bar.is_open for bar in bars)


def test_epoch_is_sent_with_its_step_and_tables_are_not() -> None:
    writer = Writer()
    write_epoch(writer, {"epoch": 1, "loss": 0.5, "val_loss": 0.25, "val_matrix": [[1, 2]]}, 7)
    assert writer.scalars == [("train", "loss", 7), ("valid", "loss", 7)]


class AddsNumbers(Callback):
    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        log |= {"scalar": torch.tensor(0.5), "table": torch.eye(2), "text": "x"}


def test_row_of_the_history_has_plain_values_the_step_and_times(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, callbacks=(AddsNumbers(),))
    trainer.train()
    row = trainer.history.rows()[1]
    assert (row["epoch"], row["step"], row["scalar"], row["text"]) == (2, 10, 0.5, "x")
    assert row["table"] == [[1.0, 0.0], [0.0, 1.0]]
    assert row.keys() >= {"seconds", "time", "loss", "accuracy", "val_loss", "val_accuracy", "lr"}


class CallsItsOwn(ClippingTrainer):
    """Its values have names that a row has for something else."""

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.train_metrics.update("step", 0.25, 1)
        return {**super()._train_epoch(epoch), "epoch": epoch, "seconds": -1.0}


class AddsEpoch(Callback):
    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        log["time"] = log["epoch"] = 77


@pytest.mark.parametrize("settings", [{}, {"valid_steps": 3}])
def test_own_values_do_not_replace_what_a_row_has_by_itself(
        tmp_path: Path, settings: dict[str, Any], capsys: Any) -> None:
    trainer = make_trainer(tmp_path, kind=CallsItsOwn, callbacks=(AddsEpoch(),), epochs=1,
                           **settings)
    trainer.train()
    row = trainer.history.rows()[-1]
    assert (row["epoch"], row["step"], row["own_step"]) == (1, 5, 0.25)
    assert row["own_time"] == 77 and row["own_seconds"] == -1 and row["seconds"] >= 0
    assert trainer.best_monitor.best_epoch == 1
    assert capsys.readouterr().out.count("are called own_seconds, own_step, own_time") == 1
