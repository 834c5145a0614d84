"""Nested configs: reading with their bases, merging, changing by path, comparing."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.config.json_file import read_json
from utils.config.misspellings import suggestion
from utils.errors import ConfigError


def read_config(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads a config; one with ``"base": "other.json"`` is merged into that one.

    Raises:
        ConfigError: a file cannot be read, is not an object, or bases go round in a circle.
    """
    config = read_json(path)
    file = path.resolve()
    if file in seen:
        chain = " -> ".join(part.name for part in (*seen, file))
        raise ConfigError(f"{path}: the bases go round in a circle: {chain}")
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected an object {{...}}, got a {type(config).__name__}")
    base = config.pop("base", None)
    if base is None:
        return config
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: base: expected the path of a config, got {base!r}")
    return deep_merge(read_config(path.parent / base, (*seen, file)), config)


def deep_merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A new dict: ``above`` wins, dicts in both are merged key by key.

    Where both have a ``type`` and the types differ, the arguments below belong to another thing
    and are dropped.
    """
    merged = copy.deepcopy(below)
    for key, value in above.items():
        mine = merged.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            changes_type = "type" in mine and value.get("type", mine["type"]) != mine["type"]
            merged[key] = copy.deepcopy(value) if changes_type else deep_merge(mine, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def leaves(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything that is not a dict or list with something in it."""
    if isinstance(config, (dict, list)) and config:
        items = config.items() if isinstance(config, dict) else enumerate(config)
        for key, value in items:
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, config


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each value that differs: ``trainer.epochs: 10 -> 20``."""
    before, after = dict(leaves(old)), dict(leaves(new))
    above = {path[:length] for path in (*before, *after) for length in range(len(path))}
    # an object that was or becomes empty is no value beside what it holds
    paths = [path for path in dict.fromkeys((*before, *after)) if path not in above]
    return [f"{'.'.join(path)}: {_text(before, path)} -> {_text(after, path)}"
            for path in paths
            if json.dumps(before.get(path, ...), default=str)
            != json.dumps(after.get(path, ...), default=str)]


def set_path(config: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Sets a value by its path; objects that are missing on the way are made.

    Raises:
        ConfigError: something on the way is neither an object nor a list.
    """
    place: Any = config
    for key in path[:-1]:
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = _child(place, key, path)
    if isinstance(place, list):
        index = _index(place, path[-1], path, adding=True)
        place[index:index + 1] = [value]
    elif isinstance(place, dict):
        place[path[-1]] = value
    else:
        raise ConfigError(f"{'.'.join(path)}: {'.'.join(path[:-1])} is {json.dumps(place)}, "
                          "which has no keys")


def apply_override(config: dict[str, Any], text: str, known: list[str]) -> None:
    """Applies ``key.path=value``, ``+key.path=value`` (may be new) or ``~key.path`` (removes).

    Args:
        known: paths that may be set although the config does not have them; so may the arguments
            of a section (``arch.args.num_classes``).

    Raises:
        ConfigError: no such form or no such path, with the paths that are near.
    """
    name, equals, value = text.partition("=")
    adding, removing = name.startswith("+"), name.startswith("~")
    name = name[adding or removing:]
    path = tuple(name.split("."))
    if not all(path) or bool(equals) == removing:
        raise ConfigError(f"expected key.path=value, +key.path=value or ~key.path, got {text!r}")
    may_set = adding or name in known or _is_argument(config, path)
    if not _exists(config, path) and (removing or not may_set):
        paths = {".".join(part[:i]) for part, _ in leaves(config) for i in range(1, len(part) + 1)}
        raise ConfigError(f"{name}: the config has no such key"
                          f"{suggestion(name, sorted(paths | set(known)))}"
                          + ("" if removing else f"; to add it, write +{text}"))
    if not removing:
        set_path(config, path, parse_value(value))
        return
    place = config
    for key in path[:-1]:
        place = _child(place, key, path)
    del place[_index(place, path[-1], path) if isinstance(place, list) else path[-1]]


def parse_value(text: str) -> Any:
    """JSON if it is any (``5``, ``true``, ``[1, 2]``, ``null``), else the string itself."""
    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(number)
        return float(number)

    try:
        return json.loads(text, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError):
        return text


def _is_argument(config: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Whether the path is an argument of a section; its name is checked by signature."""
    return len(path) > 2 and path[-2] == "args" and _exists(config, (*path[:-2], "type"))


def _exists(config: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if isinstance(config, list) and _is_index(key, len(config)):
            config = config[int(key)]
        elif isinstance(config, dict) and key in config:
            config = config[key]
        else:
            return False
    return True


def _child(place: Any, key: str, path: tuple[str, ...]) -> Any:
    if isinstance(place, list):
        return place[_index(place, key, path)]
    if not isinstance(place, dict):
        raise ConfigError(f"{'.'.join(path)}: {json.dumps(place, default=str)} has no key {key!r}")
    return place[key]


def _index(place: list[Any], key: str, path: tuple[str, ...], *, adding: bool = False) -> int:
    if not _is_index(key, len(place) + adding):
        raise ConfigError(f"{'.'.join(path)}: expected an index from 0 to "
                          f"{len(place) - 1 + adding}, got {key!r}")
    return int(key)


def _is_index(key: str, length: int) -> bool:
    return key.isdecimal() and len(key) < 10 and int(key) < length


def _text(values: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> str:
    return json.dumps(values[path], default=str) if path in values else "(absent)"
