"""Which device to train on, and batches on their way to it."""

import functools
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def prepare_device(n_gpu_use: int) -> "tuple[torch.device, list[int]]":
    """Chooses the device for ``n_gpu_use`` GPUs; with fewer present, warns and takes those.

    Args:
        n_gpu_use: 0 is the CPU. Without CUDA, 1 or more is Apple's GPU if there is one.

    Returns:
        The device to place the model on, and the ids of the GPUs to use: the first ones.
    """
    import torch

    present = torch.cuda.device_count()
    if n_gpu_use > 0 and not present and torch.backends.mps.is_available():
        return torch.device("mps"), []
    if n_gpu_use > present:
        _warn_once(n_gpu_use, present)
    ids = list(range(min(n_gpu_use, present)))
    return torch.device("cuda:0" if ids else "cpu"), ids


@functools.cache
def _warn_once(wanted: int, present: int) -> None:
    logger.warning("n_gpu is %d, but this machine has %s: training on %s", wanted,
                   f"only {present}" if present else "no usable GPU",
                   "those" if present else "the CPU")


def to_device(batch: Any, device: "torch.device", **options: Any) -> Any:
    """The batch with its tensors on ``device``; other things are left as they are.

    Args:
        batch: a tensor or whatever has ``to``, or lists, tuples, named tuples and dicts, nested.
        options: for ``Tensor.to``; ``memory_format`` goes to 4-d tensors only.
    """
    if hasattr(batch, "to"):
        if "memory_format" in options and getattr(batch, "ndim", 0) != 4:
            options = {key: value for key, value in options.items() if key != "memory_format"}
        return batch.to(device, non_blocking=True, **options)
    if isinstance(batch, (list, tuple)):
        moved = [to_device(item, device, **options) for item in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    if isinstance(batch, dict):
        return {key: to_device(value, device, **options) for key, value in batch.items()}
    return batch


def can_pin_memory() -> bool:
    """Whether copies from pinned host memory are faster here: there is CUDA."""
    import torch

    return torch.cuda.is_available()


def num_samples(batch: Any) -> int:
    """Samples in a batch: the length of the first tensor in it."""
    while isinstance(batch, (list, tuple, dict)) and batch:
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return len(batch) if getattr(batch, "ndim", 0) else 1
