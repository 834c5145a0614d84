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

pytestmark = pytest.mark.distributed
EXACT = ["plain", "accumulated", "clipped", "averaged", "two networks", "bypass", "own backward",
         "len_epoch", "valid_steps", "unused"]


def started(folder: Path, num_processes: int, *names: str) -> str:
    """Runs jobs under torchrun; gives what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num_processes),
         "-m", "tests.framework.processes.jobs", str(folder), *names],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("together")
    said = started(folder, request.param, *JOBS)
    return {name: torch.load(folder / f"{name}.pt") for name in JOBS} | {"said": said}


@pytest.mark.parametrize("name", EXACT)
def test_weights_and_values_are_those_of_one_process(tmp_path: Path, together: Any,
                                                     name: str) -> None:
    alone, several = JOBS[name](tmp_path), together[name]
    torch.testing.assert_close(several["weights"], alone["weights"], rtol=1e-5, atol=1e-6)
    assert several["counters"] == alone["counters"]
    assert several["evaluated"] == alone["evaluated"] == VALID
    for row, expected in zip(several["rows"], alone["rows"], strict=True):
        assert row.keys() == expected.keys()
        for key in row.keys() - {"time", "seconds"}:
            assert row[key] == pytest.approx(expected[key], rel=2e-5), key


def test_stream_is_read_once_by_all_together(together: Any) -> None:
    """96 samples in batches of 12 or 8, of which each process gets every second or third."""
    result = together["stream"]
    assert result["step"] == 8 and result["counters"]["passes"] == 2


def test_value_that_differs_between_processes_is_told(together: Any) -> None:
    assert "own: differs between the processes" in together["said"]
    alone = together["plain"]["rows"][0]
    row = together["own values"]["rows"][0]
    assert row["loss"] == alone["loss"] and 0 < row["ones"] < 1
