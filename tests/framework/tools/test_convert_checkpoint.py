"""Checkpoints of the classic template become plain ones; nothing of them is executed."""

import pickle
import re
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.framework.conftest import ROOT
from tools.convert_checkpoint import convert
from utils.errors import CheckpointError, ConfigError
from utils.runs.checkpoint_file import read_checkpoint, write_checkpoint

CONFIG = OrderedDict(name="Mnist_LeNet", n_gpu=1, trainer=OrderedDict(epochs=3, monitor="min loss"))


class Parser:
    """The config object that classic checkpoints hold."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


Parser.__module__, Parser.__qualname__ = "parse_config", "ConfigParser"


@pytest.fixture
def classic(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the classic trainer hands to ``torch.save``."""
    module = types.ModuleType("parse_config")
    module.ConfigParser = Parser
    monkeypatch.setitem(sys.modules, "parse_config", module)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return {
        "arch": "MnistModel", "epoch": 3,
        "state_dict": OrderedDict((f"module.{key}", value)
                                  for key, value in model.state_dict().items()),
        "optimizer": optimizer.state_dict(),
        "monitor_best": np.float64(0.125),
        "config": Parser(_config=CONFIG, resume=PosixPath("/old/model.pth"),
                         _save_dir=PosixPath("saved/models/x"), _log_dir=PosixPath("saved/log/x"),
                         log_levels={0: 30, 1: 20, 2: 10})}


@pytest.fixture
def old(tmp_path: Path, classic: dict[str, Any]) -> Path:
    torch.save(classic, tmp_path / "old.pth")
    return tmp_path / "old.pth"


def test_classic_checkpoint_is_refused_with_the_way_to_convert_it(old: Path) -> None:
    message = (r"refused.*could execute code.*older template.*python -m tools\.convert_checkpoint "
               rf"{re.escape(str(old))} NEW\.pth")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(old)


def test_converted_checkpoint_is_readable(old: Path, classic: dict[str, Any]) -> None:
    convert(old, old.with_name("new.pth"))
    new = read_checkpoint(old.with_name("new.pth"))
    assert (new["arch"], new["epoch"], new["config"]) == ("MnistModel", 3, CONFIG)
    assert new["monitor_best"] == 0.125 and type(new["monitor_best"]) is float


def test_weights_and_optimizer_are_the_same_bits(old: Path, classic: dict[str, Any]) -> None:
    convert(old, old.with_name("new.pth"))
    new = read_checkpoint(old.with_name("new.pth"))
    assert torch.equal(new["state_dict"]["weight"], classic["state_dict"]["module.weight"])
    assert torch.equal(new["optimizer"]["state"][0]["max_exp_avg_sq"],
                       classic["optimizer"]["state"][0]["max_exp_avg_sq"])
    assert new["optimizer"]["param_groups"] == classic["optimizer"]["param_groups"]


def test_keys_lose_the_prefix_of_a_wrapper(old: Path) -> None:
    assert list(convert(old, old.with_name("new.pth"))["state_dict"]) == ["weight", "bias"]


def test_old_file_is_left_as_it_is(old: Path) -> None:
    before = old.read_bytes()
    convert(old, old.with_name("new.pth"))
    assert old.read_bytes() == before


def test_format_of_old_torch_is_read(old: Path, classic: dict[str, Any]) -> None:
    torch.save(classic, old, _use_new_zipfile_serialization=False)
    assert convert(old, old.with_name("new.pth"))["epoch"] == 3


@pytest.mark.parametrize("attribute", ["_config", "config"])
def test_config_by_either_name(old: Path, classic: dict[str, Any], attribute: str) -> None:
    torch.save(classic | {"config": Parser(**{attribute: CONFIG})}, old)
    assert convert(old, old.with_name("new.pth"))["config"] == CONFIG


@pytest.mark.parametrize("number", [
    np.float64(-1.5), np.float32(0.25), np.float16(2), np.int64(-7), np.uint8(200), np.int32(5),
    np.bool_(True)], ids=lambda number: number.dtype.name)
def test_numbers_of_numpy_become_plain(old: Path, classic: dict[str, Any], number: Any) -> None:
    torch.save(classic | {"monitor_best": number}, old)
    best = convert(old, old.with_name("new.pth"))["monitor_best"]
    assert best == number.item() and type(best) is type(number.item())


def test_number_in_the_other_byte_order(old: Path, classic: dict[str, Any]) -> None:
    """Written by hand: numpy turns its scalars to the order of the machine."""
    torch.save(classic | {"monitor_best": ByteOrder()}, old)
    assert convert(old, old.with_name("new.pth"))["monitor_best"] == 1.5


class ByteOrder:
    """Pickles as numpy's 1.5, in big-endian order."""

    def __reduce__(self) -> tuple[Any, ...]:
        function, _ = np.float64(0).__reduce__()
        return function, (np.dtype(">f8"), np.array(1.5, ">f8").tobytes())


def test_paths_become_strings(old: Path, classic: dict[str, Any]) -> None:
    torch.save(classic | {"data_dir": PosixPath("/data/x/y")}, old)
    assert convert(old, old.with_name("new.pth"))["data_dir"] == "/data/x/y"


@pytest.mark.parametrize("content", [
    np.dtype("f8"), np.array([1.0]), PosixPath, Parser, np.array([None]), nn.Linear(1, 1),
    np.dtype("O"), np.datetime64("2020-01-01")], ids=lambda content: type(content).__name__)
def test_what_a_classic_checkpoint_does_not_hold_is_refused(old: Path, classic: dict[str, Any],
                                                            content: Any) -> None:
    torch.save(classic | {"extra": [content]}, old)
    with pytest.raises(CheckpointError, match=r"old\.pth: (refused|not a checkpoint)") as told:
        convert(old, old.with_name("new.pth"))
    assert "convert_checkpoint" not in str(told.value)
    assert not old.with_name("new.pth").exists()


def test_config_that_holds_itself_is_refused(old: Path, classic: dict[str, Any]) -> None:
    parser = Parser()
    parser._config = parser
    torch.save(classic | {"config": parser}, old)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        convert(old, old.with_name("new.pth"))


def test_stand_ins_do_not_outlast_the_conversion(old: Path) -> None:
    convert(old, old.with_name("new.pth"))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(old, weights_only=True)


def test_existing_file_is_not_overwritten(old: Path) -> None:
    with pytest.raises(ConfigError, match=r"old\.pth: exists already"):
        convert(old, old)


def test_folder_that_cannot_be_made(old: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert(old, old / "x" / "new.pth")


def test_our_own_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    state = {"state_dict": {"a": torch.ones(2)}, "epoch": 2, "parts": {"x": [1]}}
    write_checkpoint(tmp_path / "old.pth", state)
    convert(tmp_path / "old.pth", tmp_path / "new.pth")
    assert read_checkpoint(tmp_path / "new.pth")["parts"] == {"x": [1]}


def test_damaged_checkpoint_is_refused(old: Path) -> None:
    old.write_bytes(old.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        convert(old, old.with_name("new.pth"))


@pytest.mark.slow
def test_command(old: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tools.convert_checkpoint", old, tmp_path / "new.pth"], cwd=ROOT,
        capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"written: {tmp_path / 'new.pth'}\n")
