"""One model on one or several devices, and the bare model inside its wrappers."""

from typing import Any, cast

import torch
from torch import nn

from utils.devices.device import prepare_device


def place_model(model: nn.Module, device: torch.device, device_ids: list[int], *,
                channels_last: bool = False, compiled: bool = False) -> nn.Module:
    """Moves the model; more than one id wraps it in DataParallel, unless somebody already has.

    Args:
        channels_last: keep convolutions' weights in channels-last layout.
        compiled: let torch.compile make it fast; its first batches take long.
    """
    model = model.to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compiled:
        model = cast(nn.Module, torch.compile(model))
    if len(device_ids) > 1 and not isinstance(model, nn.DataParallel):
        model = nn.DataParallel(model, device_ids=device_ids)
    return model


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
