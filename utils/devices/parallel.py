"""One model on one or several devices, and the bare model inside its wrappers."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from utils.devices.device import prepare_device
from utils.devices.processes import num_processes
from utils.devices.sharding import shard
from utils.errors import ConfigError, RunError


def place_model(model: nn.Module, device: torch.device, device_ids: list[int], *,
                channels_last: bool = False, compiled: bool | dict[str, Any] = False,
                strategy: str = "auto", find_unused: bool = False,
                precision: str = "fp32") -> nn.Module:
    """Moves the model. In one process, more than one id wraps it in DataParallel, unless somebody
    already has. Several processes on GPUs wrap it in DistributedDataParallel, which sends gradients
    while others are computed, in an order that a resume changes; on the CPU and where all is to be
    deterministic they are sent before the step (see utils/devices/reduction.py).

    Args:
        channels_last: keep convolutions' weights in channels-last layout; not those of fsdp2.
        compiled: let torch.compile make it fast, perhaps with options; its first batches take long.
        strategy: "auto" is as said above; "single", "dp" or "ddp" insist. "fsdp2" divides the
            weights between the processes (see utils/devices/sharding.py).
        find_unused: let DistributedDataParallel expect parameters without gradients in a step.
        precision: of a model whose weights are divided.

    Raises:
        ConfigError: torch.compile does not take the options, or the strategy is not to be had.
    """
    check_strategy(strategy, device_ids, precision)
    if strategy == "fsdp2":
        model = shard(model, device, precision)
    else:
        model = model.to(device)
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
    if compiled:
        options = compiled if isinstance(compiled, dict) else {}
        try:
            model = cast(nn.Module, torch.compile(model, **options))
        except (TypeError, RuntimeError, ValueError) as error:
            raise ConfigError(f"trainer.compile: torch.compile refuses {options}: {error}"
                              ) from error
    if num_processes() > 1 and strategy != "fsdp2":
        is_exact = device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        if (strategy == "ddp" or not is_exact) and any(
                one.requires_grad for one in model.parameters()):
            wrapper = nn.parallel.DistributedDataParallel
            taken = inspect.signature(wrapper).parameters  # the former name is from torch 2.13 on
            name = next(one for one in ("forward_sync_buffers", "broadcast_buffers")
                        if one in taken)
            off: dict[str, Any] = {name: False}  # the trainer does so for all networks
            model = wrapper(model, device_ids=device_ids or None,
                            find_unused_parameters=find_unused, **off)
    elif len(device_ids) > 1 and strategy != "single" and not isinstance(model, nn.DataParallel):
        model = nn.DataParallel(model, device_ids=device_ids)
    return model


def check_strategy(strategy: str, device_ids: list[int], precision: str) -> None:
    """Whether the model can be placed so, before there is one.

    Raises:
        ConfigError: the strategy is not to be had here.
    """
    if strategy == "fsdp2" and precision == "fp16":
        raise ConfigError("trainer.precision: fp16 does not go with the strategy fsdp2: each "
                          "process would scale its part by itself. Take bf16")
    count = num_processes()
    if strategy in ("ddp", "fsdp2") and count == 1:
        raise ConfigError(f"trainer.strategy: {strategy} is of several processes: start them by "
                          "torchrun, or set it to auto")
    if strategy == "dp" and count == 1 and len(device_ids) < 2:
        raise ConfigError("trainer.strategy: dp is of several GPUs, and this run uses "
                          f"{len(device_ids) or 'none'}: set n_gpu, or strategy to auto")
    if strategy in ("single", "dp") and count > 1:
        raise ConfigError(f"trainer.strategy: {strategy} is of one process, but there are {count}: "
                          "set auto, ddp or fsdp2")


def without_processes(model: Any) -> Any:
    """The model as it is in this process alone, for validation: nothing waits for others."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@contextlib.contextmanager
def compiler_told(is_compiled: Any) -> Iterator[None]:
    """Turns what torch's compiler fails with into one message.

    Raises:
        RunError: it failed.
    """
    try:
        yield
    except Exception as error:
        if is_compiled and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            cause = str(error).strip().splitlines() or [""]
            raise RunError(f"trainer.compile: the compiler failed ({type(error).__name__}: "
                           f"{cause[0][:300]}); mend that, or set it to false") from error
        raise


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    """Inside, torch's Transformer computes in validation as it does in training, not by a function
    that nobody can look into."""
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)


def place_if_unplaced(model: nn.Module, n_gpu: int | None) -> tuple[torch.device, nn.Module]:
    """The device of a model that somebody has placed; else places it on ``n_gpu`` GPUs."""
    devices = {parameter.device for parameter in model.parameters()}
    is_placed = isinstance(model, nn.DataParallel) or any(
        device.type != "cpu" for device in devices)
    if n_gpu is None or is_placed:
        return (devices or {torch.device("cpu")}).pop(), model
    device, ids = prepare_device(n_gpu)
    return device, place_model(model, device, ids)


def unwrap_model(model: Any) -> Any:
    """The module itself, without DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)  # where torch.compile documents the model to be
        if inner is None and isinstance(
                model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner
