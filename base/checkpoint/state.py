"""What is saved: whatever a trainer holds that has a state, found by looking."""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.data import DataLoader

from utils.devices.parallel import unwrap_model
from utils.devices.sharding import class_name, is_divided, placed_like, placed_state
from utils.errors import CheckpointError, RunError
from utils.metric_tracker import MetricTracker, keep_what_it_saw

KeyPath = tuple[str, ...]  # keys from the outside of a state to something in it
RANDOM = "random"  # the part that is restored last
OF_PROCESS = ("train_metrics", "gradients", "updates", RANDOM)  # of each process on its own
CONTAINERS = (dict, OrderedDict, Counter, list, tuple, torch.Size)
PLAIN = (torch.Tensor, nn.Parameter, int, float, str, bool, bytes, complex, type(None),
         torch.dtype, torch.device)


@runtime_checkable
class Stateful(Protocol):
    """What changes during a run and matters after a restart."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Parts:
    """Several parts as one: a dict (or list) of optimizers, of networks, ..."""

    def __init__(self, parts: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> None:
        items = parts.items() if isinstance(parts, dict) else enumerate(parts)
        found = {str(key): as_part(part) for key, part in items}
        self.parts = {key: part for key, part in found.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        return collect(self.parts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self.parts, state)


class GeneratorPart:
    """A random generator of one's own as a part."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["state"])


def as_part(thing: Any) -> Any:
    """A part for what has a state, or a dict or list of such; None for anything else."""
    if isinstance(thing, torch.Generator):
        return GeneratorPart(thing)
    if isinstance(thing, (dict, list, tuple)):
        several = Parts(thing)
        return several if several.parts else None
    thing = keep_what_it_saw(unwrap_model(thing))
    is_left_out = isinstance(thing, (type, DataLoader))
    return thing if isinstance(thing, Stateful) and not is_left_out else None


def parts_of(owner: Any, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The parts among an object's attributes, by name.

    What is part of another part, like a submodule under a second name, is there once.

    Args:
        left_out: attributes that are not looked at.
    """
    parts: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in vars(owner).items():
        part = None if name in left_out else _unseen(as_part(value), seen)
        if part is not None:
            parts[name] = part
            seen.update(map(id, _members(part)))
    return parts


def is_of_process(name: str, part: Any) -> bool:
    """Whether a part is what a process saw or drew, which differs from process to process."""
    if isinstance(part, Parts):
        return all(is_of_process(key, one) for key, one in part.parts.items())
    return name in OF_PROCESS or isinstance(part, (GeneratorPart, MetricTracker)) or (
        hasattr(part, "compute") and hasattr(part, "update"))


def networks_in(parts: dict[str, Any]) -> dict[str, nn.Module]:
    """The networks among parts, those in dicts and lists as well."""
    networks: dict[str, nn.Module] = {}
    for name, part in parts.items():
        if isinstance(part, Parts):
            networks |= {f"{name}.{key}": one for key, one in networks_in(part.parts).items()}
        elif isinstance(part, nn.Module):
            networks[name] = part
    return networks


def collect(parts: dict[str, Any]) -> dict[str, Any]:
    """The states of all parts; what has none at the moment is not among them."""
    states = {name: part.state_dict() for name, part in parts.items()}
    return {name: state for name, state in states.items() if state}


def restore(parts: dict[str, Any], states: dict[str, Any]) -> None:
    """Gives each part its state.

    Raises:
        CheckpointError: parts without state, states without part, or a state that does not fit.
    """
    check_names(parts, states)
    for name, state in states.items():
        give(name, parts[name], state)


def give(name: str, part: Any, state: Any) -> None:
    """Gives one part its state.

    Raises:
        CheckpointError: it does not fit.
    """
    try:
        part.load_state_dict(placed_state(state, part))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the checkpoint's {name} does not fit this run's "
                              f"{type(part).__name__} ({_first_lines(error)})") from error


def check_names(parts: dict[str, Any], states: dict[str, Any]) -> None:
    """Whether each part has its state and each state its part.

    Raises:
        CheckpointError: lists both kinds; nothing is changed.
    """
    missing = sorted(name for name, part in parts.items()
                     if name not in states and part.state_dict())
    unknown = sorted(states.keys() - parts.keys())
    if missing or unknown:
        raise CheckpointError(
            "the checkpoint's parts are not those of this run: "
            f"missing in the checkpoint: {', '.join(missing) or 'none'}; "
            f"unknown to the run: {', '.join(unknown) or 'none'}. To take the weights only, start "
            "a run with --init-from")


def check_plain(content: Any, path: str = "") -> None:
    """Whether a checkpoint that holds this can be read back without executing anything.

    Raises:
        CheckpointError: names the place of what cannot.
    """
    if type(content) in PLAIN or type(content) in torch.serialization.get_safe_globals():
        return
    if type(content) not in CONTAINERS:
        raise CheckpointError(
            f"{path}: a {type(content).__module__}.{type(content).__qualname__} cannot be saved: "
            "a state_dict holds tensors, lists, dicts, numbers, strings and None only. Convert it")
    is_dict = isinstance(content, dict)
    for key, value in content.items() if is_dict else enumerate(content):
        if is_dict and type(key) not in PLAIN:
            check_plain(key, f"{path}: the key {key!r}")
        check_plain(value, f"{path}.{key}" if path else str(key))


def make_checkpoint(parts: dict[str, Any], *, config: dict[str, Any], epoch: int,
                    monitor_best: float) -> tuple[dict[str, Any], list[KeyPath]]:
    """What a checkpoint holds, and which values in it must be finite to be saved.

    Args:
        parts: of a trainer; its model and optimizer get the classic keys.
        epoch: finished ones.

    Raises:
        CheckpointError: a state holds what could not be read back.
        RunError: see ``check_finite``.
    """
    model = parts["model"]
    states = collect(parts)
    weights = states.pop("model", {})
    content = {
        "arch": class_name(model),
        "epoch": epoch,
        "state_dict": weights,
        "optimizer": states.pop("optimizer", None),
        "monitor_best": float(monitor_best),
        "config": json.loads(json.dumps(config, default=str)),
        "rank_parts": [{name: states.pop(name) for name, part in parts.items()
                        if name in states and is_of_process(name, part)}],
        "parts": states,
    }
    check_plain(content)
    finite = list(trained_values(model, weights, ("state_dict",)))
    for name, state in states.items():
        finite += trained_values(parts[name], state, ("parts", name))
    return content, finite


def trained_values(part: Any, state: dict[str, Any], path: KeyPath) -> Iterator[KeyPath]:
    """Where in a state the parameters stand that training changes, which must stay finite.

    Args:
        part: a network, or several; nothing else has any.
        state: of the part. path: of that in the whole.
    """
    if isinstance(part, Parts):
        for key, one in part.parts.items():
            yield from trained_values(one, state.get(key, {}), (*path, key))
    elif isinstance(part, nn.Module):
        for key, parameter in part.named_parameters():
            if key in state and parameter.requires_grad:
                yield (*path, key)
            elif parameter.requires_grad:  # under another name there
                check_finite(key, parameter.detach())


def check_finite(name: str, value: torch.Tensor) -> None:
    """Keeps broken weights from being saved over good ones. Waits for the device.

    Raises:
        RunError: something in ``value`` is NaN or infinite.
    """
    value = torch.view_as_real(value) if value.is_complex() else value
    # one pass without a copy; the least and the largest of NaN and anything are NaN
    if value.numel() and not all(end.isfinite() for end in torch.aminmax(value)):
        raise RunError(f"the weights are not finite any more ({name}): they are not saved, the "
                       "last checkpoint is from before. Try a lower lr, or clip the gradients")


class Gradients:
    """Gradients that were accumulated and wait for their optimizer's step, as a part.

    Args:
        modules: whose parameters they belong to, by name.
        is_waiting: whether there are any; gradients that were used up are of no use.
    """

    def __init__(self, modules: dict[str, nn.Module], *, is_waiting: bool) -> None:
        self.modules = modules
        self.is_waiting = is_waiting

    def state_dict(self) -> dict[str, Any]:
        if not self.is_waiting:
            return {}
        return {name: parameter.grad for name, parameter in self._parameters()
                if parameter.grad is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, parameter in self._parameters():
            if name in state and (is_divided(parameter) or not state[name].is_meta):
                parameter.grad = placed_like(state[name], parameter)

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, module in self.modules.items():
            for key, parameter in module.named_parameters():
                yield f"{name}.{key}", parameter


def _unseen(part: Any, seen: set[int]) -> Any:
    """The part without what is saved already, or None."""
    if isinstance(part, Parts):
        part.parts = {key: one for key, one in part.parts.items() if _unseen(one, seen) is not None}
        return part if part.parts else None
    return None if part is None or id(next(iter(_members(part)))) in seen else part


def _members(part: Any) -> Iterator[Any]:
    """A part and what is saved with it."""
    if isinstance(part, Parts):
        for one in part.parts.values():
            yield from _members(one)
    elif isinstance(part, nn.Module):
        yield from part.modules()
    else:
        yield part.generator if isinstance(part, GeneratorPart) else part


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3])[:300]
