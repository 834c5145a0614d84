"""The optimizers of a run: which parameters each trains, and when they have made a step."""

import functools
import inspect
import logging
from collections.abc import Hashable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from utils.config.type_and_args import named_parts
from utils.devices.parallel import unwrap_model
from utils.errors import ConfigError

logger = logging.getLogger(__name__)
LOSS = "loss."  # before the names of a loss's own parameters


def build_optimizers(config: Any, model: nn.Module, criterion: Any = None) -> Any:
    """The optimizer that the config names, or a dict of several, over what is not frozen.

    Args:
        criterion: its parameters, if it has any, are trained as well, named ``loss.NAME``.

    Raises:
        ConfigError: a pattern fits no parameter, or a parameter is in no optimizer or in two.
    """
    sections = named_parts(config["optimizer"])
    named = dict(unwrap_model(model).named_parameters())
    if isinstance(criterion, nn.Module):
        named |= {LOSS + name: one for name, one in criterion.named_parameters()}
    paths = {name: f"optimizer.{name}".rstrip(".") for name in sections}
    matching = {name: _matching(named, section.get("params", ["*"]), f"{paths[name]}.params")
                for name, section in sections.items()}
    owners = {key: [name for name in sections if key in matching[name]]
              for key, parameter in named.items() if parameter.requires_grad}
    for problem, keys in (
            ("in no optimizer", [key for key, names in owners.items() if not names]),
            ("in more than one", [key for key, names in owners.items() if len(names) > 1])):
        if keys:
            raise ConfigError(f"optimizer: each parameter that is trained has to be in the params "
                              f"of exactly one (or be frozen by freeze); {problem}: "
                              f"{', '.join(keys)}")
    built: dict[str, Any] = {}
    for name, section in sections.items():
        trained = {key: one for key, one in named.items()
                   if one.requires_grad and key in matching[name]}
        groups = _groups(trained, named, section.get("groups"), paths[name])
        built[name] = config.init_obj(paths[name], None, groups)
    return built.get("", built)


def _matching(named: dict[str, Any], patterns: list[str], path: str) -> set[str]:
    """The names that any of the patterns fits."""
    found: set[str] = set()
    for pattern in patterns:
        names = {name for name in named if fnmatchcase(name, pattern)}
        if not names and named:
            raise ConfigError(f"{path}: {pattern!r} names no parameter; there are: "
                              f"{', '.join(list(named)[:20])}")
        found |= names
    return found


def _groups(trained: dict[str, Any], named: dict[str, Any], groups: list[dict[str, Any]] | None,
            path: str) -> list[Any]:
    """Parameters for an optimizer: a list or, with ``groups``, what is in none of them, then each
    group. A parameter is in the first that fits."""
    if not groups:
        return list(trained.values())
    left = dict(trained)
    made = []
    for index, group in enumerate(groups):
        names = _matching(named, group["params"], f"{path}.groups.{index}.params")
        made.append({**group, "params": [left.pop(name) for name in list(left) if name in names]})
    if left:
        made.insert(0, {"params": list(left.values())})
    logger.info("%s: %s", path, "; ".join(
        f"{len(group['params'])} parameters" + "".join(
            f", {key} {value}" for key, value in group.items() if key != "params")
        for group in made))
    return made


def each(optimizers: Any) -> Iterator[tuple[str, Any]]:
    """(name, optimizer) of one (its name is empty), or of a dict or list of them."""
    if isinstance(optimizers, dict):
        yield from ((str(name), one) for name, one in optimizers.items())
    elif isinstance(optimizers, (list, tuple)):
        yield from ((str(index), one) for index, one in enumerate(optimizers))
    elif optimizers is not None:
        yield "", optimizers


def chosen(optimizers: Any, name: str | None) -> dict[str, Any]:
    """The optimizer of a name; None: all by their names.

    Raises:
        KeyError: there is none of that name.
    """
    if name is None and not isinstance(optimizers, (dict, list, tuple)):
        return {"": optimizers}
    named = dict(each(optimizers))
    if name is not None and name not in named:
        raise KeyError(f"there is no optimizer {name!r}; there are: {', '.join(named)}")
    return named if name is None else {name: named[name]}


def other_optimizers(attributes: dict[str, Any]) -> list[Any]:
    """The optimizers among a trainer's attributes, beside those of ``optimizer``."""
    known = {id(one) for _, one in each(attributes.get("optimizer"))}
    found = [one for value in attributes.values()
             for _, one in each(value if isinstance(value, (dict, list, tuple)) else [value])]
    return [one for one in found
            if isinstance(one, torch.optim.Optimizer) and id(one) not in known]


def learning_rates(optimizers: Any) -> dict[str, float]:
    """The lr of each optimizer: ``lr``, or ``lr_NAME`` of several. Where its parameter groups have
    different ones, those after the first are ``lr_1``, ..."""
    rates: dict[str, float] = {}
    for name, one in each(optimizers):
        groups = getattr(one, "param_groups", None) or []
        # as they were given: a schedule may make them equal for a while
        differ = len({group.get("initial_lr", group.get("lr")) for group in groups}) > 1
        for index, group in enumerate(groups if differ else groups[:1]):
            if "lr" not in group:
                continue
            label = "_".join(filter(None, ["lr", name, str(index or "")]))
            rates[label] = float(group["lr"])
    return rates


def warn_of_untrained(module: Any, label: str, optimizers: Any) -> None:
    """Tells of parameters that want gradients but that no optimizer has."""
    if not isinstance(module, nn.Module) or optimizers is None:
        return
    trained = {id(parameter) for _, one in each(optimizers)
               for group in getattr(one, "param_groups", ()) for parameter in group["params"]}
    left = [name for name, parameter in module.named_parameters()
            if parameter.requires_grad and id(parameter) not in trained]
    if left and trained:
        logger.warning("%s: no optimizer trains %s%s; give them to one, or freeze them", label,
                       ", ".join(left[:5]), f" and {len(left) - 5} more" if len(left) > 5 else "")


def wants_closure(optimizer: Any) -> bool:
    """Whether its ``step`` cannot do without a function that evaluates the loss again."""
    return _wants_closure(type(optimizer))  # type: ignore[arg-type]


@functools.cache
def _wants_closure(kind: Hashable) -> bool:
    parameters = inspect.signature(kind.step).parameters  # type: ignore[attr-defined]
    return "closure" in parameters and (
        parameters["closure"].default is inspect.Parameter.empty)


def missing_state(optimizer: Any) -> set[str]:
    """What an optimizer keeps of a parameter with its settings, but does not have of one that it
    has been trained: tried by a step on a parameter of zeros."""
    missing: set[str] = set()
    taken = inspect.signature(type(optimizer)).parameters
    for group in optimizer.param_groups:
        known = next((one for one in group["params"] if optimizer.state.get(one)), None)
        if known is not None:
            twin = nn.Parameter(torch.zeros_like(known))
            twin.grad = torch.zeros_like(known)
            settings = {key: value for key, value in group.items() if key in taken}
            stepped = type(optimizer)(**{**settings, "params": [twin]})
            if _try_step(stepped):
                missing |= stepped.state[twin].keys() - optimizer.state[known].keys()
    return missing


class StepWatch:
    """Notices which optimizers have made a step since it was last asked.

    An optimizer of torch tells by itself; any other is taken to step at each batch.

    Args:
        optimizers: one, or a dict or list of them.
        others: that do not count, but whose gradients may wait.
        num_steps: that were made before.

    Attributes:
        has_closure: whether one evaluates the loss several times in a step.
        is_waiting: whether one made no step at the last batch, so that its gradients wait for it.
            (One that steps is taken to be given new gradients after it.)
    """

    def __init__(self, optimizers: Any, others: Iterable[Any] = (), *, num_steps: int = 0) -> None:
        self.is_waiting = False
        self._first = num_steps
        self._silent = {name for name, one in each(optimizers)
                        if not hasattr(one, "register_step_post_hook")}
        self._names = {name for name, _ in each(optimizers)}
        self.has_closure = any(wants_closure(one) for _, one in each(optimizers))
        watched = {name: one for name, one in each(optimizers) if name not in self._silent}
        watched |= {f"other {index}": one for index, one in enumerate(others)}
        self._counts = dict.fromkeys(watched, 0)
        self._stepped: set[str] = set()
        for name, one in watched.items():
            one.register_step_post_hook(functools.partial(self._note, name))
        self._all = self._silent | watched.keys()

    def take(self, *, without_silent: bool = False) -> set[str]:
        """Names of those that have, since the last call.

        Args:
            without_silent: only those that told.
        """
        told, self._stepped = self._stepped, set()
        stepped = told | self._silent
        self.is_waiting = stepped != self._all
        return (told if without_silent else stepped) & self._names

    def _note(self, name: str, *_: Any) -> None:
        self._stepped.add(name)
        self._counts[name] += 1

    @property
    def is_idle(self) -> bool:
        """Whether there are optimizers of which none has made a step in this process."""
        return bool(self._counts) and not any(self._counts.values())

    @property
    def num_others(self) -> int:
        """Steps of those that do not count."""
        return sum(count for name, count in self._counts.items() if name not in self._names)

    @property
    def num_steps(self) -> int:
        """Steps of the run, of the optimizer that made most."""
        return self._first + max((count for name, count in self._counts.items()
                                  if name in self._names), default=0)


def _try_step(optimizer: Any) -> bool:
    """Whether it can make a step just so; not LBFGS, nor SparseAdam on dense gradients."""
    try:
        optimizer.step()
    except (TypeError, RuntimeError):
        return False
    return True
