"""train.py that goes on with a run: where, with what, and when there is nothing to do."""

import functools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.commands.files import (
    STEPS,
    Capture,
    Run,
    contents,
    counters,
    failing,
    log_dir,
    rows,
    runs,
    scalars,
)
from tests.framework.tiny_run import final_state, history, same
from utils.runs.checkpoint_file import read_checkpoint


@pytest.mark.parametrize("what", ["latest.pth", "."])
def test_resume_goes_on_in_the_same_folder(trained: Path, tmp_path: Path, in_process: Run,
                                           what: str) -> None:
    log = (log_dir(trained) / "info.log").read_text()
    assert in_process("train.py", "--resume", trained / what, "trainer.epochs=3") == 0
    assert runs(tmp_path) == [trained]
    assert [row["epoch"] for row in rows(trained)] == [1, 2, 3]
    assert (log_dir(trained) / "info.log").read_text().startswith(log)
    noted = json.loads((trained / "environment.json").read_text())
    assert "-c " in noted["command"]
    assert "--resume" in noted["resumed"][0]["command"]


def test_resume_latest_goes_on_with_the_newest_run(trained: Path, config_file: Path,
                                                   in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--resume", "latest", "trainer.epochs=3") == 0
    assert read_checkpoint(trained / "latest.pth")["epoch"] == 3


def test_resuming_from_an_earlier_epoch_doubles_nothing(trained: Path, in_process: Run) -> None:
    before = history(trained)
    time.sleep(1.1)  # events are read in the order of their files' names, which have seconds
    assert in_process("train.py", "--resume", trained / "checkpoint-epoch1.pth") == 0
    assert history(trained) == before
    assert scalars(trained, "loss/valid") == [STEPS, 2 * STEPS]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_run_ends_with_the_same_bits(tmp_path: Path, config_file: Path, in_process: Run,
                                             workers: int) -> None:
    train = functools.partial(in_process, "train.py", "-c", config_file, "--run-id")
    assert train("whole") == 0
    assert train("parts", "trainer.max_seconds=1e-6") == 124
    parts, whole = runs(tmp_path)
    assert counters(parts)["batch"] == 1
    assert in_process("train.py", "--resume", parts, "trainer.max_seconds=null",
                      f"data_loader.args.num_workers={workers}") == 0
    assert same(final_state(parts), final_state(whole))
    assert history(parts) == history(whole)


def test_new_run_branches_off(trained: Path, tmp_path: Path, in_process: Run) -> None:
    before = contents(trained)
    assert in_process("train.py", "--resume", trained, "--new-run", "trainer.epochs=3") == 0
    assert len(runs(tmp_path)) == 2
    assert contents(trained) == before


def test_run_id_names_the_folder_and_is_taken_once(tmp_path: Path, config_file: Path,
                                                   in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--run-id", "first", "trainer.epochs=1") == 0
    assert [run.name for run in runs(tmp_path)] == ["first"]
    assert in_process("train.py", "-c", config_file, "--run-id", "first") == 2


def test_lr_on_resume_takes_effect_and_is_logged(trained: Path, in_process: Run,
                                                 capsys: Capture) -> None:
    assert in_process("train.py", "--resume", trained, "--lr", "0.5", "trainer.epochs=3",
                      "lr_scheduler=null") == 0
    assert read_checkpoint(trained / "latest.pth")["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert "optimizer.args.lr: 0.01 -> 0.5" in capsys.readouterr().out


def test_fine_tuning_merges_deeply(trained: Path, tmp_path: Path, in_process: Run) -> None:
    part = tmp_path / "part.json"
    part.write_text('{"optimizer": {"args": {"lr": 0.02}}, "trainer": {"epochs": 3}}')
    assert in_process("train.py", "-c", part, "--resume", trained) == 0
    checkpoint = read_checkpoint(trained / "latest.pth")
    assert checkpoint["epoch"] == 3
    assert checkpoint["config"]["optimizer"]["args"] == {
        "lr": 0.02, "weight_decay": 0, "amsgrad": True}


def test_best_of_another_metric_is_not_taken_over(trained: Path, in_process: Run) -> None:
    assert in_process("train.py", "--resume", trained, "trainer.epochs=3",
                      "trainer.monitor=max val_accuracy") == 0
    assert read_checkpoint(trained / "latest.pth")["monitor_best"] <= 1


def test_finished_run_says_that_nothing_is_to_be_done_and_what_would_go_on(
        trained: Path, in_process: Run, capsys: Capture) -> None:
    before = contents(trained)
    assert in_process("train.py", "--resume", trained) == 0
    assert "nothing to do: the run has its 2 epochs. To go on, give trainer.epochs=3" in (
        capsys.readouterr().out)
    assert contents(trained) == before


def test_run_that_stopped_early_trains_no_further_epoch_at_each_resume(
        tmp_path: Path, config_file: Path, in_process: Run, capsys: Capture) -> None:
    assert in_process("train.py", "-c", config_file, "trainer.epochs=9", "trainer.early_stop=1",
                      "trainer.min_delta=100") == 0
    run, = runs(tmp_path)
    before = contents(tmp_path)
    for _ in range(2):
        assert in_process("train.py", "--resume", run) == 0
    assert "stopped early after epoch 2" in capsys.readouterr().out
    assert contents(tmp_path) == before
    assert in_process("train.py", "--resume", run, "trainer.early_stop=0", "trainer.epochs=3") == 0
    assert [row["epoch"] for row in rows(run)] == [1, 2, 3]


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["trainer.epochs=0"], 2, "trainer.epochs: expected"),
    (["trainer.epochs=4", "optimizer.args.lr=-1"], 2, "optimizer.args: Adam refuses"),
    (["trainer.epochs=4", "trainer.monitor=max val_acuracy"], 2, "did you mean 'val_accuracy'?"),
    (["trainer.epochs=4", "arch.args.width=8"], 1, "use --init-from instead of --resume")])
@pytest.mark.parametrize("file", ["latest.pth", "checkpoint-epoch1.pth"])
def test_resume_that_is_refused_leaves_the_folder_as_it_was(
        trained: Path, tmp_path: Path, in_process: Run, capsys: Capture, file: str,
        arguments: list[str], status: int, words: str) -> None:
    before, log = contents(tmp_path), (log_dir(trained) / "info.log").read_bytes()
    assert in_process("train.py", "--resume", trained / file, *arguments) == status
    assert words in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert (log_dir(trained) / "info.log").read_bytes() == log


@pytest.mark.parametrize("file", ["latest.pth", "checkpoint-epoch1.pth"])
def test_resume_that_dies_before_its_first_save_leaves_the_folder_as_it_was(
        trained: Path, tmp_path: Path, in_process: Run, monkeypatch: Any, file: str) -> None:
    before, log = contents(tmp_path), (log_dir(trained) / "info.log").read_bytes()
    failing(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        in_process("train.py", "--resume", trained / file, "trainer.epochs=4", "--lr", "0.5")
    assert contents(tmp_path) == before
    assert (log_dir(trained) / "info.log").read_bytes().startswith(log)


@pytest.mark.parametrize("place", ["saved/models/Toy/renamed", "elsewhere/models/Toy/run",
                                   "saved/models/Other/run"])
@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_run_folder_that_was_moved_renamed_or_copied_goes_on_where_it_lies(
        tmp_path: Path, trained: Path, in_process: Run, place: str, move: Any) -> None:
    before = contents(trained)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    move(trained, tmp_path / place)
    assert in_process("train.py", "--resume", tmp_path / place, "trainer.epochs=3") == 0
    assert [row["epoch"] for row in rows(tmp_path / place)] == [1, 2, 3]
    assert read_checkpoint(tmp_path / place / "latest.pth")["epoch"] == 3
    assert contents(trained) == ({} if move is shutil.move else before)


def test_checkpoint_outside_of_a_run_folder_says_where_the_run_writes(
        tmp_path: Path, trained: Path, in_process: Run, capsys: Capture) -> None:
    shutil.copy(trained / "latest.pth", tmp_path / "kept.pth")
    assert in_process("train.py", "--resume", tmp_path / "kept.pth", "trainer.epochs=3") == 0
    assert f"writes to a folder of its own, {tmp_path / 'saved'}" in capsys.readouterr().out
    assert len(runs(tmp_path)) == 2


def test_one_command_starts_a_job_goes_on_with_it_and_ends_it(tmp_path: Path, config_file: Path,
                                                              in_process: Run, monkeypatch: Any,
                                                              capsys: Capture) -> None:
    """Whenever it was killed: in its first epoch, later, or not at all."""
    job = functools.partial(in_process, "train.py", "-c", config_file, "--run-id", "job",
                            "--resume", "auto")
    with monkeypatch.context() as patch:
        failing(patch)
        with pytest.raises(ZeroDivisionError):
            job()
    assert not list(runs(tmp_path)[0].glob("*.pth"))
    assert job("trainer.max_seconds=1e-6") == 124
    assert job("trainer.max_seconds=null") == 0
    assert [run.name for run in runs(tmp_path)] == ["job"]
    assert [row["epoch"] for row in rows(runs(tmp_path)[0])] == [1, 2]
    assert job() == 0
    assert "nothing to do" in capsys.readouterr().out


def test_without_a_run_id_the_job_is_the_newest_unfinished_run(tmp_path: Path, config_file: Path,
                                                               in_process: Run) -> None:
    job = functools.partial(in_process, "train.py", "-c", config_file, "--resume", "auto")
    assert job("trainer.max_seconds=1e-6") == 124
    assert job("trainer.max_seconds=null") == 0
    assert len(runs(tmp_path)) == 1
    assert job() == 0
    assert len(runs(tmp_path)) == 2


@pytest.mark.parametrize("source", ["latest.pth", ".", "latest"])
def test_init_from_takes_weights_only(trained: Path, tmp_path: Path, config_file: Path,
                                      in_process: Run, source: str) -> None:
    given = source if source == "latest" else trained / source
    assert in_process("train.py", "-c", config_file, "--init-from", given, "--run-id", "tuned",
                      "trainer.epochs=1", '+freeze=["conv*"]') == 0
    old = read_checkpoint(trained / ("latest.pth" if source == "latest.pth" else "model_best.pth"))
    new = read_checkpoint(trained.with_name("tuned") / "latest.pth")
    assert new["epoch"] == 1
    assert torch.equal(old["state_dict"]["conv.weight"], new["state_dict"]["conv.weight"])
    assert not torch.equal(old["state_dict"]["head.weight"], new["state_dict"]["head.weight"])
