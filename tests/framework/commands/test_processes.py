"""The commands in processes of their own: signals, kills, terminals."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.framework.commands.files import counters, log_dir, rows, runs
from tests.framework.logger.test_progress_bar import on_a_terminal
from utils.runs.checkpoint_file import read_checkpoint


def start(project: Path, config_file: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A run of its own process group, which has trained some steps when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-u", "train.py", "-c", str(config_file), "trainer.epochs=100000",
         "trainer.early_stop=0", "trainer.log_steps=1", "trainer.tensorboard=false", *arguments],
        cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    for line in process.stdout:
        if "batch 3" in line:
            return process
    raise AssertionError(f"the run ended with {process.wait()}")


def children(process_id: int) -> list[int]:
    """Living processes of the group, by their id."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == process_id and fields[0] != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "workers"), [
    (signal.SIGTERM, 2), (signal.SIGINT, 0), (signal.SIGUSR1, 0)])
def test_signal_saves_inside_the_epoch_and_says_how_to_go_on(
        tmp_path: Path, toy_project: Path, config_file: Path, number: int, workers: int) -> None:
    process = start(toy_project, config_file, f"data_loader.args.num_workers={workers}",
                    "trainer.len_epoch=1000000")
    os.killpg(process.pid, number)  # as a terminal or a scheduler does, workers included
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number, text
    latest = runs(tmp_path)[0] / "latest.pth"
    assert f"python train.py --resume {latest}" in text
    assert counters(latest.parent)["batch"] > 0
    assert children(process.pid) == []
    log = (log_dir(latest.parent) / "info.log").read_text()
    assert f"stopped by {signal.Signals(number).name}" in log


@pytest.mark.slow
def test_run_that_was_killed_before_its_first_checkpoint_is_started_anew(
        tmp_path: Path, toy_project: Path, config_file: Path, run_script: Any) -> None:
    arguments = ("--run-id", "job", "--resume", "auto")
    process = start(toy_project, config_file, "trainer.len_epoch=1000000", *arguments)
    process.kill()
    process.communicate()
    assert not list(runs(tmp_path)[0].glob("*.pth"))
    result = run_script("train.py", "-c", config_file, *arguments)
    assert result.returncode == 0, result.stderr
    assert [run.name for run in runs(tmp_path)] == ["job"]
    assert [row["epoch"] for row in rows(runs(tmp_path)[0])] == [1, 2]


@pytest.mark.slow
def test_folder_of_a_living_run_is_refused(tmp_path: Path, toy_project: Path, config_file: Path,
                                           run_script: Any) -> None:
    process = start(toy_project, config_file, "trainer.save_steps=1")
    try:
        result = run_script("train.py", "--resume", runs(tmp_path)[0])
        assert result.returncode == 1
        assert "another process" in result.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_second_interrupt_quits_at_once(config_file: Path, toy_project: Path) -> None:
    code = ("import os, runpy, signal, sys\n"
            "import trainer.trainer as t\n"
            "def step(self, batch, batch_idx):\n"
            "    os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)\n"
            "    print('not reached')\n"
            "t.Trainer._train_step = step\n"
            f"sys.argv = ['train.py', '-c', {str(config_file)!r}]\n"
            "runpy.run_path('train.py', run_name='__main__')\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=toy_project, capture_output=True,
                            text=True, timeout=120, check=False)
    assert result.returncode == 130, result.stderr
    assert "not reached" not in result.stdout


@pytest.mark.slow
def test_bar_of_a_run_is_whole_at_80_columns(config_file: Path, toy_project: Path) -> None:
    code = ("import runpy, sys, time\n"
            "import trainer.trainer as t\n"
            "step = t.Trainer._train_step\n"
            "t.Trainer._train_step = lambda *args: (time.sleep(0.11), step(*args))[1]\n"
            f"sys.argv = ['train.py', '-c', {str(config_file)!r}, 'trainer.epochs=1']\n"
            "runpy.run_path('train.py', run_name='__main__')\n")
    shown = [line for line in on_a_terminal(code, toy_project).split("\r") if "samples/s" in line]
    assert shown
    for line in shown:
        assert len(line) <= 80 and line.startswith("epoch 1  loss ") and "left" in line
        assert line.count("/s") == 1 and "|" in line


@pytest.mark.slow
def test_compiled_model_saves_the_keys_of_the_bare_one(tmp_path: Path, config_file: Path,
                                                       run_script: Any) -> None:
    result = run_script("train.py", "-c", config_file, "trainer.compile=true", "trainer.epochs=1",
                        timeout=300)
    assert result.returncode == 0, result.stderr
    checkpoint = read_checkpoint(runs(tmp_path)[0] / "latest.pth")
    assert checkpoint["arch"] == "ToyModel"
    assert "conv.weight" in checkpoint["state_dict"]
