"""The benchmarks measure what they say; how fast it is, no test asserts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.timing import StepByStep, epochs_of, in_turns
from parse_config import ConfigParser
from tests.framework.conftest import ROOT
from trainer import Trainer


def test_loops_that_take_turns_run_whole_epochs_in_slices(tmp_path: Path) -> None:
    steps: list[str] = []

    class Noting(Trainer):
        def _train_step(self, batch, batch_idx):
            steps.append("t")
            return super()._train_step(batch, batch_idx)

    def loop():
        for _ in range(5):
            steps.append("b")
            yield

    config = ConfigParser({"name": "turns", "n_gpu": 0, "trainer": {
        "epochs": 10, "save_dir": str(tmp_path), "tensorboard": False}})
    model = nn.Linear(2, 2)
    trainer = Noting(model, nn.functional.cross_entropy, [],
                     torch.optim.SGD(model.parameters(), lr=0.1), config, torch.device("cpu"),
                     [(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))] * 5)
    times = in_turns(2, trainer, 2, {"bare": loop})
    assert "".join(steps) == "ttbbttbbtb" * 3  # one round is not counted
    assert {name: len(taken) for name, taken in times.items()} == {"template": 2, "bare": 2}
    assert min(min(taken) for taken in times.values()) > 0


def test_trainers_take_turns_with_each_other(tmp_path: Path) -> None:
    steps: list[str] = []

    class Noting(Trainer):
        name = ""

        def _train_step(self, batch, batch_idx):
            steps.append(self.name)
            return super()._train_step(batch, batch_idx)

        def _valid_epoch(self, epoch):
            steps.append(self.name.upper())
            return super()._valid_epoch(epoch)

    def trainer_of(name):
        config = ConfigParser({"name": name, "n_gpu": 0, "trainer": {
            "epochs": 10, "save_dir": str(tmp_path), "tensorboard": False}})
        model, batches = nn.Linear(2, 2), [(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))]
        trainer = Noting(model, nn.functional.cross_entropy, [],
                         torch.optim.SGD(model.parameters(), lr=0.1), config, torch.device("cpu"),
                         batches * 3, batches)
        trainer.name = name
        return trainer

    times = in_turns(2, trainer_of("a"), 2, {"b": epochs_of(trainer_of("b"))})
    assert "".join(steps) == "aabbaAbB" * 3
    assert len(times["b"]) == 2 and min(times["b"]) > 0


def test_error_of_a_trainer_that_takes_turns_is_raised() -> None:
    def run():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(StepByStep().steps(run))


@pytest.mark.slow
def test_unknown_name_is_refused() -> None:
    result = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "expected names of epoch, step" in result.stderr


@pytest.mark.slow
def test_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "step", "loader", "save", "--rounds", "1", "--out",
         str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    written = json.loads(out.read_text())
    assert {"date", "machine", "torch", "minutes", "step", "loader", "save"} <= set(written)
    for name in ("step", "loader", "save"):
        for key in written[name]:
            assert any(line.startswith(name) and key in line
                       for line in result.stdout.splitlines()), key
