"""Arguments of a call, checked against its signature."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from utils.config.misspellings import misspelling_of, shown, suggestion
from utils.config.names import LISTS
from utils.config.settings import Problems


def left_to_code(target: Callable[..., Any], name: str, passed: list[str], *,
                 nested: bool) -> list[str]:
    """The parameters of a call that the code fills in, not the config.

    Args:
        name: of the section. passed: what ``MODULES`` declares for it.
    """
    parameters = parameters_of(target)
    first = [key for key, value in parameters.items()
             if value.kind is not inspect.Parameter.VAR_POSITIONAL]
    if name == "lr_scheduler":  # as a keyword, where there is one: ChainedScheduler has it last
        found = [key for key in ("optimizer",) if key in parameters]
        return found or ([] if nested else first[:1])
    if nested:
        return []
    num_passed = {"optimizer": 1}.get(name, 0) or (
        2 if name in LISTS and not inspect.isclass(target) else 0)
    return [*first[:num_passed], *passed]


def check_arguments(target: Callable[..., Any], args: dict[str, Any], path: str,
                    left: list[str], may_lack: Sequence[str] = ()) -> Problems:
    """Whether ``args`` bind to the signature; building nothing.

    Args:
        left: parameters that the code fills in; ``may_lack``: those that it fills in unless the
            config does.
    """
    parameters = parameters_of(target)
    if not parameters:  # or none to be read: known only when it is built
        return {}
    parameters = {key: value for key, value in parameters.items() if key not in left}
    named = keywords(parameters)
    is_open = any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values())
    known = list(dict.fromkeys([*named, *(inherited(target) if is_open else [])]))
    absent = [key for key in known if key not in args]
    label = getattr(target, "__name__", type(target).__name__)
    problems = {}
    for key, value in args.items():
        near = misspelling_of(key, absent if is_open else known)
        if key in left:
            problems[f"{path}.{key}"] = f"the code passes it to {label}; leave it out"
        elif key not in known and (near or not is_open):
            hint = f"; did you mean {near!r}?" if near else suggestion(key, known) or ";"
            problems[f"{path}.{key}"] = (f"{label} takes no such argument (with {shown(value)})"
                                         f"{hint} It takes: {', '.join(known) or 'none'}")
        elif isinstance(value, str) and key in named and _is_number(named[key]):
            problems[f"{path}.{key}"] = f"expected a number, got {shown(value)}"
    return problems | {f"{path}.{key}": f"is missing; {label} needs it"
                       for key, value in named.items()
                       if value.default is inspect.Parameter.empty and key not in args
                       and key not in may_lack}


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """Of a call, by name; none for what is written in C without a signature."""
    try:
        return dict(inspect.signature(target).parameters)
    except (ValueError, TypeError):
        return {}


def keywords(parameters: dict[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Those that can be given by name."""
    return {key: value for key, value in parameters.items() if key != "self" and value.kind in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)}


def _is_number(parameter: inspect.Parameter) -> bool:
    default = parameter.default
    return (isinstance(default, (int, float)) and not isinstance(default, bool)) or (
        parameter.annotation in (int, float, "int", "float"))


def inherited(target: Any) -> list[str]:
    """Names that base classes' constructors take where ``**kwargs`` are handed up."""
    names: list[str] = []
    for base in getattr(target, "__mro__", ())[1:]:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = dict(inspect.signature(base.__init__).parameters)
        names += keywords(parameters)
        if not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values()):
            break
    return list(dict.fromkeys(names))
