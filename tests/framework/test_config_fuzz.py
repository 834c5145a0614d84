"""Whatever the config and the command line hold: a valid config, or one clear message."""

import argparse
import contextlib
import copy
import io
import json
import logging
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parse_config import ConfigParser
from tests.framework.conftest import TOY
from tests.framework.utils.config.modules import MODULES
from utils.config.merging import leaves
from utils.config.settings import SECTIONS, RunConfig, TrainerConfig
from utils.errors import ConfigError

EXAMPLE = json.loads((TOY / "config.json").read_text(encoding="utf-8"))
PATHS = sorted({path[:i] for path, _ in leaves(EXAMPLE) for i in range(1, len(path) + 1)})
WORDS = sorted({key for path in PATHS for key in path} | {*RunConfig.model_fields} | {*SECTIONS}
               | {*TrainerConfig.model_fields} | {
    "save_period", "name", "interval", "Adam", "StepLR", "SGD", "Tensor", "F", "nn", "os", "system",
    "BaseModel", "__init__", "__builtins__", "_private", "os.system", "torch.optim.Adam", "eval",
    "Accuracy", "F1Score", "min val_loss", "off", "..", "../x", "CON", "\0", "\ud800", "", "-1",
    "Optimizer", "LRScheduler", "LambdaLR", "partial", "DataLoader", "add_noise", "params"})
SCALARS = (st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS)
           | st.text(max_size=8) | st.sampled_from([10**400, -10**400, 1e308, 2**63, 0, -1, []]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=3), max_leaves=6)
KEYS = st.sampled_from(WORDS) | st.text(max_size=6)
CHANGES = st.lists(st.tuples(st.sampled_from(["set", "remove", "rename", "add"]),
                             st.sampled_from(PATHS), KEYS, VALUES), min_size=1, max_size=4)
CustomArgs = namedtuple("CustomArgs", "flags type target")
OPTIONS = [CustomArgs(["--lr"], float, ("optimizer", "args", "lr")),
           CustomArgs(["--bs", "--batch-size"], int, "data_loader;args;batch_size")]
TOKENS = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "~"]),
              st.sampled_from([".".join(path) for path in PATHS]),
              VALUES.map(json.dumps) | st.text(max_size=6)),
    st.builds("{}{}".format, st.sampled_from(["~", "+", ""]), st.sampled_from(
        [".".join(path) for path in PATHS])),
    st.builds("{}{}.{}={}".format, st.sampled_from(["", "+"]), KEYS, KEYS, st.text(max_size=6)),
    st.builds("--lr={}".format, st.floats() | st.text(max_size=4)),
    st.builds("--bs={}".format, st.integers() | st.text(max_size=4)),
    st.builds("--device={}".format, st.sampled_from(["cpu", "0", "2,3", "x", ""])),
    st.builds("--overfit={}".format, st.integers()),
    st.sampled_from(["--debug", "--dry-run", "--new-run", "--run-id=..", "--run-id=a", "--lr",
                     "--", "-", "=", "+", "~", ".", "..=", "=5", "--no-such", "-c", "\ud800"]),
    st.text(max_size=12))


def changed(config: dict[str, Any], changes: list[Any]) -> dict[str, Any]:
    for action, path, key, value in changes:
        *folders, last = path
        place: Any = config
        for folder in folders:
            place = place.get(folder) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            continue
        if action == "set":
            place[last] = value
        elif action == "add":
            place[key] = value
        elif last in place:
            old = place.pop(last)
            if action == "rename":
                place[key] = old
    return config


def outcome(*arguments: str) -> ConfigParser | str:
    """The config that the command line means, or the message that it is refused with."""
    parser = argparse.ArgumentParser(prog="train.py")
    for flag in ("--config", "--device", "--run-id", "--resume"):
        parser.add_argument(f"-{flag[2]}" if flag != "--run-id" else flag, flag)
    for flag in ("--debug", "--dry-run", "--new-run"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--overfit", type=int)
    errors = io.StringIO()
    with (mock.patch.object(sys, "argv", ["train.py", *arguments]), mock.patch.dict("os.environ"),
          contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO())):
        try:
            return ConfigParser.from_args(parser, OPTIONS, MODULES)
        except SystemExit as stop:
            assert stop.code == 2
    assert "error: " in errors.getvalue()
    return errors.getvalue()


@pytest.fixture(autouse=True, scope="module")
def no_log() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def often(count: int) -> Any:
    return settings(max_examples=count, deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@often(1000)
@given(changes=CHANGES)
def test_changed_example_is_valid_or_a_config_error(changes: Any) -> None:
    config = changed(copy.deepcopy(EXAMPLE), changes)
    try:
        parsed = ConfigParser(config, modules=MODULES)
    except ConfigError as error:
        assert "problem" in str(error)
    else:
        assert parsed["trainer"]["epochs"] == parsed.trainer.epochs >= 1


@pytest.mark.slow
@often(300)
@given(changes=CHANGES)
def test_changed_example_is_valid_or_a_config_error_without_modules(changes: Any) -> None:
    config = changed(copy.deepcopy(EXAMPLE), changes)
    try:
        parsed = ConfigParser(config)
    except ConfigError as error:
        assert "problem" in str(error)
    else:
        for key in config.keys() - {"trainer"}:
            assert json.dumps(parsed[key]) == json.dumps(config[key])


@pytest.mark.slow
@often(600)
@given(tokens=st.lists(TOKENS, min_size=1, max_size=4))
def test_any_command_line_gives_a_config_or_a_message(folder: Path, tokens: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(EXAMPLE))
    config = outcome("-c", str(path), *(token.replace("\0", "") for token in tokens))
    if isinstance(config, ConfigParser):
        ConfigParser(json.loads(json.dumps(config.config)), modules=MODULES)
    assert list(folder.iterdir()) == [path]


@pytest.mark.slow
@often(300)
@given(data=st.data())
def test_any_damaged_file_gives_a_config_or_a_message(folder: Path, data: Any) -> None:
    path = folder / "config.json"
    content = bytearray(json.dumps(EXAMPLE, indent=1).encode())
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(start + 20, len(content))))
    content[start:stop] = data.draw(st.binary(max_size=8) | st.sampled_from([
        b"//", b"/* */", b",", b"}", b"]", b"{", b"[", b'"', b"NaN", b"1e999", b"'", b"\\u0000",
        b"\\ud800", b"\\", b"\n", b"0" * 30, b"9" * 5000, b"[" * 2000]))
    path.write_bytes(content)
    config = outcome("-c", str(path))
    if isinstance(config, str):
        assert str(path) in config
