"""Small things that every project needs: folders, JSON files, endless loaders."""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from utils.errors import ConfigError, RunError

MAX_JSON_BYTES = 1 << 20


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
            twice, or holds NaN or Infinity, which JSON does not know.
    """
    path = Path(fname)
    try:
        if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"{path}: expected a config of at most 1 MiB, got "
                              f"{path.stat().st_size / 2**20:.1f} MiB; is it another kind of file?")
        text = path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: expected a JSON file, got a folder") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: expected a JSON file in UTF-8, got {_reason(error)}") from error

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                places = [i for i in range(len(text)) if text.startswith(json.dumps(key), i)]
                raise ConfigError(f"{path}: the key {key!r} stands twice in one object (line "
                                  f"{text.count(chr(10), 0, places[-1]) + 1 if places else '?'}); "
                                  "keep one of them")
        return dict(pairs)

    def constant(name: str) -> Any:
        before = text[:text.find(name)]
        raise ConfigError(f"{path}: line {before.count(chr(10)) + 1}, column "
                          f"{len(before) - before.rfind(chr(10))}: JSON has no {name}; write a "
                          "finite number or null")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: "
                          f"{_json_hint(text, error)}") from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: expected JSON, got {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.object[error.start]:#04x} at position {error.start}; save it as UTF-8"
    if isinstance(error, RecursionError):
        return "too many levels of nesting"
    return getattr(error, "strerror", None) or str(error)


def _json_hint(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos:].lstrip()
    before = text[:error.pos].rstrip()
    if not text.strip():
        return "the file is empty"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments; delete this one"
    is_before_bracket = rest[:1] in ("}", "]", "") and before.endswith(",")
    if is_before_bracket or rest.startswith((",}", ",]")):
        return "a comma before a closing bracket; delete the comma"
    if not rest:
        return f"the file ends too early ({error.msg})"
    if rest.startswith("'"):
        return "JSON wants double quotes"
    return error.msg
