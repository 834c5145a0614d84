"""One model on one or several devices, and the bare model inside its wrappers."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from utils.devices.device import prepare_device
from utils.errors import ConfigError, RunError


def place_model(model: nn.Module, device: torch.device, device_ids: list[int], *,
                channels_last: bool = False,
                compiled: bool | dict[str, Any] = False) -> nn.Module:
    """Moves the model; more than one id wraps it in DataParallel, unless somebody already has.

    Args:
        channels_last: keep convolutions' weights in channels-last layout.
        compiled: let torch.compile make it fast, perhaps with options; its first batches take long.

    Raises:
        ConfigError: torch.compile does not take the options.
    """
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
    if len(device_ids) > 1 and not isinstance(model, nn.DataParallel):
        model = nn.DataParallel(model, device_ids=device_ids)
    return model


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
