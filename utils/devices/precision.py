"""Number formats to compute in: contexts, the scaler of fp16, the precision of products."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context in which torch computes in that format where it is safe; nothing for ``fp32``."""
    if precision not in DTYPES:
        return contextlib.nullcontext()
    # its cache of weights would outlive the steps that change them: this context is a whole epoch
    return torch.autocast(device.type, DTYPES[precision], cache_enabled=False)


def outside_autocast(precision: str,
                     device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context in the middle of ``autocast`` in which everything is computed as it is given."""
    if precision not in DTYPES:
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def read_outside(batches: Iterable[Any], precision: str, device: torch.device) -> Iterator[Any]:
    """The batches of a loader, whose transforms are not meant by ``autocast``."""
    return iter(batches) if precision not in DTYPES else _read_outside(batches, precision, device)


def _read_outside(batches: Iterable[Any], precision: str, device: torch.device) -> Iterator[Any]:
    iterator, end = iter(batches), object()
    while True:
        with outside_autocast(precision, device):
            batch = next(iterator, end)
        if batch is end:
            return
        yield batch


def make_scaler(precision: str, device: torch.device) -> "torch.amp.GradScaler | None":
    """What keeps small gradients of fp16 from vanishing; None for other formats."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def set_matmul_precision(precision: str | None) -> None:
    """Of products of float32 matrices: "highest", "high" or "medium"; None leaves it."""
    if precision is not None:
        torch.set_float32_matmul_precision(precision)
