"""Makes a checkpoint of the classic template readable, and one of several files one file.

``python -m tools.convert_checkpoint OLD NEW``. Such files hold a pickled ``ConfigParser``, which is
read without executing anything: the few names they contain stand for empty stand-ins here, and any
other name is refused.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from base.checkpoint.shards import read_shards
from base.checkpoint.weights import bare_keys
from utils.errors import CheckpointError, ConfigError, clean_exit
from utils.runs.checkpoint_file import read_checkpoint, write_checkpoint

NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class OldConfig(dict[str, Any]):
    """Stands in for the classic ConfigParser: takes its attributes, has no behaviour."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


def old_path(*parts: str) -> str:
    """Stands in for pathlib's classes."""
    return "/".join(part.rstrip("/") for part in parts)


class OldDtype:
    """Stands in for numpy's types of numbers: ``f8`` and the like, and nothing else."""

    def __init__(self, kind: str, *_: Any) -> None:
        if kind not in NUMBERS:
            raise ValueError(f"numpy type {kind}")
        self.kind = kind
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")


def old_scalar(dtype: OldDtype, data: bytes) -> int | float | bool:
    """Stands in for the maker of numpy's scalars."""
    return np.frombuffer(data, dtype.order + dtype.kind, count=1)[0].item()


STAND_INS = [
    (OldConfig, "parse_config.ConfigParser"),
    *((old_path, f"pathlib.{name}") for name in (
        "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")),
    *((old_path, f"pathlib._local.{name}") for name in ("PosixPath", "WindowsPath")),
    (old_scalar, "numpy.core.multiarray.scalar"),
    (old_scalar, "numpy._core.multiarray.scalar"),
    (OldDtype, "numpy.dtype"),
]


def convert(old: Path, new: Path) -> dict[str, Any]:
    """Writes ``new`` with plain types only; ``old`` is left as it is.

    Raises:
        CheckpointError: ``old`` cannot be read, or holds more than a classic checkpoint does.
        ConfigError: ``new`` exists already.
    """
    if new.exists():
        raise ConfigError(f"{new}: exists already; choose another name")
    checkpoint = read_shards(read_checkpoint(old, stand_ins=STAND_INS), old)
    try:
        state = plain(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{old}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{old}: refused, for it is nested too deeply") from error
    state["state_dict"] = bare_keys(state["state_dict"])
    state.pop("format", None)
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{new}: cannot be written ({error.strerror})") from error
    write_checkpoint(new, state)
    return state


def plain(value: Any) -> Any:
    """Nested content with plain types in place of the stand-ins.

    Raises:
        CheckpointError: a function or class is among it.
    """
    if isinstance(value, OldConfig):
        # newer classics call it _config, older ones config
        return plain(value.get("_config", value.get("config", {})))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if callable(value) or isinstance(value, OldDtype):
        name = getattr(value, "__name__", type(value).__name__)
        raise CheckpointError(
            f"refused, for it holds more than a classic checkpoint does ({name})")
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint of the classic template, or one of several files, to one "
                    "that any of these projects reads; nothing in it is executed.")
    parser.add_argument("old", type=Path, help="checkpoint to read")
    parser.add_argument("new", type=Path, help="checkpoint to write")
    arguments = parser.parse_args()
    with clean_exit():
        convert(arguments.old, arguments.new)
        print(f"written: {arguments.new}")
