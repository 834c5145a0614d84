"""What the commands' runs have left on the disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.framework.toy.trainer import Trainer
from utils.runs.checkpoint_file import read_checkpoint

Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]
STEPS = 6  # per epoch of the toy


def runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "saved" / "models" / "Toy").glob("*"))


def log_dir(run: Path) -> Path:
    return run.parents[2] / "log" / run.parent.name / run.name


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (log_dir(run) / "history.jsonl").read_text().splitlines()]


def scalars(run: Path, tag: str) -> list[int]:
    """The steps at which events have a value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.step for event in EventAccumulator(str(log_dir(run))).Reload().Scalars(tag)]


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but the log, which only grows, the events of a run that tried, and the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
            and path.name not in ("info.log", ".lock") and "tfevents" not in path.name}


def counters(run: Path) -> dict[str, int]:
    return read_checkpoint(run / "latest.pth")["parts"]["counters"]


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the first step of the next run fail."""
    def fail(self: Any, batch: Any, batch_idx: int) -> Any:
        raise ZeroDivisionError("mine")
    monkeypatch.setattr(Trainer, "_train_step", fail)
