"""On a GPU, what is promised of the CPU; without one, nothing here runs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.commands.files import Run, runs
from tests.framework.tiny_run import final_state, same

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU")]
SETTINGS = [
    [], ["trainer.precision=bf16"], ["trainer.precision=fp16"], ["trainer.accumulate=2"],
    ["trainer.clip_grad_norm=0.1"], ["trainer.ema_decay=0.9"], ["trainer.channels_last=true"],
    ["trainer.compile=true"], ["optimizer.args.fused=true"],
    ["trainer.precision=fp16", "trainer.accumulate=2", "trainer.clip_grad_norm=0.1",
     "trainer.ema_decay=0.9", "trainer.channels_last=true", "data_loader.args.num_workers=2"]]


def finished(tmp_path: Path, run_id: str) -> dict[str, Any]:
    folder, = (run for run in runs(tmp_path) if run.name == run_id)
    return final_state(folder)


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_run_that_goes_on_ends_with_the_bits_of_one_that_did_not_stop(
        tmp_path: Path, config_file: Path, in_process: Run, settings: list[str]) -> None:
    start = ["-c", config_file, "n_gpu=1", "trainer.deterministic=true", *settings]
    assert in_process("train.py", *start, "--run-id", "whole", "trainer.max_steps=5") == 0
    assert in_process("train.py", *start, "--run-id", "parts", "trainer.max_steps=3") == 0
    latest, = tmp_path.rglob("parts/latest.pth")
    assert in_process("train.py", "--resume", latest, "trainer.max_steps=5") == 0
    whole, parts = finished(tmp_path, "whole"), finished(tmp_path, "parts")
    assert whole["parts"]["counters"]["step"] == 5
    assert same(whole["state_dict"], parts["state_dict"])
    assert same(whole["optimizer"], parts["optimizer"])


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_numbers_are_those_of_the_cpu(tmp_path: Path, config_file: Path, in_process: Run,
                                      settings: list[str]) -> None:
    """To the rounding of the precision, without dropout, which differs between devices."""
    values = {}
    for name, n_gpu in (("cpu", 0), ("gpu", 1)):
        assert in_process("train.py", "-c", config_file, f"n_gpu={n_gpu}", "--run-id", name,
                          "arch.args.dropout=0.0", *settings) == 0
        values[name] = finished(tmp_path, name)["parts"]["history"][-1]["val_loss"]
    is_half = any("precision" in text for text in settings)
    assert values["gpu"] == pytest.approx(values["cpu"], rel=3e-2 if is_half else 1e-4)
