"""Small things that every project needs: folders, JSON files, endless loaders."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from utils.errors import ConfigError, RunError

MAX_JSON_BYTES = 1 << 20
MAX_LEVELS = 50
STRING = r'"(?:[^"\\]|\\.)*"'


def ensure_dir(dirname: str | Path) -> None:
    """Makes the folder and its parents; one that exists is left alone."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def inf_loop(data_loader: Iterable[Any]) -> Iterator[Any]:
    """Repeats the loader for ever: each pass is a new ``iter(data_loader)``.

    Raises:
        ValueError: a pass had no batch, so that the loop would never yield.
    """
    for loader in repeat(data_loader):
        is_empty = True
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty:
            raise ValueError("inf_loop needs a loader with at least one batch, got an empty one")


def write_json(content: Any, fname: str | Path) -> None:
    """Writes ``content`` with an indent of 4 spaces, keys in their order."""
    Path(fname).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def replace_json(content: Any, path: Path) -> None:
    """Writes like ``write_json``, but a reader sees the old file or the whole new one.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_json(content, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_json(fname: str | Path) -> dict[str, Any]:
    """Reads a JSON file, keys in their order.

    Raises:
        ConfigError: it cannot be read, is no JSON (the message has line and column), has a key
            twice, holds NaN, Infinity or a number beyond float64, or is nested too deeply.
    """
    text = _read_text(Path(fname))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise ConfigError(_duplicate(text))
        return content

    def finite(number: str) -> float:
        if math.isinf(float(number)):
            raise ConfigError(f"{_place(text, re.escape(number))}: {number} is too large a number")
        return float(number)

    def constant(name: str) -> Any:
        raise ConfigError(f"{_place(text, name)}: JSON has no {name}; write a finite number or "
                          "null")

    try:
        content = json.loads(text, object_pairs_hook=unique, parse_float=finite,
                             parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{fname}: line {error.lineno}, column {error.colno}: "
                          f"{_json_hint(text, error)}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{fname}: {_reason(error)}") from error
    if is_deep(content):
        raise ConfigError(f"{fname}: more than {MAX_LEVELS} levels of nesting")
    return content


def is_deep(content: Any) -> bool:
    """Whether dicts and lists are nested in more than ``MAX_LEVELS`` levels."""
    level = [content]
    for _ in range(MAX_LEVELS):
        level = [child for item in level if isinstance(item, (dict, list))
                 for child in (item.values() if isinstance(item, dict) else item)]
    return any(isinstance(item, (dict, list)) for item in level)


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ConfigError(f"{path}: expected a config of at most 1 MiB, got "
                              f"{max(path.stat().st_size / 2**20, 1):.1f} MiB or more; is it "
                              "another kind of file?")
        return content.decode("utf-8-sig")
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: expected a JSON file, got a folder") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({_reason(error)})") from error
    except ValueError as error:  # bytes that are no UTF-8, or a path with a NUL character
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: expected a JSON file in UTF-8, got {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.object[error.start]:#04x} at position {error.start}; save it as UTF-8"
    if isinstance(error, RecursionError):
        return "too many levels of nesting"
    return getattr(error, "strerror", None) or str(error)


def _place(text: str, pattern: str) -> str:
    """Line and column of the first match outside strings."""
    match = next((match for match in re.finditer(rf"{STRING}|({pattern})", text) if match[1]), None)
    before = text[:match.start() if match else 0]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _duplicate(text: str) -> str:
    """Where the first key is that stands twice in its object."""
    objects: list[set[str]] = []
    for match in re.finditer(rf"({STRING})(\s*:)?|[{{}}]", text):
        if match[0] == "{":
            objects.append(set())
        elif match[0] == "}":
            objects.pop()
        elif match[2]:
            key = json.loads(match[1])
            if key in objects[-1]:
                line = text.count("\n", 0, match.start()) + 1
                column = match.start() - text.rfind("\n", 0, match.start())
                return (f"line {line}, column {column}: the key {key!r} stands twice in one "
                        "object; keep one of them")
            objects[-1].add(key)
    return "a key stands twice in one object; keep one of them"


def _json_hint(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos:].lstrip()
    if not text.strip():
        return "the file is empty"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments; delete this one"
    is_after_comma = rest[:1] in ("}", "]") and text[:error.pos].rstrip().endswith(",")
    if is_after_comma or re.match(r",\s*[}\]]", rest):
        return "a comma before a closing bracket; delete the comma"
    if not rest or error.msg.startswith("Unterminated string"):
        return f"the file ends too early ({error.msg})"
    if rest.startswith("'"):
        return "JSON wants double quotes"
    return error.msg
