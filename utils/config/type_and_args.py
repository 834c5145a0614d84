"""Names and arguments of ``{"type", "args"}`` sections, checked by signature, building nothing.

A config travels with its checkpoint, so it is not trusted: a name is looked up in the given
modules only, never by a dotted path, and what it names must be of the kind that its section wants.
"""

import contextlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from utils.config.misspellings import misspelling_of, shown, suggestion
from utils.config.settings import Problems
from utils.errors import ConfigError, RunError

KINDS = {
    "arch": ("torch.nn", "Module"),
    "data_loader": ("torch.utils.data", "DataLoader"),
    "optimizer": ("torch.optim", "Optimizer"),
    "lr_scheduler": ("torch.optim.lr_scheduler", "LRScheduler"),
}
# what the code passes by itself, before the config's arguments
PASSED = {"optimizer": 1, "lr_scheduler": 1}
PASSED_TO_FUNCTIONS = {"loss": 2, "metrics": 2}
LISTS = ("loss", "metrics")
OPTIONAL = ("lr_scheduler", "metrics")
FURTHER_KEYS = {"lr_scheduler": ["interval"], "metrics": ["name"]}

Modules = str | ModuleType | tuple[str, ...]


def check_parts(config: dict[str, Any], modules: dict[str, Modules]) -> Problems:
    """Problems of the sections that are built from ``modules``."""
    problems: Problems = {}
    for name in modules:
        section = config.get(name)
        if section is None:
            if name not in OPTIONAL:
                problems[name] = "this section is missing"
            continue
        if name in LISTS and isinstance(section, list):
            parts = {f"{name}.{index}": item for index, item in enumerate(section)}
        else:
            parts = {name: section}
        for path, part in parts.items():
            problems |= check_part(path, part, modules[name], name)
        if name == "loss" and len(parts) != 1:
            problems["loss"] = (f"expected one loss, got {len(parts)}; combine several in one "
                                "function of model/loss.py")
        if name == "metrics":
            problems |= repeated_names({path: metric_name(part) for path, part in parts.items()})
    return problems


def check_part(path: str, section: Any, module: Modules, name: str) -> Problems:
    """Problems of one section: its shape, its name, its arguments."""
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
    if section.get("interval", "epoch") not in ("epoch", "step"):
        problems[f"{path}.interval"] = (
            f'expected "epoch" or "step", got {shown(section["interval"])}')
    if not isinstance(section.get("name", "-"), str) or section.get("name") == "":
        problems[f"{path}.name"] = (
            f"expected a string that is not empty, got {shown(section['name'])}")
    if "type" not in section:
        return problems | {f"{path}.type": "is missing"}
    try:
        target = resolve_name(section["type"], module, name)
        check_kind(target, name)
    except ConfigError as error:
        return problems | {f"{path}.type": str(error)}
    if isinstance(args, dict):
        problems |= check_arguments(target, args, f"{path}.args", name)
    return problems


def resolve_name(name: Any, modules: Modules, section: str = "") -> Callable[..., Any]:
    """The callable ``name`` of the first of ``modules`` that has it.

    Args:
        section: suggestions are of the kind that it builds.

    Raises:
        ConfigError: there is none, or the name is private, dotted, or no callable's.
    """
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"expected the plain name of a class or function, got {shown(name)}")
    searched = modules if isinstance(modules, tuple) else (modules,)
    for entry in searched:  # one that is not needed is not imported: that may take seconds
        found = getattr(_load(entry), name, None)
        if callable(found) and not inspect.ismodule(found):
            return found
    first = _load(searched[0])  # suggestions come from the first: the user's own
    place = getattr(first, "__name__", searched[0])
    if hasattr(first, name):
        raise ConfigError(f"expected a class or function, but {name!r} in {place} is a "
                          f"{type(getattr(first, name)).__name__}")
    names = [key for key in dir(first) if not key.startswith("_")
             and _is_kind(getattr(first, key), section)]
    hint = suggestion(name, names) or (
        f". It has: {', '.join(sorted(names))}" if len(names) < 15 else "")
    raise ConfigError(f"{place} has no {name!r}{hint}")


def check_kind(target: Any, name: str) -> None:
    """Refuses a class of another kind than the section builds (functions: see check_built)."""
    if not inspect.isclass(target):
        return
    kind = _kind(name)
    if kind is not None and not issubclass(target, kind):
        raise ConfigError(f"expected a {kind.__name__}, but {target.__name__} is none")
    forward = getattr(target, "forward", None)  # torch's modules have no abstract metaclass
    if target is kind or inspect.isabstract(target) or (
            getattr(forward, "__isabstractmethod__", False)):
        raise ConfigError(f"{target.__name__} is abstract; name one of its subclasses")
    if name in LISTS and not any("__call__" in vars(base) for base in target.__mro__):
        raise ConfigError("expected a function, or a class of objects that can be called, but "
                          f"{target.__name__} is neither")


def check_built(built: Any, name: str) -> None:
    """Refuses what a function of the config returned, if it is not what the section is for."""
    kind = _kind(name)
    if kind is not None and not isinstance(built, kind):
        raise ConfigError(f"{name}.type: expected what builds a {kind.__name__}, got a "
                          f"{type(built).__name__}")


def check_arguments(target: Callable[..., Any], args: dict[str, Any], path: str,
                    name: str) -> Problems:
    """Whether ``args`` bind to the signature; building nothing."""
    parameters = _parameters(target)
    if not parameters:  # or none to be read: known only when it is built
        return {}
    passed = PASSED.get(name, 0) or (
        0 if inspect.isclass(target) else PASSED_TO_FUNCTIONS.get(name, 0))
    for key in list(parameters)[:passed]:
        if parameters[key].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[key]
    named = _keywords(parameters)
    is_open = any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values())
    known = list(dict.fromkeys([*named, *(_inherited(target) if is_open else [])]))
    absent = [key for key in known if key not in args]
    label = getattr(target, "__name__", type(target).__name__)
    problems = {}
    for key, value in args.items():
        near = misspelling_of(key, absent if is_open else known)
        if key not in known and (near or not is_open):
            hint = f"; did you mean {near!r}?" if near else suggestion(key, known) or ";"
            problems[f"{path}.{key}"] = (f"{label} takes no such argument (with {shown(value)})"
                                         f"{hint} It takes: {', '.join(known) or 'none'}")
        elif isinstance(value, str) and key in named and _is_number(named[key]):
            problems[f"{path}.{key}"] = f"expected a number, got {shown(value)}"
    return problems | {f"{path}.{key}": f"is missing; {label} needs it"
                       for key, value in named.items()
                       if value.default is inspect.Parameter.empty and key not in args}


@contextlib.contextmanager
def refusals_told(name: str, section: dict[str, Any], target: Any) -> Iterator[None]:
    """Turns what torch or the framework refuses of a section into a mistake in the config.

    Args:
        target: what the section names, being built inside.

    Raises:
        ConfigError: an argument is refused by name, or a value by one of these libraries.
        RunError: a file or folder is missing.
    """
    args = section.get("args") or {}
    try:
        yield
    except (ConfigError, RunError):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        keys = [key for key, value in args.items() if isinstance(value, str) and error.filename
                and str(error.filename).startswith(value.rstrip("/"))]
        where = f"{name}.args.{keys[0]}" if keys else name
        raise RunError(f"{where}: {error.filename or error}: no such file or folder") from error
    except (TypeError, ValueError) as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused and refused[1] in args:
            key, known = refused[1], {*_keywords(_parameters(target)), *_inherited(target)}
            raise ConfigError(f"{name}.args.{key}: {section['type']} takes no such argument (with "
                              f"{shown(args[key])}){suggestion(key, sorted(known))}") from error
        if not _is_from_a_library(error):
            raise
        raise ConfigError(
            f"{name}.args: {section['type']} refuses {shown(args)}: {error}") from error


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


def _is_number(parameter: inspect.Parameter) -> bool:
    default = parameter.default
    return (isinstance(default, (int, float)) and not isinstance(default, bool)) or (
        parameter.annotation in (int, float, "int", "float"))


def _parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Of a call, by name; none for what is written in C without a signature."""
    try:
        return dict(inspect.signature(target).parameters)
    except (ValueError, TypeError):
        return {}


def _keywords(parameters: dict[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Those that can be given by name."""
    return {key: value for key, value in parameters.items() if key != "self" and value.kind in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)}


def _inherited(target: Any) -> list[str]:
    """Names that base classes' constructors take where ``**kwargs`` are handed up."""
    names: list[str] = []
    for base in getattr(target, "__mro__", ())[1:]:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = dict(inspect.signature(base.__init__).parameters)
        names += _keywords(parameters)
        if not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values()):
            break
    return list(dict.fromkeys(names))


def _is_from_a_library(error: BaseException) -> bool:
    """Whether the framework or torch raised it; another's code wants its traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.startswith(("base.", "torch.optim.", "torch.utils.data.", "torchmetrics."))


def _is_kind(target: Any, section: str) -> bool:
    try:
        check_kind(target, section)
    except ConfigError:
        return False
    return callable(target) and not inspect.ismodule(target)


def _kind(name: str) -> type | None:
    if name not in KINDS:
        return None
    module, attribute = KINDS[name]
    return getattr(importlib.import_module(module), attribute)


def _load(name: str | ModuleType) -> ModuleType | None:
    """Imports a module; one that is not installed has no names."""
    if not isinstance(name, str):
        return name
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise
