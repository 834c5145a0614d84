"""train.py: what a run leaves, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.commands.files import (
    STEPS,
    Capture,
    Run,
    counters,
    log_dir,
    rows,
    runs,
    scalars,
)
from tests.framework.toy.trainer import Trainer
from utils.runs.checkpoint_file import read_checkpoint


def test_run_leaves_its_files(trained: Path) -> None:
    assert {file.name for file in trained.iterdir()} - {".lock"} == {
        "checkpoint-epoch1.pth", "checkpoint-epoch2.pth", "latest.pth", "model_best.pth",
        "config.json", "environment.json", "status.json"}
    assert {file.name.split(".")[0] for file in log_dir(trained).iterdir()} == {
        "info", "events", "history"}
    assert [(row["epoch"], row["step"]) for row in rows(trained)] == [(1, STEPS), (2, 2 * STEPS)]
    assert {"time", "seconds", "loss", "accuracy", "top_k_acc", "lr", "val_loss"} <= set(
        rows(trained)[0])
    assert json.loads((trained / "config.json").read_text())["seed"] == 123


def test_log_file_has_batch_lines_the_model_and_what_came_before_the_folder(trained: Path) -> None:
    text = (log_dir(trained) / "info.log").read_text()
    assert "epoch 1  batch 0/6  loss" in text
    assert "Trainable parameters: 55" in text
    assert "finished 2 epochs" in text


@pytest.mark.parametrize("verbosity", [0, 1, 2])
def test_verbosity_changes_the_console_and_not_the_log_file(tmp_path: Path, config_file: Path,
                                                            in_process: Run, capsys: Capture,
                                                            verbosity: int) -> None:
    assert in_process("train.py", "-c", config_file, f"trainer.verbosity={verbosity}") == 0
    shown = capsys.readouterr().out
    assert "finished 2 epochs" in shown
    assert ("epoch 1/2" in shown, "batch 0/6" in shown) == (verbosity > 0, verbosity > 1)
    text = (log_dir(runs(tmp_path)[0]) / "info.log").read_text()
    assert "epoch 1/2" in text and "batch 0/6" in text


def test_events_have_means_and_lr_of_each_epoch(trained: Path) -> None:
    for tag in ("loss/train", "loss/valid", "accuracy/train", "accuracy/valid", "lr/train"):
        assert scalars(trained, tag) == [STEPS, 2 * STEPS]
    assert scalars(trained, "batch_loss/train") == [1, 3, 5, 7, 9, 11]


def test_what_a_step_writes_has_its_tag_and_step_from_the_first_batch_on(
        tmp_path: Path, config_file: Path, in_process: Run, monkeypatch: Any) -> None:
    step = Trainer._train_step

    def writing(self: Any, batch: Any, batch_idx: int) -> Any:
        self.writer.add_scalar("mine", 1.0)
        return step(self, batch, batch_idx)
    monkeypatch.setattr(Trainer, "_train_step", writing)
    assert in_process("train.py", "-c", config_file) == 0
    assert scalars(runs(tmp_path)[0], "mine/train") == list(range(1, 2 * STEPS + 1))


@pytest.mark.slow
def test_checkpoint_loads_without_the_project(trained: Path, tmp_path: Path) -> None:
    code = ("import sys, torch; c = torch.load(sys.argv[1], weights_only=True);"
            "print(c['arch'], c['epoch'], c['config']['name'], len(c['state_dict']))")
    result = subprocess.run([sys.executable, "-c", code, trained / "latest.pth"], cwd=tmp_path,
                            capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.split() == ["ToyModel", "2", "Toy", "4"], result.stderr


def test_time_limit_saves_and_stops(tmp_path: Path, config_file: Path, in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "trainer.max_seconds=0.000001") == 124
    run, = runs(tmp_path)
    assert counters(run)["batch"] == 1
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(trained: Path, in_process: Run,
                                                                capsys: Capture) -> None:
    assert in_process("train.py", "--resume", trained, "--lr", "1e30", "trainer.epochs=4",
                      "lr_scheduler=null") == 1
    message = capsys.readouterr().err
    assert "the loss is not finite (epoch 3, batch" in message
    assert "lr 1e+30" in message and "samples of the batch: [" in message
    checkpoint = read_checkpoint(trained / "latest.pth")
    assert checkpoint["epoch"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_error_in_user_code_keeps_the_checkpoint_and_is_in_the_log(
        tmp_path: Path, config_file: Path, in_process: Run, monkeypatch: Any,
        capsys: Capture) -> None:
    step = Trainer._train_step

    def fail(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.counters.step == STEPS + 2:
            raise ZeroDivisionError("mine")
        return step(self, batch, batch_idx)
    monkeypatch.setattr(Trainer, "_train_step", fail)
    with pytest.raises(ZeroDivisionError, match="mine"):
        in_process("train.py", "-c", config_file)
    run, = runs(tmp_path)
    assert read_checkpoint(run / "latest.pth")["epoch"] == 1
    log = (log_dir(run) / "info.log").read_text()
    assert "ZeroDivisionError: mine" in log and "Traceback" in log
    assert "go on with" in capsys.readouterr().out
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


class SignalsWhileWriting:
    """Standard output that gets a signal in the middle of each line, as a real one may."""

    def __init__(self) -> None:
        self.is_writing = False
        self.text = ""

    def write(self, text: str) -> int:
        assert not self.is_writing  # a real stream would raise: reentrant call
        self.is_writing = True
        if "batch 2" in text:
            os.kill(os.getpid(), signal.SIGTERM)
        self.text += text
        self.is_writing = False
        return len(text)

    def flush(self) -> None:
        """Nothing waits to be written."""


def test_signal_while_a_line_is_written_stops_the_run_and_nothing_else(
        tmp_path: Path, config_file: Path, in_process: Run, monkeypatch: Any) -> None:
    screen = SignalsWhileWriting()
    monkeypatch.setattr(sys, "stdout", screen)
    assert in_process("train.py", "-c", config_file) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM in epoch 1 after batch 3" in screen.text
    assert "Traceback" not in screen.text
    assert counters(runs(tmp_path)[0])["batch"] == 3


@pytest.mark.parametrize("mode", ["true", '"warn"'])
def test_deterministic_kernels_are_a_setting(config_file: Path, in_process: Run, mode: str) -> None:
    try:
        assert in_process("train.py", "-c", config_file, "trainer.epochs=1",
                          f"trainer.deterministic={mode}") == 0
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == (mode != "true")
    finally:
        torch.use_deterministic_algorithms(False)
