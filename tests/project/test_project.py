"""Whether the project is sound, whatever its model, data, trainer and config.json are."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from base import Callback
from base.evaluation import first_batches
from parse_config import ConfigParser
from train import MODULES, build
from utils.runs.checkpoint_file import read_checkpoint

CONFIG = Path(__file__).resolve().parents[2] / "config.json"
BATCHES, EPOCHS = 3, 2  # of a short run
TIMES = ("time", "seconds", "samples_per_second", "memory_mb")  # of a row, by the clock


class StopAfter(Callback):
    """Does what a signal does, after so many batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self.batches -= 1
        if self.batches == 0:
            trainer.stop.received = 15


def short_run(folder: Path, run_id: str | None = None, resume: Path | None = None) -> Any:
    """A trainer of config.json, on the CPU, for a few batches."""
    settings = json.loads(CONFIG.read_text(encoding="utf-8"))
    settings["n_gpu"] = 0
    settings["trainer"].update(
        epochs=EPOCHS, len_epoch=BATCHES, save_dir=str(folder), verbosity=0, tensorboard=False,
        monitor="off", early_stop=0, compile=False, max_seconds=None, max_steps=None,
        valid_steps=None)
    trainer = build(ConfigParser(settings, resume, run_id=run_id, modules=MODULES))
    trainer.valid_data_loader = first_batches(trainer.valid_data_loader, 2)
    return trainer


def same(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def values(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """The log of each epoch without times."""
    rows = [json.loads(line) for line in checkpoint["parts"]["history"]["rows"].splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def test_config_is_valid() -> None:
    ConfigParser(json.loads(CONFIG.read_text(encoding="utf-8")), modules=MODULES)


def test_a_short_run_gives_finite_values(tmp_path: Path) -> None:
    trainer = short_run(tmp_path, "run")
    trainer.train()
    rows = trainer.history.rows()
    assert len(rows) == EPOCHS
    losses = [value for name, value in rows[-1].items() if name.endswith("loss")]
    assert losses and all(map(math.isfinite, losses))


@pytest.mark.parametrize("stop_batch", [1, BATCHES, BATCHES + 1])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bits(
        tmp_path: Path, stop_batch: int) -> None:
    whole = short_run(tmp_path, "whole")
    whole.train()
    stopped = short_run(tmp_path, "stopped")
    stopped.callbacks.add(StopAfter(stop_batch))
    with pytest.raises(SystemExit):
        stopped.train()
    latest = stopped.config.save_dir / "latest.pth"
    short_run(tmp_path, resume=latest).train()
    one, other = read_checkpoint(whole.config.save_dir / "latest.pth"), read_checkpoint(latest)
    for key in ("state_dict", "optimizer", "rank_parts"):
        assert same(one[key], other[key]), f"{key} is not what it would have been"
    for key in one["parts"].keys() - {"history"}:  # which has times
        assert same(one["parts"][key], other["parts"][key]), f"{key} is not what it would have been"
    assert values(one) == values(other), "a value of the log is not what it would have been"
