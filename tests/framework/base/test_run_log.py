"""What is told at the start and the end of a run, and how long it will go on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from base.epoch_log import Pace
from logger.console import duration
from logger.history import History
from tests.framework.tiny_run import train
from utils.errors import RunError
from utils.runs.checkpoint_file import read_checkpoint


@pytest.mark.parametrize(("seconds", "text"), [
    (0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"),
    (7260, "2 h 1 min"), (90000, "1 d 1 h")])
def test_durations_are_said_in_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def said(folder: Path) -> dict[str, str]:
    """The lines of the blocks by their labels."""
    lines = (folder / "log/tiny/run/info.log").read_text().splitlines()
    texts = [line.split(" - ")[-1] for line in lines]
    return {text[:6].strip(): text[8:] for text in texts if text[6:8] == "  "}


def test_start_tells_data_model_device_and_length(tmp_path: Path) -> None:
    folder = train(tmp_path, early_stop=1)
    block = said(tmp_path)
    assert block["run"] == str(folder)
    assert block["data"] == "36 samples in 5 batches of 8"
    assert block["valid"] == "8 samples in 1 batches of 8"
    assert block["model"] == "Sequential, 146 parameters"
    assert block["device"] == "cpu, fp32"
    assert block["length"] == "2 epochs, 10 steps; less if val_loss gets no better for 1 epochs"


def test_end_tells_what_to_do_with_the_run(tmp_path: Path) -> None:
    folder = train(tmp_path)
    assert said(tmp_path)["test"] == f"python test.py --resume {folder / 'model_best.pth'}"
    assert "took" in said(tmp_path) and "look" not in said(tmp_path)


def test_end_of_a_run_that_stopped_is_how_to_go_on_alone(tmp_path: Path) -> None:
    train(tmp_path, stop_batch=3)
    assert "test" not in said(tmp_path)


@pytest.mark.parametrize(("epochs", "max_steps", "is_over", "left"), [
    (10, None, False, 80.0), (None, 50, False, 40.0), (10, 12, False, 2.0),
    (None, None, False, None), (10, None, True, None)])
def test_time_left_is_that_of_the_rest_at_the_same_pace(
        monkeypatch: pytest.MonkeyPatch, epochs: Any, max_steps: Any, is_over: bool,
        left: Any) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    counters = SimpleNamespace(step=0, epoch=1)
    trainer = SimpleNamespace(
        counters=counters, epochs=epochs, is_over=is_over, by_steps=False, seconds_validating=0.0,
        settings=SimpleNamespace(max_steps=max_steps),
        train_data=SimpleNamespace(seconds_waited=0.0, num_samples=0), history=History(Path))
    pace = Pace(trainer)
    now[0], counters.step, counters.epoch = 110.0, 10, 2
    assert pace.seconds_left() == (None if left is None else pytest.approx(left))


def test_long_run_has_its_curves_beside_its_history(tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("base.run_log.CURVES_SECONDS", 0)
    train(tmp_path)
    curves = tmp_path / "log/tiny/run/curves.png"
    assert curves.read_bytes().startswith(b"\x89PNG") and curves.stat().st_size > 10_000
    assert said(tmp_path)["curves"] == str(curves)


def test_short_run_has_none(tmp_path: Path) -> None:
    train(tmp_path)
    assert not list(tmp_path.rglob("curves.png"))


def test_curves_that_cannot_be_drawn_end_no_run(tmp_path: Path, capsys: Any,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RunError("no disk")
    monkeypatch.setattr("base.run_log.CURVES_SECONDS", 0)
    monkeypatch.setattr("base.run_log.draw_curves", fail)
    train(tmp_path)
    assert "curves.png was not drawn: no disk" in capsys.readouterr().out


def test_tensorboard_has_the_settings_and_the_best_value(tmp_path: Path) -> None:
    folder = train(tmp_path, tensorboard=True, stop_batch=None)
    log = tmp_path / "log/tiny/run"
    events = EventAccumulator(str(log)).Reload()
    best = read_checkpoint(folder / "latest.pth")["monitor_best"]
    assert [event.value for event in events.Scalars("best/val_loss")] == pytest.approx([best])
    written = b"".join(file.read_bytes() for file in log.glob("events*"))
    assert b"trainer.epochs" in written
