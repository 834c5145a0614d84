"""Several processes with batch B train and validate as one with batch B times as many."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.conftest import ROOT
from tests.framework.processes.jobs import JOBS, VALID
from tests.framework.tiny_run import TIMES

pytestmark = pytest.mark.distributed
EXACT = ["plain", "accumulated", "channels last, fused", "clipped", "averaged", "two networks",
         "bypass", "own backward", "len_epoch", "valid_steps", "unused"]
DDP = [name for name in JOBS if name.startswith("ddp")]
FSDP = ["fsdp2", "fsdp2, clipped", "fsdp2, accumulated", "fsdp2, averaged", "fsdp2, len_epoch",
        "fsdp2, valid_steps", "fsdp2, logs weights"]


def started(folder: Path, num_processes: int, *names: str) -> str:
    """Runs jobs under torchrun; gives what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num_processes),
         "-m", "tests.framework.processes.jobs", str(folder), *names],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check_same(several: dict[str, Any], alone: dict[str, Any]) -> None:
    torch.testing.assert_close(several["weights"], alone["weights"], rtol=1e-5, atol=1e-6)
    assert several["counters"] == alone["counters"]
    assert several["evaluated"] == alone["evaluated"] == VALID
    assert several["trained"] == alone["trained"]
    for row, expected in zip(several["rows"], alone["rows"], strict=True):
        assert row.keys() == expected.keys()
        for key in row.keys() - {*TIMES}:
            assert row[key] == pytest.approx(expected[key], rel=2e-5), key


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The quick one of these."""
    started(tmp_path, 2, "plain")
    check_same(torch.load(tmp_path / "plain.pt"), JOBS["plain"](tmp_path / "alone"))


@pytest.fixture(scope="module", params=[pytest.param(count, marks=pytest.mark.slow)
                                        for count in (2, 3)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("together")
    names = [name for name in JOBS if " half" not in name and not name.startswith("shards")]
    said = started(folder, request.param, *names)
    return {name: torch.load(folder / f"{name}.pt") for name in names} | {
        "said": said, "num_processes": request.param}


@pytest.mark.parametrize("name", EXACT + DDP + FSDP)
def test_weights_and_values_are_those_of_one_process(tmp_path: Path, together: Any,
                                                     name: str) -> None:
    same = name.removeprefix("ddp, ").removeprefix("fsdp2, ")
    alone = JOBS["plain" if same in ("ddp", "fsdp2") else same](tmp_path)
    check_same(together[name], alone)


def test_stream_is_read_once_by_all_together(together: Any) -> None:
    """96 samples in batches of 12 or 8, of which each process gets every second or third."""
    result = together["stream"]
    assert result["step"] == 8 and result["counters"]["passes"] == 2
    assert result["trained"] == 2 * 96


def test_value_that_differs_between_processes_is_told(together: Any) -> None:
    assert "own: differs between the processes" in together["said"]
    alone = together["plain"]["rows"][0]
    row = together["own values"]["rows"][0]
    assert row["loss"] == alone["loss"] and 0 < row["ones"] < 1


@pytest.mark.parametrize("name", [name for name in JOBS if name.startswith("resumed")])
def test_resume_with_as_many_processes_is_exact(together: Any, name: str) -> None:
    """With dropout, which differs between the processes."""
    whole, after = together[name]["whole"], together[name]["resumed"]
    assert together[name]["code"] == 128 + 15
    assert torch.equal(after["weights"], whole["weights"])
    assert timeless(after["rows"]) == timeless(whole["rows"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_resume_of_ddp_is_exact_with_two_and_to_rounding_with_more(together: Any,
                                                                   precision: str) -> None:
    """The order in which more than two are summed is torch's, which sorts its buckets anew."""
    result = together[f"half precision of ddp: {precision}"]
    whole, after = result["whole"], result["resumed"]
    rounding = 0.0 if together["num_processes"] == 2 else 1e-5
    torch.testing.assert_close(after["weights"], whole["weights"], rtol=rounding, atol=rounding)
    assert after["counters"] == whole["counters"] and result["code"] == 128 + 15


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES}
            for row in rows]


@pytest.mark.parametrize(("name", "text"), [
    ("nan", "RunError: the loss is not finite (epoch 1, batch 2 or before"),
    ("diverges", "RunError: the weights of the processes differ: model.0.weight"),
    ("torch's loader", "ConfigError: data_loader: a DataLoader gives each of the several"),
    ("another optimizer", "ConfigError: of several processes each would step an optimizer"),
    ("sampler of shares", "ConfigError: data_loader: its DistributedSampler gives"),
    ("evaluates all", "ConfigError: the data to evaluate: a DataLoader gives each"),
    ("fsdp2 goes back by itself", "ConfigError: trainer.strategy: fsdp2 works where _train_step"),
    ("fsdp2, two nets", "ConfigError: trainer.strategy: fsdp2 divides the weights of the model"),
    ("sparse", "ConfigError: several processes cannot share sparse gradients"),
    ("fsdp2, tied", "ConfigError: trainer.strategy: fsdp2 divides this Normed by blocks, and"),
    ("to fsdp2", "the strategy was changed to or from fsdp2"),
    ("to fsdp2, by hand", "the strategy was changed to or from fsdp2"),
    ("from fsdp2", "the strategy was changed to or from fsdp2"),
    ("fsdp2, full disk", "could not be written ([Errno 28] No space left on device); earlier"),
    ("fsdp2 in fp16", "ConfigError: trainer.precision: fp16 does not go with"),
    ("time is up", "SystemExit: 124")])
def test_all_processes_end_together(together: Any, name: str, text: str) -> None:
    assert text in together[name]["error"]
    assert len(set(together[name]["all"])) == 1


def test_gradients_that_somebody_clips_before_they_come_together_are_told(together: Any) -> None:
    """Once in each process, and in none of the other runs."""
    lines = [line for line in together["said"].splitlines() if "gradients were scaled" in line]
    assert len(lines) == together["num_processes"]


def test_network_that_only_an_optimizer_knows_is_the_same_everywhere(together: Any) -> None:
    """It began with other weights in each process."""
    assert "hidden: differs" not in together["said"]
    assert len(together["hidden network"]["rows"]) == 2


def test_loop_of_ones_own_sees_all_of_any_data(together: Any) -> None:
    result = together["goes over its data"]
    assert [row["val_seen"] for row in result["rows"]] == [VALID, VALID]
    assert result["other"]["seen"] == 33


def test_scales_of_the_processes_are_those_of_before_a_resume(together: Any) -> None:
    """One of them overflowed less, which changes no number."""
    assert together["scales"]["resumed"] == together["scales"]["whole"]
    assert len(set(together["scales"]["whole"])) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 3), (2, 1)])
def test_another_number_goes_on_from_an_epoch(tmp_path: Path, before: int, after: int) -> None:
    """With a metric of torchmetrics, and with state that each process has of its own."""
    started(tmp_path, before, "first half")
    started(tmp_path, after, "second half")
    rows = torch.load(tmp_path / "second half.pt")["rows"]
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["loss"] < rows[0]["loss"]
