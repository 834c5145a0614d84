"""What the names in a config stand for: looked up in given modules only, and of the right kind.

A config travels with its checkpoint, so it is not trusted: a dotted path is no name.
"""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from utils.config.misspellings import shown, suggestion
from utils.errors import ConfigError

LOADER = ("torch.utils.data", "DataLoader")
KINDS = {
    "arch": ("torch.nn", "Module"),
    "data_loader": LOADER,
    "valid_data_loader": LOADER,
    "test_data_loader": LOADER,
    "optimizer": ("torch.optim", "Optimizer"),
    "lr_scheduler": ("torch.optim.lr_scheduler", "LRScheduler"),
    "trainer.trackers": ("logger.trackers", "Tracker"),
}
MAY_BE_ABSENT = ("model.optim", "trainer.trackers")  # a project need not have any of its own
CALLED = ("loss", "metrics")  # sections of functions, or of objects that can be called
LISTS = (*CALLED, "trainer.trackers")  # what may be a list, or a name alone

# of a section: the module, or several to be searched in turn, and then a list of the arguments
# that the code passes in, so that the config need not have them
Modules = str | ModuleType | tuple[str | list[str], ...]


def searched_in(modules: Modules) -> tuple[str | ModuleType, ...]:
    """The modules of a section, in their order."""
    if not isinstance(modules, tuple):
        return (modules,)
    return tuple(entry for entry in modules if not isinstance(entry, list))


def passed_in(modules: Modules) -> list[str]:
    """The arguments of a section that the code passes in."""
    entries = modules if isinstance(modules, tuple) else ()
    return [name for entry in entries if isinstance(entry, list) for name in entry]


def resolve_name(name: Any, modules: Modules, section: str = "") -> Callable[..., Any]:
    """The callable ``name`` of the first of ``modules`` that has it.

    Args:
        section: suggestions are of the kind that it builds.

    Raises:
        ConfigError: there is none, or the name is private, dotted, or no callable's.
    """
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"expected the plain name of a class or function, got {shown(name)}")
    searched = searched_in(modules)
    if _load(searched[0]) is None and searched[0] not in MAY_BE_ABSENT:
        raise ConfigError(f"there is no module {searched[0]!r}, which MODULES of train.py names")
    for entry in searched:  # one that is not needed is not imported: that may take seconds
        found = getattr(_load(entry), name, None)
        if callable(found) and not inspect.ismodule(found):
            return found
    first, *others = [module for entry in searched if (module := _load(entry)) is not None]
    if hasattr(first, name):
        raise ConfigError(f"expected a class or function, but {name!r} in {first.__name__} is a "
                          f"{type(getattr(first, name)).__name__}")
    own = _names(first, section)  # what the user has defined is meant rather than a library's
    hint = suggestion(name, own) or suggestion(name, dict.fromkeys(
        key for module in others for key in _names(module, section))) or (
        f". It has: {', '.join(sorted(own))}" if 0 < len(own) < 15 else "")
    raise ConfigError(f"{first.__name__} has no {name!r}{hint}")


def check_kind(target: Any, section: str) -> None:
    """Refuses a class of another kind than the section builds (functions: see check_built)."""
    if not inspect.isclass(target):
        return
    kind = _kind(section)
    if kind is not None and not issubclass(target, kind):
        raise ConfigError(f"expected a {kind.__name__}, but {target.__name__} is none")
    forward = getattr(target, "forward", None)  # torch's modules have no abstract metaclass
    if target is kind or inspect.isabstract(target) or (
            getattr(forward, "__isabstractmethod__", False)):
        raise ConfigError(f"{target.__name__} is abstract; name one of its subclasses")
    if section == "metrics" and all(hasattr(target, name) for name in ("update", "compute")):
        return
    if section in CALLED and not any("__call__" in vars(base) for base in target.__mro__):
        raise ConfigError("expected a function, or a class of objects that can be called, but "
                          f"{target.__name__} is neither")


def check_built(built: Any, section: str, path: str) -> None:
    """Refuses what a function of the config returned, if it is not what the section is for."""
    kind = _kind(section)
    if kind is not None and not isinstance(built, kind):
        raise ConfigError(f"{path}.type: expected what builds a {kind.__name__}, got a "
                          f"{type(built).__name__}")


def _names(module: ModuleType, section: str) -> list[str]:
    return [key for key in dir(module) if not key.startswith("_")
            and _is_kind(getattr(module, key), section)]


def _is_kind(target: Any, section: str) -> bool:
    try:
        check_kind(target, section)
    except ConfigError:
        return False
    return callable(target) and not inspect.ismodule(target)


def _kind(section: str) -> type | None:
    if section not in KINDS:
        return None
    module, attribute = KINDS[section]
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
