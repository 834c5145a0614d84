"""The real command under torchrun: one folder, stops, failures, restarts, another number."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.commands.files import counters, log_dir, rows, runs
from utils.runs.checkpoint_file import read_checkpoint

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
FAILING = '''

class Trainer(Trainer):
    def _train_step(self, batch, batch_idx):
        from utils.devices.processes import rank
        if rank() == 1 and batch_idx == 1:
            raise ZeroDivisionError("mine")
        return super()._train_step(batch, batch_idx)
'''


def start(project: Path, *arguments: Any, torchrun: tuple[str, ...] = ("--nproc-per-node", "2"),
          to: Path | None = None) -> "subprocess.Popen[str]":
    """What it says goes to a file or a pipe."""
    with contextlib.ExitStack() as files:
        output = subprocess.PIPE if to is None else files.enter_context(open(to, "w"))
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "torch.distributed.run", *torchrun, *map(str, arguments)],
            cwd=project, text=True, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(project: Path, *arguments: Any, **options: Any) -> tuple[int, str]:
    process = start(project, *arguments, **options)
    said = process.communicate(timeout=120)[0]
    return process.returncode, said


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"the run ended with {process.wait()}: {said}")


def test_run_of_two_is_one_run_and_is_tested_by_two(tmp_path: Path, toy_project: Path,
                                                    config_file: Path) -> None:
    status, said = run(toy_project, "train.py", "-c", config_file)
    assert status == 0 and said.count("finished 2 epochs") == 1, said
    folder, = runs(tmp_path)
    assert "2 processes with batches of 16 make batches of 32 samples" in said
    writers = {file.name.split(".")[-2] for file in log_dir(folder).glob("events*")}  # by their ids
    assert len(writers) == 1 and len(rows(folder)) == 2
    assert len(read_checkpoint(folder / "latest.pth")["rank_parts"]) == 2
    for count in "21":
        status, said = run(toy_project, "test.py", "-r", folder,
                           torchrun=("--nproc-per-node", count))
        assert status == 0 and said.count("samples     30") == 1, said


def test_another_number_goes_on_from_an_epoch_but_not_from_inside_one(
        tmp_path: Path, toy_project: Path, config_file: Path) -> None:
    assert run(toy_project, "train.py", "-c", config_file, "trainer.max_steps=2")[0] == 0
    folder, = runs(tmp_path)
    status, said = run(toy_project, "train.py", "-r", folder / "latest.pth", "trainer.max_steps=5",
                       torchrun=("--nproc-per-node", "1"))
    assert status == 1 and "in 2 process(es), and there are 1 now" in said
    assert run(toy_project, "train.py", "-r", folder / "latest.pth", "trainer.max_steps=3")[0] == 0
    status, said = run(toy_project, "train.py", "-r", folder / "latest.pth",
                       "trainer.max_steps=9", torchrun=("--nproc-per-node", "1"))
    assert status == 0 and counters(folder)["step"] == 9, said


def test_schedule_is_as_long_as_the_run_with_another_number(tmp_path: Path, toy_project: Path,
                                                            config_file: Path) -> None:
    """6 steps an epoch by one process, 3 by two."""
    schedule = 'lr_scheduler={"type":"OneCycleLR","args":{"max_lr":0.05}}'
    one = ("--nproc-per-node", "1")
    status, said = run(toy_project, "train.py", "-c", config_file, "trainer.epochs=4", schedule,
                       torchrun=one)
    assert status == 0, said
    folder, = runs(tmp_path)
    for again, torchrun in (("two", ("--nproc-per-node", "2")), ("one", one)):
        status, said = run(toy_project, "train.py", "-r", folder / "checkpoint-epoch1.pth",
                           "--new-run", "--run-id", again, torchrun=torchrun)
        assert status == 0, said
    steps = [rows(folder.with_name(name))[-1]["step"] for name in ("one", "two")]
    rates = [rows(folder.with_name(name))[-1]["lr"] for name in ("one", "two")]
    assert steps == [24, 15] and rates[1] < 0.002 and rates[0] == rows(folder)[-1]["lr"]


def test_metric_that_a_process_has_no_sample_for_is_told(tmp_path: Path, toy_project: Path,
                                                         config_file: Path) -> None:
    status, said = run(
        toy_project, "train.py", "-c", config_file, "trainer.sanity_batches=0",
        "data_loader.args.batch_size=96", "trainer.epochs=1",
        'metrics=[{"type":"MulticlassAUROC","args":{"num_classes":3}}]',
        '+valid_data_loader={"type":"ToyDataLoader","args":{"batch_size":1,"shuffle":false,'
        '"indices":[0]}}', "data_loader.args.validation_split=0.0")
    assert status == 1 and "has fewer samples (1) than there are processes (2)" in said


def test_failure_of_one_ends_all_at_once_with_its_traceback(
        tmp_path: Path, toy_project: Path, config_file: Path) -> None:
    file = toy_project / "trainer" / "trainer.py"
    before = file.read_text()
    try:
        file.write_text(before + FAILING)
        begin = time.monotonic()
        status, said = run(toy_project, "train.py", "-c", config_file)
    finally:
        file.write_text(before)
    assert status == 1 and time.monotonic() - begin < 40
    assert 'raise ZeroDivisionError("mine")' in said


def test_signal_to_torchrun_saves_and_the_run_goes_on(tmp_path: Path, toy_project: Path,
                                                      config_file: Path) -> None:
    process = start(toy_project, "train.py", "-c", config_file, "trainer.epochs=100000",
                    "trainer.early_stop=0", "trainer.log_steps=1", "trainer.tensorboard=false")
    wait_for(process, "epoch 3  batch 1")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    folder, = runs(tmp_path)
    assert f"torchrun --nproc-per-node 2 train.py --resume {folder / 'latest.pth'}" in said
    done = counters(folder)["epoch"]
    assert done >= 2
    status, said = run(toy_project, "train.py", "-r", folder / "latest.pth",
                       f"trainer.epochs={done + 1}")
    assert status == 0 and counters(folder)["epoch"] == done + 1, said


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def children_of(process_id: int) -> list[int]:
    """The processes that torchrun has started, oldest first."""
    found = []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == process_id:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("machines", [1, 2])
def test_killed_process_is_started_again_and_the_run_ends_with_the_same_bits(
        tmp_path: Path, toy_project: Path, config_file: Path, machines: int) -> None:
    arguments = ["train.py", "-c", config_file, "--resume", "auto", "trainer.epochs=60",
                 "trainer.early_stop=0", "trainer.save_steps=1", "trainer.tensorboard=false"]
    status, said = run(toy_project, *arguments, "--run-id", "whole")
    assert status == 0, said
    meeting = ("--nnodes", str(machines), "--rdzv-backend", "c10d", "--rdzv-id", "x",
               "--rdzv-endpoint", f"localhost:{free_port()}", "--max-restarts", "3",
               "--nproc-per-node", str(2 // machines))
    said = [tmp_path / f"agent {number}" for number in range(machines)]
    agents = [start(toy_project, *arguments, "--run-id", "killed", torchrun=meeting, to=file)
              for file in said]
    try:
        deadline = time.monotonic() + 60
        while not any("epoch 5  batch 0" in file.read_text() for file in said):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(children_of(agents[-1].pid)[-1], signal.SIGKILL)
        for one in agents:
            one.wait(timeout=90)
    finally:
        for one in agents:
            one.terminate()
    texts = [file.read_text() for file in said]
    assert [one.returncode for one in agents] == [0] * machines, texts
    assert any("resuming" in text for text in texts)
    whole, killed = (read_checkpoint(tmp_path / "saved" / "models" / "Toy" / name / "latest.pth")
                     for name in ("whole", "killed"))
    assert killed["parts"]["counters"] == whole["parts"]["counters"]
    for key, value in whole["state_dict"].items():
        assert torch.equal(killed["state_dict"][key], value)
