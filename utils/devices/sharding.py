"""Weights divided between processes by torch's FSDP2, and whole again for a checkpoint."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from utils.devices.processes import is_main_process, num_processes
from utils.errors import ConfigError

# their running means are not to be rounded, and torch wants weights of the same type beside them
IN_FLOAT32 = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d,
              nn.InstanceNorm2d, nn.InstanceNorm3d)


def shard(model: nn.Module, device: torch.device, precision: str = "fp32") -> nn.Module:
    """Divides a model's weights between all processes, in place: each keeps a part of each weight,
    and gathers those of a block while it computes with them. All get the main process's weights.

    A block is what the model's method ``fsdp_units()`` returns (a list of modules); without one,
    each element of a ``ModuleList`` or ``Sequential`` that has layers of its own, the outermost of
    them. What is left, the model itself is a block of.

    Args:
        model: on the CPU, so that it need not fit into a device.
        precision: "bf16" gathers and computes in that, and sums gradients in float32. Layers with
            running means stay in float32.

    Raises:
        ConfigError: torch cannot divide it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # of the model itself as well, so that between two batches all weights are divided
    options: dict[str, Any] = {"mesh": init_device_mesh(device.type, (num_processes(),)),
                               "reshard_after_forward": True}
    units = getattr(model, "fsdp_units", lambda: list(_blocks(model)))()
    _check_units(model, units)
    weights = model.state_dict()
    try:
        if precision == "bf16":
            for layer in model.modules():
                if isinstance(layer, IN_FLOAT32) and layer not in units:
                    fully_shard(layer, **options)
            options["mp_policy"] = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for unit in units:
            fully_shard(unit, **options)
        fully_shard(model, **options)
    except (ValueError, NotImplementedError, RuntimeError, TypeError) as error:
        raise ConfigError(f"trainer.strategy: fsdp2 cannot divide this {class_name(model)}: "
                          f"{error}") from error
    model.load_state_dict(placed_state(weights, model))
    return model


def _check_units(model: nn.Module, units: list[nn.Module]) -> None:
    """Whether each weight is in one unit; one inside another has to come before it."""
    inside = {module for unit in units for module in unit.modules()}
    others = {weight for module in model.modules() if module not in inside
              for weight in module.parameters(recurse=False)}
    for index, unit in enumerate(units):
        before = [one for one in units[:index] if one not in {*unit.modules()}]
        shared = {*unit.parameters()} & others.union(*(one.parameters() for one in before))
        if shared:
            names = [name for name, weight in model.named_parameters() if weight in shared]
            raise ConfigError(
                f"trainer.strategy: fsdp2 divides this {class_name(model)} by blocks, and some of "
                f"them share weights ({', '.join(names[:5])}): let its method fsdp_units() return "
                "blocks that do not, inner ones first")


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and any(child.children()):
            yield child
        else:
            yield from _blocks(child)


def is_divided(tensor: Any) -> bool:
    """Whether this process has a part of a tensor only."""
    if num_processes() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's weights are divided."""
    if num_processes() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(one, FSDPModule) for one in model.modules())


def divided_in(model: nn.Module) -> torch.Tensor | None:
    """One of a model's weights that are divided, if there are any."""
    return next(filter(is_divided, model.parameters()), None)


def class_name(model: nn.Module) -> str:
    """Of the class that a module was made by; that of a divided one is derived from it."""
    if num_processes() == 1:
        return type(model).__name__
    from torch.distributed.fsdp import FSDPModule

    return next(one for one in type(model).__mro__ if not issubclass(one, FSDPModule)).__name__


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, on its device; of a divided one by all processes together."""
    return tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def part_of(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor this process has."""
    return tensor.to_local() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """A nested state with its divided tensors whole, in the main process's host memory; elsewhere
    they have no content. All processes have to call it with the same."""
    def gather(_: str, tensor: torch.Tensor) -> torch.Tensor:
        if not is_divided(tensor):
            return tensor
        tensor = whole(tensor)
        return tensor.cpu() if is_main_process() else torch.empty_like(tensor, device="meta")

    return with_tensors(state, gather)


def with_tensors(state: Any, function: Callable[[str, torch.Tensor], torch.Tensor],
                 path: str = "") -> Any:
    """A nested state with others in the place of its tensors.

    Args:
        function: gets the keys that lead to a tensor, "state_dict/conv.weight", and the tensor.
    """
    if isinstance(state, torch.Tensor):
        return function(path, state)
    if isinstance(state, dict):
        result = copy.copy(state)  # with its type, and the attributes that a state_dict has
        for key, value in state.items():
            result[key] = with_tensors(value, function, f"{path}/{key}" if path else str(key))
        return result
    if type(state) in (list, tuple):
        return type(state)(with_tensors(value, function, f"{path}/{index}")
                           for index, value in enumerate(state))
    return state


def new_like(tensor: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    """One of the shape and type of a tensor, not filled, that is divided as another one is; whole
    on the CPU without that."""
    if like is None:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    from torch.distributed.tensor import DTensor, empty

    assert isinstance(like, DTensor)
    return empty(tensor.shape, dtype=tensor.dtype, device_mesh=like.device_mesh,
                 placements=like.placements)


def placed_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor on the device of another one, and divided as that is; then the main process's
    counts, and all processes have to call it."""
    if not is_divided(like) or is_divided(tensor):
        return tensor.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    tensor = torch.empty_like(tensor, device=like.device) if tensor.is_meta else (
        tensor.to(like.device))
    return distribute_tensor(tensor, like.device_mesh, like.placements)


def placed_state(state: dict[str, Any], part: Any) -> dict[str, Any]:
    """The state of a network or an optimizer, with the tensors divided that are so in it."""
    if num_processes() == 1:
        return state
    if isinstance(part, torch.optim.Optimizer):
        parameters = [one for group in part.param_groups for one in group["params"]]
        states = {index: _placed_each(values, dict.fromkeys(values, parameters[index]))
                  for index, values in state["state"].items() if index < len(parameters)}
        return {**state, "state": {**state["state"], **states}}
    return _placed_each(state, part.state_dict()) if isinstance(part, nn.Module) else state


def _placed_each(values: dict[str, Any], likes: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Each tensor placed like another one, if that is divided and of its shape."""
    result = copy.copy(values)
    for key, value in values.items():
        like = likes.get(key)
        if isinstance(value, torch.Tensor) and like is not None and is_divided(like) and (
                value.shape == like.shape):
            result[key] = placed_like(value, like)
    return result


def check_all_divided(named: dict[str, torch.Tensor]) -> None:
    """Whether all weights are divided that are trained, by name.

    Raises:
        ConfigError: gradients of the others would not come together.
    """
    others = [name for name, one in named.items() if one.requires_grad and not is_divided(one)]
    if others:
        raise ConfigError("trainer.strategy: fsdp2 divides the weights of the model, but these are "
                          f"trained as well: {', '.join(others[:5])}. Make them a part of the "
                          "model, or take ddp")
