"""JSON files: read with a clear message for what is wrong, replaced in one step."""

import json
import math
from pathlib import Path
from typing import Any

from utils.errors import ConfigError
from utils.files import replaced

MAX_BYTES = 1 << 20
ZIP_MARK, PICKLE_MARK = b"PK\x03\x04", b"\x80"  # how checkpoints begin


def write_json(content: Any, fname: str | Path) -> None:
    """Writes ``content`` with an indent of 4 spaces, keys in their order."""
    Path(fname).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def replace_json(content: Any, path: Path) -> None:
    """Writes like ``write_json``, but a reader sees the old file or the whole new one.

    Raises:
        RunError: it cannot be written.
    """
    with replaced(path) as temporary:
        write_json(content, temporary)


def read_json(fname: str | Path) -> dict[str, Any]:
    """Reads a JSON file, keys in their order.

    Raises:
        ConfigError: it cannot be read, is no JSON (the message has line and column), has a key
            twice, holds NaN, Infinity or a number beyond float64, or is nested too deeply.
    """
    text = _read_text(Path(fname))
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_float=_finite,
                             parse_constant=_finite)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{fname}: line {error.lineno}, column {error.colno}: "
                          f"{error.msg if text.strip() else 'the file is empty'}") from error
    except ValueError as error:
        raise ConfigError(f"{fname}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{fname}: too many levels of nesting") from error
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} stands twice in one object; keep one of them")
        content[key] = value
    return content


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is no finite number; write one, or null")
    return float(number)


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: expected a JSON file, got a folder") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        raise ConfigError(f"{path}: cannot be read "
                          f"({getattr(error, 'strerror', None) or error})") from error
    if content.startswith((ZIP_MARK, PICKLE_MARK)):
        raise ConfigError(f"{path}: expected a config (JSON), got a checkpoint; to go on with it, "
                          f"use --resume {path}")
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: expected a config of at most {MAX_BYTES >> 20} MiB, got a "
                          "larger file; is it another kind of file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected a JSON file in UTF-8, got byte "
                          f"{content[error.start]:#04x} at position {error.start}; save it as "
                          "UTF-8") from error
