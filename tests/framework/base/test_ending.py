"""How a run ends, what is told of it, and what it leaves."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from base import Callback
from base.ending import Stop
from tests.framework.tiny_run import make_trainer, train

RUN = Path("models/tiny/run")


class Fails(Callback):
    """Raises in a hook."""

    def __init__(self, hook: str) -> None:
        self.ended = 0
        setattr(self, hook, self.fail)

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        pass

    def on_train_end(self, trainer: Any) -> None:
        self.ended += 1

    @staticmethod
    def fail(*args: Any) -> None:
        raise RuntimeError("gone\nand more")


def status_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RUN / "status.json").read_text())


@pytest.mark.parametrize(("options", "state", "epoch", "code", "reason"), [
    ({}, "finished", 2, 0, ""),
    ({"early_stop": 1, "min_delta": 9.0}, "stopped early", 2, 0, ""),
    ({"stop_batch": 7}, "stopped", 1, 128 + signal.SIGTERM, "stopped by SIGTERM"),
    ({"stop_batch": 10}, "finished", 2, 0, ""),
    ({"max_seconds": 1e-6}, "stopped", 0, 124, "the time is up (trainer.max_seconds)"),
    ({"max_seconds": 1e6}, "finished", 2, 0, "")], ids=str)
def test_end_of_a_run_is_noted(tmp_path: Path, options: dict[str, Any], state: str, epoch: int,
                               code: int, reason: str) -> None:
    train(tmp_path, status=code, **{"epochs": 2} | options)
    status = status_of(tmp_path)
    assert (status["state"], status["epoch"], status["reason"]) == (state, epoch, reason)


@pytest.mark.parametrize("hook", ["on_step_end", "on_train_end"])
def test_run_that_fails_notes_why_and_closes_everything(tmp_path: Path, hook: str) -> None:
    callback = Fails(hook)
    trainer = make_trainer(tmp_path, callbacks=(callback,), tensorboard=True, async_save=True)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError):
        trainer.train()
    status = status_of(tmp_path)
    assert status["state"] == "failed" and status["reason"] == "RuntimeError: gone"
    assert callback.ended == (hook == "on_step_end")
    assert signal.getsignal(signal.SIGTERM) is before and trainer.saver._thread is None
    trainer.config.folder._acquire()  # another process could write to it now


def test_how_to_go_on_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(tmp_path, stop_batch=7)
    assert capsys.readouterr().out == (
        "stopped by SIGTERM in epoch 2 after batch 2; go on with:\n"
        f"  python train.py --resume {folder / 'latest.pth'}\n")


@pytest.mark.parametrize(("options", "told"), [
    ({}, r"the run has its 2 epochs. To go on, give trainer.epochs=3 or more"),
    ({"early_stop": 1, "min_delta": 9.0, "epochs": 9},
     "the run stopped early after epoch 2, for val_loss did not improve for 1 epochs. To go on, "
     "give trainer.early_stop=2 or more, or 0")])
def test_run_that_is_over_trains_no_more_and_says_what_makes_it_go_on(
        tmp_path: Path, options: dict[str, Any], told: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(tmp_path, **options)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    train(tmp_path, resume=folder / "latest.pth", **options)
    assert capsys.readouterr().out.endswith(f"nothing to do: {told}\n")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_run_that_was_killed_after_its_last_save_is_brought_to_its_end(tmp_path: Path) -> None:
    folder = train(tmp_path)
    log = tmp_path / "log/tiny/run/history.jsonl"
    rows = log.read_text()
    log.write_text(rows.splitlines(keepends=True)[0])
    (folder / "status.json").write_text('{"state": "running"}')
    train(tmp_path, resume=folder / "checkpoint-epoch2.pth")
    assert status_of(tmp_path)["state"] == "running"
    train(tmp_path, resume=folder / "latest.pth")
    assert (status_of(tmp_path)["state"], status_of(tmp_path)["epoch"]) == ("finished", 2)
    assert log.read_text() == rows


def test_time_runs_from_the_start_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stop = Stop(max_seconds=5)
    now[0] = 200.0
    with stop:
        assert not stop.is_asked
        now[0] = 205.0
        assert stop.is_asked and stop.reason()[1] == 124
