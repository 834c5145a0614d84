"""Names and arguments of ``{"type", "args"}`` sections, checked by signature, building nothing.

A config travels with its checkpoint, so it is not trusted: a name is looked up in the given
modules only, never by a dotted path, and what it names must be of the kind that its section wants.
"""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from utils.errors import ConfigError
from utils.near import suggestion
from utils.settings import (
    TOP_LEVEL,
    RunConfig,
    TrainerConfig,
    check_settings,
    misspelt_keys,
    shown,
)

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


def check_typed(config: dict[str, Any], *, strict: bool) -> list[str]:
    """Problems of the keys in ``utils.settings``; ``strict`` adds misspelt keys."""
    if not isinstance(config, dict):
        return [f"expected an object {{...}}, got {shown(config)}"]
    if "trainer" not in config:
        near = [key for key in config if suggestion(key, ["trainer"], misspelling=True)]
        problems = [f"trainer: this section is missing{suggestion('trainer', near)}"]
    else:
        problems = _check_trainer(config["trainer"])
    problems += check_settings(RunConfig, config)
    if strict:
        problems += misspelt_keys(config, TOP_LEVEL)
        if isinstance(config.get("trainer"), dict):
            problems += misspelt_keys(config["trainer"], _trainer_keys(config["trainer"]),
                                      "trainer.")
    return problems


def own_keys(config: dict[str, Any]) -> list[str]:
    """Paths of the keys at the top and in ``trainer`` that are the user's own."""
    trainer = config["trainer"]
    return [*(str(key) for key in config if key not in TOP_LEVEL),
            *(f"trainer.{key}" for key in trainer if key not in [
                *TrainerConfig.model_fields, "save_period"])]


def check_parts(config: dict[str, Any], modules: dict[str, Modules]) -> list[str]:
    """Problems of the sections that are built from ``modules``."""
    problems = []
    for name in modules:
        section = config.get(name)
        if section is None:
            if name not in OPTIONAL:
                problems.append(f"{name}: this section is missing")
            continue
        if name in LISTS and isinstance(section, list):
            parts = {f"{name}.{index}": item for index, item in enumerate(section)}
        elif name == "optimizer" and _is_several(section):
            parts = {f"{name}.{key}": item for key, item in section.items()}
        else:
            parts = {name: section}
        for path, part in parts.items():
            problems += check_part(path, part, modules[name], name)
        if name == "loss" and len(parts) != 1:
            problems.append(f"loss: expected one loss, got {len(parts)}; combine several in one "
                            "function of model/loss.py")
        if name == "metrics":
            problems += _check_names(parts)
    return problems


def check_part(path: str, section: Any, module: Modules, name: str) -> list[str]:
    """Problems of one section: its shape, its name, its arguments."""
    if isinstance(section, str) and name in LISTS:
        section = {"type": section}
    if not isinstance(section, dict):
        wanted = 'a name or {"type": ..., "args": {...}}' if name in LISTS else (
            '{"type": ..., "args": {...}}')
        return [f"{path}: expected {wanted}, got {shown(section)}"]
    known = ["type", "args", *FURTHER_KEYS.get(name, [])]
    problems = [f"{path}.{key}: unknown key (with {shown(section[key])})"
                f"{suggestion(key, known) or ';'} A section takes {', '.join(known)}"
                for key in section if key not in known]
    if "type" not in section:
        return [*problems, f"{path}.type: is missing"]
    if not isinstance(section.get("args", {}), dict):
        problems.append(f"{path}.args: expected an object of keyword arguments, got "
                        f"{shown(section['args'])}")
    if section.get("interval", "epoch") not in ("epoch", "step"):
        problems.append(f"{path}.interval: expected \"epoch\" or \"step\", got "
                        f"{shown(section['interval'])}")
    if not isinstance(section.get("name", "-"), str) or section.get("name") == "":
        problems.append(f"{path}.name: expected a string that is not empty, got "
                        f"{shown(section['name'])}")
    try:
        target = resolve_name(section["type"], module, f"{path}.type")
        check_kind(target, name, f"{path}.type")
    except ConfigError as error:
        return [*problems, str(error)]
    if problems:
        return problems
    return check_arguments(target, section.get("args", {}), f"{path}.args", name)


def resolve_name(name: Any, modules: Modules, path: str = "type") -> Callable[..., Any]:
    """The callable ``name`` of the first of ``modules`` that has it.

    Raises:
        ConfigError: there is none, or the name is private, dotted, or no callable's.
    """
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"{path}: expected the plain name of a class or function, got "
                          f"{shown(name)}")
    searched = modules if isinstance(modules, tuple) else (modules,)
    names: list[str] = []
    for entry in searched:
        module = _load(entry) if isinstance(entry, str) else entry
        found = getattr(module, name, None)
        if callable(found) and not inspect.ismodule(found):
            return found
        if module is not None and not names:  # suggestions come from the first: the user's own
            names = [key for key in dir(module)
                     if not key.startswith("_") and callable(getattr(module, key, None))]
    place = getattr(searched[0], "__name__", searched[0])
    if found is not None:
        raise ConfigError(f"{path}: expected a class or function, but {name!r} in {place} is a "
                          f"{type(found).__name__}")
    hint = suggestion(name, names) or (
        f". It has: {', '.join(sorted(names))}" if len(names) < 15 else "")
    raise ConfigError(f"{path}: {place} has no {name!r}{hint}")


def check_kind(target: Any, name: str, path: str) -> None:
    """Refuses a class of another kind than the section builds (functions: see check_built)."""
    if not inspect.isclass(target):
        return
    kind = _kind(name)
    if kind is not None and not issubclass(target, kind):
        raise ConfigError(f"{path}: expected a {kind.__name__}, but {target.__name__} is none")
    forward = getattr(target, "forward", None)  # torch's modules have no abstract metaclass
    if target is kind or inspect.isabstract(target) or (
            getattr(forward, "__isabstractmethod__", False)):
        raise ConfigError(f"{path}: {target.__name__} is abstract; name one of its subclasses")
    if name in LISTS and not any("__call__" in vars(base) for base in target.__mro__):
        raise ConfigError(f"{path}: expected a function, or a class of objects that can be called, "
                          f"but {target.__name__} is neither")


def check_built(built: Any, name: str) -> None:
    """Refuses what a function of the config returned, if it is not what the section is for."""
    kind = _kind(name)
    if kind is not None and not isinstance(built, kind):
        raise ConfigError(f"{name}.type: expected what builds a {kind.__name__}, got a "
                          f"{type(built).__name__}")


def check_arguments(target: Callable[..., Any], args: dict[str, Any], path: str,
                    name: str) -> list[str]:
    """Whether ``args`` bind to the signature; building nothing."""
    try:
        parameters = dict(inspect.signature(target).parameters)
    except (ValueError, TypeError):
        return []  # written in C without a signature: known only when it is built
    passed = PASSED.get(name, 0) or (
        0 if inspect.isclass(target) else PASSED_TO_FUNCTIONS.get(name, 0))
    for key in list(parameters)[:passed]:
        if parameters[key].kind is not inspect.Parameter.VAR_POSITIONAL:
            del parameters[key]
    named = {key: value for key, value in parameters.items() if value.kind in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)}
    is_open = any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values())
    known = [*named, *(_inherited(target) if is_open else [])]
    absent = [key for key in known if key not in args]
    label = getattr(target, "__name__", type(target).__name__)
    problems = []
    for key in args:
        if key in known:
            continue
        hint = suggestion(key, absent, misspelling=is_open)
        if hint or not is_open:
            problems.append(f"{path}.{key}: {label} takes no such argument (with "
                            f"{shown(args[key])}){hint or ';'} It takes: "
                            f"{', '.join(known) or 'none'}")
    problems += [f"{path}.{key}: is missing; {label} needs it" for key, value in named.items()
                 if value.default is inspect.Parameter.empty and key not in args]
    return problems


def refusal(error: Exception) -> str | None:
    """What to tell if a constructor of the framework's refused a value of the config.

    Returns:
        None for an error that somebody else's code has raised: that one wants its traceback.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    is_ours = module.startswith(("base.", "torch.optim.", "torch.utils.data.", "torchmetrics."))
    return str(error) if is_ours else None


def _check_trainer(trainer: Any) -> list[str]:
    """Like ``check_settings``; ``save_period`` is an older name of ``save_freq``."""
    if not isinstance(trainer, dict) or "save_period" not in trainer:
        return check_settings(TrainerConfig, trainer, "trainer.")
    period, freq = trainer["save_period"], trainer.get("save_freq", trainer["save_period"])
    problems = [text.replace("trainer.save_freq:", "trainer.save_period:", 1) for text in
                check_settings(TrainerConfig, trainer | {"save_freq": period}, "trainer.")]
    if period != freq:
        problems.append(f"trainer.save_period: {shown(period)}, but save_freq, its other name, is "
                        f"{shown(freq)}; keep one of them")
    return problems


def _trainer_keys(trainer: dict[str, Any]) -> list[str]:
    """The known keys of which one may be missing: ``save_freq`` has two names."""
    other = {"save_period": "save_freq", "save_freq": "save_period"}
    given = {other[key] for key in other if key in trainer}
    keys = [*TrainerConfig.model_fields, "save_period"]
    return [key for key in keys if key not in given or key in trainer]


def _check_names(parts: dict[str, Any]) -> list[str]:
    """Two metrics of one name: the second would overwrite the first."""
    names = ["loss", *(part.get("name", part.get("type")) if isinstance(part, dict) else part
                       for part in parts.values())]
    return [f"{path}: {shown(name)} is the name of two; give one another by "
            '{"type": ..., "args": {...}, "name": "..."}'
            for index, (path, name) in enumerate(zip(parts, names[1:], strict=True), 1)
            if isinstance(name, str) and name in names[:index]]


def _is_several(section: Any) -> bool:
    """Whether a section holds sections by name, like ``{"generator": {...}, ...}``."""
    return (isinstance(section, dict) and bool(section)
            and not {"type", "args"} & section.keys()
            and all(isinstance(part, dict) for part in section.values()))


def _inherited(target: Any) -> list[str]:
    """Names that base classes' constructors take where ``**kwargs`` are handed up."""
    names: list[str] = []
    for base in getattr(target, "__mro__", ())[1:]:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names += [value.name for value in parameters if value.name != "self" and value.kind in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)]
        if not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters):
            break
    return list(dict.fromkeys(names))


def _kind(name: str) -> type | None:
    if name not in KINDS:
        return None
    module, attribute = KINDS[name]
    return getattr(importlib.import_module(module), attribute)


def _load(name: str) -> ModuleType | None:
    """Imports a module; one that is not installed has no names."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise
