"""test.py: every sample, the best model, no run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.framework.commands.files import Capture, Run, runs
from tests.framework.toy.data_loader import data_loaders
from tests.framework.toy.trainer import Trainer
from utils.runs.checkpoint_file import read_checkpoint


def test_test_writes_a_table_and_json_and_no_run(trained: Path, tmp_path: Path, in_process: Run,
                                                 capsys: Capture) -> None:
    assert in_process("test.py", "--resume", trained / "model_best.pth") == 0
    result = json.loads((trained / "model_best.test.json").read_text())
    assert set(result) == {"checkpoint", "epoch", "samples", "loss", "accuracy", "top_k_acc"}
    assert "accuracy" in capsys.readouterr().out
    assert runs(tmp_path) == [trained]


def test_own_values_do_not_replace_what_the_file_has_by_itself(
        trained: Path, in_process: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(Trainer, "_valid_epoch", lambda self, epoch: {"samples": 0.5})
    assert in_process("test.py", "--resume", trained) == 0
    result = json.loads((trained / "model_best.test.json").read_text())
    assert result["own_samples"] == 0.5 and result["samples"] == 0


@pytest.mark.parametrize("argument", ["+data_loader.args.drop_last=true",
                                      "data_loader.args.validation_split=0.5",
                                      "data_loader.args.batch_size=7"])
def test_every_sample_is_tested(trained: Path, in_process: Run, argument: str) -> None:
    assert in_process("test.py", "--resume", trained, argument) == 0
    assert json.loads((trained / "model_best.test.json").read_text())["samples"] == 30


def test_latest_run_is_tested_with_its_best_model(trained: Path, config_file: Path,
                                                  in_process: Run) -> None:
    assert in_process("test.py", "-c", config_file, "--resume", "latest") == 0
    result = json.loads((trained / "model_best.test.json").read_text())
    assert result["epoch"] == read_checkpoint(trained / "model_best.pth")["epoch"]


def plain_loader() -> Any:
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(40, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(data, torch.arange(40) % 3), batch_size=16)


def training_loader(training: bool = True) -> Any:
    return plain_loader()


@pytest.mark.parametrize("loader", [plain_loader, training_loader])
def test_any_loader_of_torch_is_trained_and_tested_with(tmp_path: Path, config_dict: dict[str, Any],
                                                        in_process: Run, monkeypatch: Any,
                                                        capsys: Capture, loader: Any) -> None:
    """From a function, without arguments, without a split."""
    monkeypatch.setattr(data_loaders, "own_loader", loader, raising=False)
    config_dict["data_loader"] = {"type": "own_loader"}
    (tmp_path / "config.json").write_text(json.dumps(config_dict))
    assert in_process("train.py", "-c", tmp_path / "config.json", "trainer.monitor=min loss") == 0
    run, = runs(tmp_path)
    assert in_process("test.py", "--resume", run) == 0
    assert json.loads((run / "model_best.test.json").read_text())["samples"] == 40
    warns = "takes no argument 'training'" in capsys.readouterr().out
    assert warns == (loader is plain_loader)
