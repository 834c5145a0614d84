"""``{"type", "args"}`` sections of a config: checked by signature, building nothing."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from utils.config.arguments import (
    check_arguments,
    inherited,
    keywords,
    left_to_code,
    parameters_of,
)
from utils.config.misspellings import shown, suggestion
from utils.config.names import LISTS, Modules, check_kind, passed_in, resolve_name
from utils.config.settings import Problems
from utils.errors import ConfigError, RunError

# sections that may be several by name: {"day": {"type": ...}, "night": {"type": ...}}
SEVERAL = ("optimizer", "lr_scheduler", "valid_data_loader")
OPTIONAL = ("lr_scheduler", "metrics", "valid_data_loader", "test_data_loader", "trainer.trackers")
FILLED_IN = {"lr_scheduler": ("total_steps",)}  # unless the config has it: the run knows it
FURTHER_KEYS = {"lr_scheduler": ["interval"], "metrics": ["name", "classes"],
                "optimizer": ["params", "groups"]}


def named_parts(section: Any) -> dict[str, Any]:
    """The sections in one that may be several by name; a single one has the name ""."""
    is_several = isinstance(section, dict) and section and all(
        isinstance(part, dict) for part in section.values()) and (
        not {"type", "args"} & section.keys())
    return section if is_several else {"": section}


def value_at(config: dict[str, Any], path: str) -> Any:
    """What the config has at a path like ``trainer.trackers``; None for nothing."""
    value: Any = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def is_nested(value: Any) -> bool:
    """Whether an argument is a section itself, and is built before it is passed on."""
    return isinstance(value, dict) and "type" in value and value.keys() <= {"type", "args"}


def check_parts(config: dict[str, Any], modules: dict[str, Modules]) -> Problems:
    """Problems of the sections that are built from ``modules``."""
    problems: Problems = {}
    for name in modules:
        section = value_at(config, name)
        if section is None:
            if name not in OPTIONAL:
                problems[name] = "this section is missing"
            continue
        if name in LISTS and isinstance(section, list):
            parts = {f"{name}.{index}": item for index, item in enumerate(section)}
        elif name in SEVERAL:
            parts = {f"{name}.{key}".rstrip("."): part
                     for key, part in named_parts(section).items()}
        else:
            parts = {name: section}
        for path, part in parts.items():
            problems |= check_part(path, part, modules[name], name)
        if name == "loss" and len(parts) != 1:
            problems["loss"] = (f"expected one loss, got {len(parts)}; combine several in one "
                                "function of model/loss.py")
        if name == "metrics":
            problems |= repeated_names({path: metric_name(part) for path, part in parts.items()})
    return problems | check_names(config)


def check_names(config: dict[str, Any]) -> Problems:
    """Whether several optimizers, schedulers, validation loaders have names that go together."""
    problems: Problems = {}
    for name in SEVERAL:
        for key in named_parts(config.get(name)):
            if key and not (isinstance(key, str) and key.isidentifier()):
                problems[f"{name}.{key}"] = "expected a name like generator: letters, digits and _"
    optimizers, schedulers = (named_parts(config.get(name)) for name in SEVERAL[:2])
    for key, part in optimizers.items():
        if key and "params" not in part:
            problems[f"optimizer.{key}.params"] = (
                'is missing; of several optimizers each says what it trains, like ["encoder.*"]')
    for key in schedulers if config.get("lr_scheduler") else ():
        if key not in optimizers:
            problems[f"lr_scheduler.{key}".rstrip(".")] = (
                f"expected a section for an optimizer by its name, {', '.join(optimizers)}"
                if "" not in optimizers else 'there is one optimizer: expected {"type": ...}')
    return problems


def check_part(path: str, section: Any, module: Modules, name: str, *,
               nested: bool = False) -> Problems:
    """Problems of one section: its shape, its name, its arguments and the sections among them.

    Args:
        nested: in the arguments of another one, where it may be of any kind.
    """
    if isinstance(section, str) and name in LISTS:
        section = {"type": section}
    if not isinstance(section, dict):
        a_name = "a name or " if name in LISTS else ""
        return {path: f'expected {a_name}{{"type": ..., "args": {{...}}}}, got {shown(section)}'}
    known = ["type", "args", *FURTHER_KEYS.get(name, [])]
    problems = {
        f"{path}.{key}": f"unknown key (with {shown(section[key])}){suggestion(key, known) or ';'}"
                         f" A section takes {', '.join(known)}"
        for key in section if key not in known}
    args = section.get("args", {})
    if not isinstance(args, dict):
        problems[f"{path}.args"] = f"expected an object of keyword arguments, got {shown(args)}"
    problems |= check_further_keys(path, section)
    if "type" not in section:
        return problems | {f"{path}.type": "is missing"}
    try:
        target = resolve_name(section["type"], module, "" if nested else name)
        if not nested:
            check_kind(target, name)
    except ConfigError as error:
        return problems | {f"{path}.type": str(error)}
    if not isinstance(args, dict):
        return problems
    problems |= check_arguments(
        target, args, f"{path}.args", left_to_code(target, name, passed_in(module), nested=nested),
        may_lack=() if nested else FILLED_IN.get(name, ()))
    problems |= check_groups(f"{path}.groups", section.get("groups"), target)
    for key, value in args.items():
        inner = {f"{path}.args.{key}.{index}": item for index, item in enumerate(value)} if (
            isinstance(value, list)) else {f"{path}.args.{key}": value}
        for inner_path, item in inner.items():
            if is_nested(item):
                problems |= check_part(inner_path, item, module, name, nested=True)
    return problems


def check_further_keys(path: str, section: dict[str, Any]) -> Problems:
    """Problems of what stands beside ``type`` and ``args``."""
    problems: Problems = {}
    if section.get("interval", "epoch") not in ("epoch", "step"):
        problems[f"{path}.interval"] = (
            f'expected "epoch" or "step", got {shown(section["interval"])}')
    if not isinstance(section.get("name", "-"), str) or section.get("name") == "":
        problems[f"{path}.name"] = (
            f"expected a string that is not empty, got {shown(section['name'])}")
    for key, what in (("classes", "names, one for each entry of the metric"),
                      ("params", "patterns of parameter names")):
        if key in section and not _is_strings(section[key]):
            problems[f"{path}.{key}"] = f"expected a list of {what}, got {shown(section[key])}"
    return problems


def check_groups(path: str, groups: Any, target: Callable[..., Any]) -> Problems:
    """Problems of an optimizer's parameter groups: each has patterns and settings of its own."""
    if groups is None:
        return {}
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return {path: 'expected a list like [{"params": ["*.bias"], "weight_decay": 0}], got '
                      f"{shown(groups)}"}
    problems: Problems = {}
    known = [key for key in keywords(parameters_of(target)) if key != "params"]
    for index, group in enumerate(groups):
        if not _is_strings(group.get("params")):
            problems[f"{path}.{index}.params"] = ("expected a list of patterns of parameter names, "
                                                  f"got {shown(group.get('params'))}")
        for key in group.keys() - {"params"}:
            if known and key not in known:
                problems[f"{path}.{index}.{key}"] = (
                    f"{target.__name__} has no such setting{suggestion(key, known) or ';'} "
                    f"It has: {', '.join(known)}")
    return problems


@contextlib.contextmanager
def refusals_told(path: str, section: dict[str, Any], target: Any) -> Iterator[None]:
    """Turns what torch or the framework refuses of a section into a mistake in the config.

    Args:
        target: what the section names, being built inside.

    Raises:
        ConfigError: an argument is refused by name, or a value by one of these libraries.
        RunError: a file, a folder or a package is missing.
    """
    args = section.get("args") or {}
    try:
        yield
    except (ConfigError, RunError):
        raise
    except ModuleNotFoundError as error:
        raise RunError(f"{path}: {section['type']} needs a package that is not installed: "
                       f"{error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        keys = [key for key, value in args.items() if isinstance(value, str) and error.filename
                and str(error.filename).startswith(value.rstrip("/"))]
        where = f"{path}.args.{keys[0]}" if keys else path
        raise RunError(f"{where}: {error.filename or error}: no such file or folder") from error
    except (TypeError, ValueError) as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused and refused[1] in args:
            key, known = refused[1], {*keywords(parameters_of(target)), *inherited(target)}
            raise ConfigError(f"{path}.args.{key}: {section['type']} takes no such argument (with "
                              f"{shown(args[key])}){suggestion(key, sorted(known))}") from error
        if not _is_from_a_library(error):
            raise
        raise ConfigError(
            f"{path}.args: {section['type']} refuses {shown(args)}: {error}") from error


def repeated_names(names: dict[str, Any]) -> Problems:
    """Two metrics of one name: the second would overwrite the first."""
    seen = ["loss"]
    problems = {}
    for path, name in names.items():
        if name in seen:
            problems[path] = (f"{shown(name)} is the name of two; give one another by "
                              '{"type": ..., "args": {...}, "name": "..."}')
        seen.append(name)
    return problems


def metric_name(part: Any) -> Any:
    """What a metric of the config is called in logs."""
    return part.get("name", part.get("type")) if isinstance(part, dict) else part


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _is_from_a_library(error: BaseException) -> bool:
    """Whether the framework or torch raised it; another's code wants its traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.startswith(("base.", "torch.optim.", "torch.utils.data.", "torch.nn.",
                              "torchmetrics."))
