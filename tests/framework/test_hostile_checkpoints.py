"""Files that no run wrote, given to every command that reads a checkpoint."""

import argparse
import contextlib
import functools
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from base.checkpoint.weights import start_from
from parse_config import ConfigParser
from tests.framework.conftest import ROOT, TOY
from tools.convert_checkpoint import convert
from utils.errors import CheckpointError, ConfigError
from utils.runs.checkpoint_file import read_checkpoint

MARKER = "executed"
GOOD = {"state_dict": {"weight": torch.zeros(1)}, "epoch": 1, "config": {"name": "x"}}


class Call:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments

    def __call__(self) -> None:
        """Not called: pickle wants what it writes as a function to look like one."""


class Gadget:
    """Pickles as an object that ``__setstate__`` acts on."""

    def __getstate__(self) -> dict[str, Any]:
        return {"command": f"touch {MARKER}"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.system(state["command"])


CALLS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Call(os.system, f"touch {MARKER}"),
    "eval": lambda: Call(eval, f"open({MARKER!r}, 'w').close()"),
    "getattr": lambda: Call(
        Call(getattr, Call(__import__, "os"), "system"), f"touch {MARKER}"),
    "partial": lambda: Call(functools.partial(os.system, f"touch {MARKER}")),
    "mkdir": lambda: Call(os.mkdir, MARKER),
    "setstate": Gadget,
    "nested torch.load": lambda: Call(functools.partial(
        torch.load, "inner.pth", weights_only=False)),
    "nested pickle": lambda: Call(pickle.loads, pickle.dumps(CALLS["os.system"]())),
    "numpy objects": lambda: np.array([CALLS["os.system"]()], dtype=object),
    "a class": lambda: Call(type, "X", (), {}),
    "a whole model": lambda: nn.Linear(2, 2),
}


def with_call(name: str) -> dict[str, Any]:
    return GOOD | {"extra": CALLS[name]()}


def in_zip(path: Path, name: str) -> None:
    torch.save(with_call(name), path)


def in_older_format(path: Path, name: str) -> None:
    torch.save(with_call(name), path, _use_new_zipfile_serialization=False)


def in_pickle(path: Path, name: str, protocol: int) -> None:
    path.write_bytes(pickle.dumps(with_call(name) | {"state_dict": {}}, protocol=protocol))


CONTAINERS: dict[str, Callable[[Path, str], None]] = {
    "zip": in_zip, "older format": in_older_format}
PICKLES = {f"protocol {number}": functools.partial(in_pickle, protocol=number)
           for number in range(6)}


def torchscript(path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x
    with io.BytesIO() as file:  # what torch.jit.save writes, without its deprecated compiler
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/constants.pkl", pickle.dumps((), 2))
            archive.writestr("a/data.pkl", pickle.dumps(with_call("os.system")
                                                        | {"state_dict": {}}, 2))
            archive.writestr("a/version", "3\n")
        path.write_bytes(file.getvalue())


def legacy_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            data = pickle.dumps(CALLS["os.system"](), 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def nested(kind: Any, levels: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        openings = {list: b"]", dict: b"}U\x01a", tuple: b""}[kind]
        closing = {list: b"a", dict: b"s", tuple: b"\x85"}[kind]
        content = openings * levels + b"N" + closing * levels
        data = b"\x80\x02}(U\x0astate_dict}U\x06config" + content + b"u."
        write_zip(path, data.replace(b"U\x0a", b"X\x0a\0\0\0").replace(
            b"U\x06", b"X\x06\0\0\0").replace(b"U\x01", b"X\x01\0\0\0"))
    return write


def write_zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


def holding_itself(path: Path) -> None:
    state: dict[str, Any] = dict(GOOD)
    state["config"] = {"a": state}
    torch.save(state, path)


def huge_tensor(path: Path) -> None:
    """Says that its 4 bytes are 2**50 numbers."""
    torch.save(GOOD, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            # the size, a tuple of one, in the arguments that rebuild the tensor
            archive.writestr(name, data.replace(b"K\x01\x85", b"\x8a\x07" + (1 << 50).to_bytes(
                7, "little") + b"\x85", 1) if name.endswith("data.pkl") else data)


def huge_string(path: Path) -> None:
    write_zip(path, b"\x80\x02X\xff\xff\xff\x7fabc.")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("report.txt", "hello")


def bad_zip_entry(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../../executed", "x")
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def npy(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array([CALLS["os.system"]()], dtype=object))


DEEP: dict[str, Callable[[Path], None]] = {
    "deep lists": nested(list, 100_000),
    "deep dicts": nested(dict, 100_000),
    "deep tuples": nested(tuple, 100_000),
    "200 levels": nested(list, 200),
    "holding itself": holding_itself,
}
OTHERS: dict[str, Callable[[Path], None]] = {
    "torchscript": torchscript,
    "legacy tar": legacy_tar,
    "huge tensor": huge_tensor,
    "huge string": huge_string,
    "other zip": other_zip,
    "bad zip entry": bad_zip_entry,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello\n"),
    "json": lambda path: path.write_text('{"name": "x", "trainer": {"epochs": 1}}'),
    "numbers": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "npy": npy,
}


def make(path: Path, container: str, name: str) -> None:
    if container == "other":
        OTHERS[name](path)
    else:
        (CONTAINERS | PICKLES)[container](path, name)


FILES = [*((container, name) for container in CONTAINERS for name in CALLS),
         *((container, "os.system") for container in PICKLES),
         *(("other", name) for name in OTHERS)]


def as_resume(path: Path) -> None:
    """train.py --resume"""
    ConfigParser.from_args(argparse.Namespace(resume=str(path), config=str(TOY / "config.json")))


def as_best(path: Path) -> None:
    """test.py --resume"""
    ConfigParser.from_args(argparse.Namespace(resume=str(path)), best_first=True)


def as_start(path: Path) -> None:
    """train.py --init-from"""
    start_from(nn.Linear(1, 1), SimpleNamespace(
        resume=None, run=SimpleNamespace(init_from=str(path), freeze=[])))


def as_old(path: Path) -> None:
    """python -m tools.convert_checkpoint"""
    convert(path, path.with_name("new.pth"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which a call would leave the marker."""
    monkeypatch.chdir(tmp_path)
    torch.save(GOOD | {"extra": CALLS["os.system"]()}, tmp_path / "inner.pth")
    return tmp_path


@pytest.mark.parametrize(("container", "name"), [
    *((container, name) for container in CONTAINERS for name in CALLS if name[:2] != "a "
      and name != "getattr"), *((container, "os.system") for container in PICKLES)])
def test_the_files_are_hostile(here: Path, container: str, name: str) -> None:
    """A reader that trusts them executes them: the tests below can fail."""
    make(here / "a.pth", container, name)
    if container in PICKLES:
        pickle.loads((here / "a.pth").read_bytes())
    else:
        torch.load(here / "a.pth", weights_only=False)
    assert (here / MARKER).exists()


@pytest.mark.parametrize("command", [as_resume, as_best, as_start, as_old])
@pytest.mark.parametrize(("container", "name"), FILES)
def test_hostile_file_is_refused_and_executes_nothing(here: Path, container: str, name: str,
                                                      command: Callable[[Path], None]) -> None:
    make(here / "a.pth", container, name)
    before = sorted(here.iterdir())
    with pytest.raises((CheckpointError, ConfigError)) as told:
        command(here / "a.pth")
    assert "a.pth" in str(told.value) and "\n" not in str(told.value)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("command", [as_resume, as_best, as_start, as_old])
@pytest.mark.parametrize("name", DEEP)
def test_structure_of_any_depth_is_read_or_refused(here: Path, name: str,
                                                   command: Callable[[Path], None]) -> None:
    DEEP[name](here / "a.pth")
    with contextlib.suppress(CheckpointError, ConfigError):
        command(here / "a.pth")


@pytest.mark.parametrize("name", CALLS)
def test_refusal_says_what_is_refused(here: Path, name: str) -> None:
    in_zip(here / "a.pth", name)
    with pytest.raises(CheckpointError, match="refused, for it holds more than tensors"):
        read_checkpoint(here / "a.pth")


@pytest.mark.slow
@pytest.mark.parametrize(("container", "name"), [
    ("zip", "eval"), ("protocol 0", "os.system"), ("other", "huge tensor")])
@pytest.mark.parametrize("arguments", [
    ["train.py", "--resume", "a.pth"], ["test.py", "--resume", "a.pth"],
    ["train.py", "-c", "config.json", "--init-from", "a.pth"],
    ["tools/convert_checkpoint.py", "a.pth", "new.pth"]], ids=str)
def test_commands_refuse_in_one_message(here: Path, config_dict: dict[str, Any], run_script: Any,
                                        container: str, name: str, arguments: list[str]) -> None:
    make(here / "a.pth", container, name)
    (here / "config.json").write_text(json.dumps(config_dict))
    result = run_script(*arguments, cwd=here, PYTHONPATH=str(ROOT))
    assert result.returncode in (1, 2)
    assert "error: " in result.stderr and "a.pth" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert not (here / MARKER).exists() and not (here / "saved").exists()
