"""TensorBoard with the step and the mode kept for the caller."""

import copy
import itertools
import logging
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from logger import TensorboardWriter, WriterTensorboard
from logger.visualization import BACKENDS

LOGGER = logging.getLogger("test_visualization")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[TensorboardWriter]:
    writer = TensorboardWriter(tmp_path, LOGGER, True)
    yield writer
    writer.close()


def events(folder: Path) -> Any:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


class Recorder:
    """Stands in for SummaryWriter."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_") or name == "add_nonsense":
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.fixture
def recorded(tmp_path: Path) -> TensorboardWriter:
    writer = TensorboardWriter(tmp_path, LOGGER, True)
    writer._writer = Recorder()
    writer.set_step(7, "valid")
    return writer


def test_scalars_get_the_step_and_the_mode(writer: TensorboardWriter, tmp_path: Path) -> None:
    writer.set_step(0)
    writer.add_scalar("loss", 0.5)
    writer.set_step(3, "valid")
    writer.add_scalar("loss", torch.tensor(0.25))
    writer.flush()
    assert scalars(tmp_path, "loss/train") == [(0, 0.5)]
    assert scalars(tmp_path, "loss/valid") == [(3, 0.25)]


@pytest.mark.parametrize("name", [
    "add_scalar", "add_scalars", "add_image", "add_images", "add_audio", "add_text", "add_figure",
    "add_pr_curve", "add_video"])
def test_methods_of_summary_writer_get_step_and_mode(recorded: TensorboardWriter,
                                                     name: str) -> None:
    getattr(recorded, name)("tag", "data")
    assert recorded.writer.calls == [(name, ("tag/valid", "data"), {"global_step": 7})]


def test_histogram_gets_no_mode(recorded: TensorboardWriter) -> None:
    recorded.add_histogram("weight", "data", bins="auto")
    assert recorded.writer.calls == [
        ("add_histogram", ("weight", "data"), {"bins": "auto", "global_step": 7})]


@pytest.mark.parametrize(("arguments", "tag"), [
    (("words", np.eye(2)), {"tag": "words"}), ((np.eye(2),), {})])
def test_embedding_may_have_a_tag_first(recorded: TensorboardWriter, arguments: Any,
                                        tag: dict[str, str]) -> None:
    recorded.add_embedding(*arguments)
    assert recorded.writer.calls == [
        ("add_embedding", (arguments[-1],), {"global_step": 7, **tag})]


def test_tag_and_data_may_be_named(recorded: TensorboardWriter) -> None:
    recorded.add_image(tag="input", data="pixels")
    assert recorded.writer.calls == [("add_image", ("input/valid", "pixels"), {"global_step": 7})]


@pytest.mark.parametrize("name", ["add_hparams", "add_graph"])
def test_what_belongs_to_the_whole_run_gets_no_step(recorded: TensorboardWriter, name: str) -> None:
    getattr(recorded, name)({"lr": 1}, {"loss": 2})
    assert recorded.writer.calls == [(name, ({"lr": 1}, {"loss": 2}), {})]


def test_figures_and_hparams_are_written(writer: TensorboardWriter, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    writer.set_step(2)
    writer.add_figure("curve", Figure())
    writer.add_hparams({"lr": 0.1}, {"best": 0.5})
    writer.close()
    assert events(tmp_path).Images("curve/train")[0].step == 2
    assert list(tmp_path.rglob("events*"))


def test_method_that_does_not_exist_is_named(recorded: TensorboardWriter) -> None:
    with pytest.raises(AttributeError, match="no method 'add_nonsense'"):
        recorded.add_nonsense("tag", 1)
    with pytest.raises(AttributeError, match="TensorboardWriter has no 'nonsense'"):
        recorded.nonsense  # noqa: B018


@pytest.mark.parametrize("again", [
    copy.copy, copy.deepcopy, lambda writer: pickle.loads(pickle.dumps(writer))])
def test_writer_copies_and_pickles_while_open(writer: TensorboardWriter, again: Any) -> None:
    writer.set_step(5, "valid")
    writer.add_scalar("loss", 1.0)
    other = again(writer)
    assert (other.step, other.mode, other.enabled) == (5, "valid", True)
    other.close()


def test_steps_per_second_at_the_same_instant_is_left_out(writer: TensorboardWriter, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.0, 10.0, 12.0])
    monkeypatch.setattr("logger.visualization.time.monotonic", lambda: next(now))
    for step in (1, 2, 3, 13):
        writer.set_step(step)
    writer.flush()
    assert scalars(tmp_path, "steps_per_sec/train") == [(13, 5.0)]


def test_disabled_writer_does_nothing(tmp_path: Path) -> None:
    writer = TensorboardWriter(tmp_path / "log", LOGGER, False)
    writer.set_step(1)
    writer.add_scalar("loss", 1.0)
    writer.add_anything("tag")
    writer.flush()
    writer.close()
    assert writer.writer is None and not (tmp_path / "log").exists()


def test_nothing_is_opened_before_something_is_written(tmp_path: Path) -> None:
    TensorboardWriter(tmp_path / "log", LOGGER, True).set_step(0)
    assert not (tmp_path / "log").exists()


def test_missing_tensorboard_is_a_warning_once_and_training_goes_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in (*BACKENDS, "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    writer = TensorboardWriter(tmp_path, LOGGER, True)
    for step in range(3):
        writer.set_step(step)
        writer.add_scalar("loss", 1.0)
        writer.add_image("input", None)
    assert len(caplog.records) == 1 and "pip install tensorboard" in caplog.text
    assert writer.writer is None


def test_second_backend_serves_where_the_first_is_missing(tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        @staticmethod
        def SummaryWriter(folder: str, purge_step: int | None) -> str:
            return folder

    monkeypatch.setitem(sys.modules, BACKENDS[0], None)
    monkeypatch.setitem(sys.modules, BACKENDS[1], Module)
    writer = TensorboardWriter(tmp_path, LOGGER, True)
    assert (writer.writer, writer.selected_module) == (str(tmp_path), BACKENDS[1])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of events is of a later second, as in real life; their names sort by it."""
    monkeypatch.setattr(time, "time", itertools.count(1.8e9).__next__)


def written(folder: Path, steps: range, state: Any = None) -> tuple[TensorboardWriter, Any]:
    writer = TensorboardWriter(folder, LOGGER, True)
    if state is not None:
        writer.load_state_dict(state)
    for step in steps:
        writer.set_step(step)
        writer.add_scalar("loss", step + (100 if state else 0))
        if step == 3:
            saved = writer.state_dict()
    writer.flush()
    return writer, (saved if state is None else None)


def test_resumed_run_shows_no_step_twice(tmp_path: Path, clock: None) -> None:
    writer, state = written(tmp_path, range(1, 7))
    writer.close()
    writer, _ = written(tmp_path, range(4, 9), state)
    writer.close()
    assert scalars(tmp_path, "loss/train") == [
        (1, 1), (2, 2), (3, 3), (4, 104), (5, 105), (6, 106), (7, 107), (8, 108)]


def test_file_opened_after_a_close_hides_nothing(tmp_path: Path, clock: None) -> None:
    writer, state = written(tmp_path, range(1, 4))
    writer.close()
    writer, _ = written(tmp_path, range(4, 6), state)
    writer.close()
    writer.set_step(6)
    writer.add_scalar("loss", 0)
    writer.close()
    assert [step for step, _ in scalars(tmp_path, "loss/train")] == [1, 2, 3, 4, 5, 6]


def test_mode_and_step_are_restored(tmp_path: Path) -> None:
    before = TensorboardWriter(tmp_path, LOGGER, False)
    before.set_step(4, "valid")
    after = TensorboardWriter(tmp_path, LOGGER, False)
    after.load_state_dict(before.state_dict())
    assert (after.step, after.mode) == (4, "valid")


def test_older_name_and_numpy_values_work(tmp_path: Path) -> None:
    writer = WriterTensorboard(tmp_path, LOGGER, True)
    writer.add_scalar("loss", np.float64(0.5))
    writer.close()
    assert scalars(tmp_path, "loss") == [(0, 0.5)]


@pytest.mark.parametrize("method", ["add_scalar", "flush", "close"])
def test_events_that_cannot_be_written_end_no_run(tmp_path: Path, method: str,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    writer = TensorboardWriter(tmp_path, logging.getLogger("x"), True)
    writer.add_scalar("loss", 1.0)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    own = writer.writer
    setattr(own, method, fail)
    for _ in range(2):
        writer.add_scalar("loss", 2.0)
        writer.flush()
        writer.close()
    assert caplog.text.count("No space left on device") == 1
