"""What a ``{"type", "args"}`` section names, and the sections among its arguments, built."""

import functools
from collections.abc import Callable
from typing import Any

from utils.config.arguments import left_to_code
from utils.config.names import Modules, passed_in, resolve_name
from utils.config.type_and_args import is_nested, refusals_told
from utils.errors import ConfigError


def section_at(config: dict[str, Any], path: str) -> dict[str, Any]:
    """The section of a name, or at a path like ``"optimizer.generator"``.

    Raises:
        ConfigError: there is none, or it is no ``{"type", "args"}``.
    """
    top, *keys = [path] if path in config else path.split(".")
    if top not in config:
        raise ConfigError(f"the config has no section or key {top!r}; it has: {', '.join(config)}")
    section = functools.reduce(lambda part, key: (
        part.get(key) if isinstance(part, dict) else None), keys, config[top])
    if not isinstance(section, dict) or "type" not in section:
        raise ConfigError(f'{path}: expected {{"type": ..., "args": {{...}}}}, got {section!r}')
    return section


def target_of(section: dict[str, Any], path: str, modules: Modules) -> Callable[..., Any]:
    """The class or function that a section names.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return resolve_name(section["type"], modules, path.split(".")[0])
    except ConfigError as error:
        raise ConfigError(f"{path}.type: {error}") from None


def built_arguments(args: dict[str, Any], path: str, modules: Modules,
                    passed: dict[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of a section, those that are sections themselves, or lists of such, built.

    Args:
        passed: what the code passes to the section, handed on to those in it that take it.
    """
    return {key: _built(value, f"{path}.{key}", modules, passed or {})
            for key, value in args.items()}


def _built(value: Any, path: str, modules: Modules, passed: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_built(item, f"{path}.{index}", modules, passed)
                for index, item in enumerate(value)]
    if not is_nested(value):
        return value
    target = target_of(value, path, modules)
    left = left_to_code(target, path.split(".")[0], passed_in(modules), nested=True)
    args = built_arguments(value.get("args") or {}, f"{path}.args", modules, passed)
    with refusals_told(path, value, target):
        return target(**{key: passed[key] for key in left if key in passed}, **args)
