"""Checkpoints that each process writes its part of."""

import os
import pickle
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from base.checkpoint.shards import link_shards, read_shards
from tests.framework.processes.jobs import JOBS
from tests.framework.processes.test_numbers import started
from tools.convert_checkpoint import convert
from utils.errors import CheckpointError
from utils.runs.checkpoint_file import link_checkpoint, read_checkpoint, write_checkpoint
from utils.runs.find_checkpoint import find_checkpoint

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
KEPT = "kept"  # a copy of the run's folder as it was written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    started(folder, 2, "shards")
    shutil.copytree(folder / "shards/models/x/run", folder / KEPT)
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(folder / KEPT, tmp_path / "run")


def whole(checkpoint: Path) -> dict[str, Any]:
    return read_shards(read_checkpoint(checkpoint), checkpoint)


def test_one_process_reads_what_two_have_written(folder: Path) -> None:
    content, result = whole(folder / KEPT / "latest.pth"), torch.load(folder / "shards.pt")
    alone = JOBS["averaged"](folder / "alone")
    weights = torch.cat([one.flatten() for one in content["state_dict"].values()])
    assert torch.equal(weights, result["weights"])
    torch.testing.assert_close(weights, alone["weights"], rtol=1e-5, atol=1e-6)
    averaged = [one.flatten() for key, one in content["parts"]["average"].items()
                if key != "n_averaged"]
    assert torch.cat(averaged).isfinite().all() and not torch.equal(torch.cat(averaged), weights)


def test_files_have_no_weights_and_unused_shards_are_gone(folder: Path) -> None:
    """Of two epochs the first file is pruned; the last, best and latest name one folder."""
    content = read_checkpoint(folder / KEPT / "latest.pth")
    assert all(one.is_meta for one in content["state_dict"].values())
    path, = (folder / KEPT / "shards").iterdir()
    assert content["shards"]["name"] == path.name
    assert sorted(content["shards"]["files"]) == [".metadata", "__0_0.distcp", "__1_0.distcp"]


def test_converted_file_is_one_of_its_own(run: Path, tmp_path: Path) -> None:
    convert(run / "latest.pth", tmp_path / "one.pth")
    expected, content = whole(run / "latest.pth"), read_checkpoint(tmp_path / "one.pth")
    assert "shards" not in content
    for key, value in expected["state_dict"].items():
        assert torch.equal(content["state_dict"][key], value)


def test_shards_come_along_into_another_folder_once(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name in ("latest.pth", "model_best.pth"):
        link_shards(run / name, tmp_path / "other" / name)
        link_checkpoint(run / name, tmp_path / "other" / name)
    shutil.rmtree(run)
    assert whole(tmp_path / "other/latest.pth") and whole(tmp_path / "other/model_best.pth")
    assert len(list((tmp_path / "other/shards").iterdir())) == 1


def test_another_number_of_processes_goes_on(folder: Path) -> None:
    started(folder, 3, "shards of another number")
    rows = torch.load(folder / "shards of another number.pt")["rows"]
    assert [row["epoch"] for row in rows] == [1, 2, 3] and rows[2]["loss"] < rows[1]["loss"]


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata"])
def test_flipped_bit_is_found(run: Path, name: str) -> None:
    file, = run.glob(f"shards/*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: damaged \(its checksum is wrong\)"):
        whole(run / "latest.pth")


def test_checkpoint_without_its_shards_is_not_taken(run: Path) -> None:
    file, = run.glob("shards/*/__1_0.distcp")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"a part of it is missing.*__1_0\.distcp"):
        read_checkpoint(run / "latest.pth")
    write_checkpoint(run / "checkpoint-epoch1.pth", {"state_dict": {}, "epoch": 1})
    assert find_checkpoint(run)[0] == run / "checkpoint-epoch1.pth"


@pytest.mark.parametrize("shards", [
    {"name": "../../elsewhere", "files": {}}, {"name": "", "files": {}}, {"name": "x"},
    {"name": 3, "files": {}}, {"name": "x", "files": {"../y": 1}}, {"name": "x", "files": {1: 1}}])
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, shards: dict[str, Any]) -> None:
    write_checkpoint(tmp_path / "a.pth", {"state_dict": {}, "shards": shards})
    with pytest.raises(CheckpointError, match="does not say where its shards are"):
        read_checkpoint(tmp_path / "a.pth")


class Calls:
    """A pickle that calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, torch.load])
def test_metadata_that_could_execute_code_is_refused(run: Path, tmp_path: Path,
                                                     function: Any) -> None:
    file, = run.glob("shards/*/.metadata")
    made = tmp_path / "made"
    file.write_bytes(pickle.dumps(Calls(
        function, f"__import__('os').mkdir({str(made)!r})" if function is eval else str(made))))
    content = read_checkpoint(run / "latest.pth")
    content["shards"]["files"][".metadata"] = zlib.crc32(file.read_bytes())
    write_checkpoint(run / "latest.pth", content)
    with pytest.raises(CheckpointError, match="could execute code"):
        whole(run / "latest.pth")
    assert not made.exists()
