"""train.py that only tries a run, or refuses it: nothing is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.commands.files import Capture, Run, contents, counters, rows, runs
from tests.framework.toy.trainer import Trainer


@pytest.mark.parametrize(("arguments", "words"), [
    (["optimizer.args.lr=-1"], "optimizer.args: Adam refuses"),
    (["optimizer.args.lr=fast"], 'optimizer.args.lr: expected a number, got "fast"'),
    (["data_loader.args.validation_split=7.5"], "data_loader.args: ToyDataLoader refuses"),
    (["data_loader.args.batch_size=0"], "data_loader.args: ToyDataLoader refuses"),
    (["data_loader.args.num_workrs=2"], "did you mean 'num_workers'"),
    (["lr_scheduler.args.step_size=0"], "lr_scheduler.args: StepLR cannot make its first steps"),
    (["trainer.monitor=val_loss"], '"min val_loss"'),
    (["trainer.monitor=max val_acuracy"], "did you mean 'val_accuracy'?"),
    (["trainer.monitor=min val_other"], "will have loss, accuracy, top_k_acc"),
    (["--lr", "many", "trainer.epochs=0"], "2 problems"),
    (["--dry-run", "trainer.monitor=min val_other"], "the epoch's log has loss, accuracy"),
    (["--init-from", "latest"], "no run in this folder")])
def test_start_that_fails_is_one_message_and_leaves_no_folder(
        tmp_path: Path, config_file: Path, in_process: Run, capsys: Capture, arguments: list[str],
        words: str) -> None:
    assert in_process("train.py", "-c", config_file, *arguments) == (
        1 if arguments[-1] == "latest" else 2)
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message
    assert list(tmp_path.iterdir()) == [config_file]


def test_error_in_the_first_validation_leaves_no_folder(tmp_path: Path, config_file: Path,
                                                        in_process: Run, monkeypatch: Any) -> None:
    def fail(self: Any, epoch: int) -> None:
        raise ZeroDivisionError("mine")
    monkeypatch.setattr(Trainer, "_valid_epoch", fail)
    with pytest.raises(ZeroDivisionError):
        in_process("train.py", "-c", config_file)
    assert list(tmp_path.iterdir()) == [config_file]


def with_metrics(path: Path, config: dict[str, Any]) -> Path:
    """The config with metrics of the whole set: a number, a vector and a table."""
    classes = {"num_classes": 3}
    config["metrics"] = ["accuracy", {"type": "top_k_acc", "args": {"k": 3}, "name": "top_3"},
                         {"type": "MulticlassF1Score", "args": classes, "name": "f1"},
                         {"type": "MulticlassRecall", "args": {**classes, "average": "none"},
                          "name": "recall"},
                         {"type": "MulticlassConfusionMatrix", "args": classes, "name": "matrix"}]
    path.write_text(json.dumps(config))
    return path


def test_entry_of_a_vector_of_the_whole_set_can_be_monitored(
        tmp_path: Path, config_dict: dict[str, Any], in_process: Run, capsys: Capture) -> None:
    path = with_metrics(tmp_path / "config.json", config_dict)
    assert in_process("train.py", "-c", path, "trainer.monitor=max val_recall_1") == 0
    run, = runs(tmp_path)
    assert {"f1", "recall_0", "recall_1", "recall_2", "val_recall_1", "top_3"} <= set(rows(run)[0])
    assert len(rows(run)[0]["val_matrix"]) == 3
    assert "matrix [3x3]" in capsys.readouterr().out
    assert in_process("test.py", "--resume", run) == 0
    result = json.loads((run / "model_best.test.json").read_text())
    assert {"accuracy", "top_3", "f1", "recall_0", "matrix"} <= set(result)


def test_name_of_the_vector_itself_is_refused_with_those_of_its_entries(
        tmp_path: Path, config_dict: dict[str, Any], in_process: Run, capsys: Capture) -> None:
    path = with_metrics(tmp_path / "config.json", config_dict)
    assert in_process("train.py", "-c", path, "trainer.monitor=max val_recall") == 2
    assert "val_recall_0, val_recall_1, val_recall_2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "text"), [
    pytest.param("2", "start several processes by torchrun", marks=pytest.mark.slow),
    ("two", "expected a number, got 'two'")])
def test_processes_that_were_not_started_by_torchrun_are_refused(
        config_file: Path, run_script: Any, number: str, text: str) -> None:
    result = run_script("train.py", "-c", config_file, WORLD_SIZE=number)
    assert result.returncode == 2 and text in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("script", ["train.py", "test.py"])
def test_help_is_quick_and_does_not_import_torch(toy_project: Path, script: str) -> None:
    code = (f"import runpy, sys; sys.argv = [{script!r}, '--help']\n"
            f"try: runpy.run_path({script!r}, run_name='__main__')\n"
            "except SystemExit: print('torch' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], cwd=toy_project, capture_output=True,
                            text=True, timeout=60, check=False)
    assert result.stdout.splitlines()[-1] == "False"
    options = ["--config", "--resume", "--device", "key=value"]
    if script == "train.py":
        options += ["--lr", "--bs", "--run-id", "--new-run", "--init-from", "--debug", "--overfit",
                    "--dry-run"]
    assert all(option in result.stdout for option in options)


@pytest.mark.parametrize("arguments", [[], ["trainer.len_epoch=5"], ["trainer.save_steps=1"],
                                       ["--resume"]])
def test_debug_trains_two_batches_and_leaves_nothing(
        tmp_path: Path, trained: Path, config_file: Path, in_process: Run, steps: list[int],
        capsys: Capture, arguments: list[str]) -> None:
    before = contents(tmp_path)
    given = [*arguments, trained] if arguments == ["--resume"] else ["-c", config_file, *arguments]
    try:
        assert in_process("train.py", *given, "--debug") == 0
        assert torch.is_anomaly_enabled()
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert steps == [0, 1]
    assert contents(tmp_path) == before
    text = capsys.readouterr().out
    assert "nothing of it is kept" in text and "debug-run" not in text


def test_debug_run_that_is_stopped_names_no_folder(
        config_file: Path, in_process: Run, monkeypatch: Any, capsys: Capture) -> None:
    def stop(self: Any, *batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *batch)
    step = Trainer._train_step
    monkeypatch.setattr(Trainer, "_train_step", stop)
    try:
        assert in_process("train.py", "-c", config_file, "--debug") == 128 + signal.SIGTERM
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert "debug-run" not in capsys.readouterr().out


def test_overfit_trains_on_the_same_batches(tmp_path: Path, config_file: Path,
                                            in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--overfit", "2") == 0
    assert counters(runs(tmp_path)[0])["step"] == 4


@pytest.mark.parametrize("arguments", [[], ["trainer.len_epoch=5"]])
def test_dry_run_tries_a_batch_of_each_and_writes_nothing(
        tmp_path: Path, config_file: Path, in_process: Run, steps: list[int], capsys: Capture,
        arguments: list[str]) -> None:
    assert in_process("train.py", "-c", config_file, "--dry-run", *arguments) == 0
    text = capsys.readouterr().out
    for words in ("Trainable parameters: 55", "(float32 (16, 1, 8, 8), int64 (16,))",
                  "output: float32 (16, 3)", "training: 6 batches per epoch",
                  "validation: 2 batches per epoch", '"batch_size": 16', "val_accuracy  "):
        assert words in text
    assert steps == [0, 0]  # the epoch's values, and the table of layers
    assert list(tmp_path.iterdir()) == [config_file]


def test_dry_run_finds_a_wrong_number_of_classes(config_file: Path, in_process: Run) -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        in_process("train.py", "-c", config_file, "--dry-run", "arch.args.num_classes=2")
