"""Services beside TensorBoard get what a run gives, and never end it."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from logger.trackers import Tracker
from tests.framework.commands.files import Capture, Run, rows, runs
from utils.runs.folder import read_object


class Notes(Tracker):
    """Keeps what it gets."""

    got: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, place: str = "") -> None:
        self.got.append(("made", place))

    def start(self, config: dict[str, Any], *, name: str, run_id: str, folder: Path) -> None:
        self.got.append(("start", config["name"], name, run_id, folder.is_dir()))

    def scalars(self, values: dict[str, float], step: int) -> None:
        self.got.append(("scalars", values, step))

    def images(self, name: str, images: Any, step: int) -> None:
        self.got.append(("images", name, tuple(images.shape), float(images.max()), step))

    def close(self, state: str) -> None:
        self.got.append(("close", state))


class Fails(Tracker):
    def scalars(self, values: dict[str, float], step: int) -> None:
        raise ConnectionError("nobody there")


@pytest.fixture
def configured(tmp_path: Path, config_dict: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a config with trackers, whose classes are in the project."""
    module = ModuleType("trainer.trackers")
    for kind in (Notes, Fails, Meddles, Quits):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(__import__("sys").modules, "trainer.trackers", module)
    monkeypatch.setattr(Notes, "got", [])

    def write(*trackers: Any) -> Path:
        config_dict["trainer"]["trackers"] = list(trackers)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config_dict))
        return path
    return write


def test_tracker_gets_the_run_and_its_values(tmp_path: Path, configured: Any,
                                             in_process: Run) -> None:
    config = configured({"type": "Notes", "args": {"place": "here"}})
    assert in_process("train.py", "-c", config) == 0
    run, = runs(tmp_path)
    first, start, *others, last = Notes.got
    assert first == ("made", "here") and last == ("close", "finished")
    assert start == ("start", "Toy", "Toy", run.name, True)
    values = [(got[1], got[2]) for got in others if got[0] == "scalars"]
    epochs = [(value, step) for value, step in values if "val_loss" in value]
    assert [step for _, step in epochs] == [row["step"] for row in rows(run)]
    assert epochs[-1][0]["val_loss"] == rows(run)[-1]["val_loss"]
    assert {key for value, _ in values for key in value} >= {"batch_loss", "lr", "loss"}
    # 6 batches an epoch, log points at every second
    assert [step for value, step in values if "batch_loss" in value] == [1, 3, 5, 7, 9, 11]


def test_tracker_that_fails_is_told_once_and_the_run_goes_on(
        tmp_path: Path, configured: Any, in_process: Run, capsys: Capture) -> None:
    assert in_process("train.py", "-c", configured("Fails", "Notes")) == 0
    run, = runs(tmp_path)
    assert capsys.readouterr().out.count("Fails failed in scalars (ConnectionError") == 1
    assert read_object(run / "status.json")["state"] == "finished"
    assert Notes.got[-1] == ("close", "finished")


@pytest.mark.parametrize(("tracker", "text"), [
    ("Nots", "did you mean 'Notes'"), ({"type": "Notes", "args": {"plac": 1}}, "trackers.0.args"),
    (3, "trainer.trackers")])
def test_wrong_tracker_is_told_before_anything_starts(
        tmp_path: Path, configured: Any, in_process: Run, capsys: Capture, tracker: Any,
        text: str) -> None:
    assert in_process("train.py", "-c", configured(tracker)) == 2
    assert text in capsys.readouterr().err and not (tmp_path / "saved").exists()


def test_testing_tells_no_tracker(tmp_path: Path, configured: Any, in_process: Run) -> None:
    assert in_process("train.py", "-c", configured("Notes")) == 0
    Notes.got.clear()
    assert in_process("test.py", "-r", runs(tmp_path)[0]) == 0
    assert Notes.got == []


class Meddles(Tracker):
    """Changes what it is given, and draws random numbers."""

    def start(self, config: dict[str, Any], *, name: str, run_id: str, folder: Path) -> None:
        config["optimizer"] = config.pop("data_loader")["type"]

    def scalars(self, values: dict[str, float], step: int) -> None:
        values.clear()
        torch.rand(3)


class Quits(Tracker):
    def start(self, config: dict[str, Any], *, name: str, run_id: str, folder: Path) -> None:
        raise SystemExit(3)


def test_tracker_changes_neither_the_config_nor_the_training(
        tmp_path: Path, configured: Any, in_process: Run) -> None:
    assert in_process("train.py", "-c", configured(), "--run-id", "a") == 0
    assert in_process("train.py", "-c", configured("Quits", "Meddles", "Notes"),
                      "--run-id", "b") == 0
    plain, meddled = runs(tmp_path)
    assert [row["loss"] for row in rows(meddled)] == [row["loss"] for row in rows(plain)]
    assert in_process("test.py", "-r", meddled) == 0
    assert any("val_loss" in got[1] for got in Notes.got if got[0] == "scalars")
