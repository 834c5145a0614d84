"""What a batch may be, whatever its structure: moved to a device, counted, described."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from utils.errors import RunError

if TYPE_CHECKING:
    import torch


def to_device(batch: Any, device: "torch.device", *, channels_last: bool = False) -> Any:
    """The batch with its tensors on ``device``; other things are left as they are.

    Args:
        batch: a tensor or whatever has ``to``; lists, tuples, named tuples, dicts and dataclasses
            of such, nested.
        channels_last: give images, (n, c, h, w), that memory layout.
    """
    if device.type == "cpu" and not channels_last:
        return batch  # it is there
    if hasattr(batch, "ndim"):
        if channels_last and batch.ndim == 4:
            import torch

            return batch.to(device, non_blocking=True, memory_format=torch.channels_last)
        return batch.to(device, non_blocking=True)
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, (list, tuple)):
        moved = [to_device(item, device, channels_last=channels_last) for item in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device, channels_last=channels_last)
                for key, value in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return dataclasses.replace(batch, **{
            field.name: to_device(getattr(batch, field.name), device, channels_last=channels_last)
            for field in dataclasses.fields(batch) if field.init})
    return batch


def data_and_target(batch: Any) -> tuple[Any, Any]:
    """What a model gets of a batch, and what its output is compared with: of a pair the first and
    the second, of a dict or an object those of the names ``data`` and ``target``.

    Raises:
        RunError: the batch is none of these.
    """
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping) and {"data", "target"} <= batch.keys():
        return batch["data"], batch["target"]
    if not isinstance(batch, (list, tuple, Mapping)) and (
            hasattr(batch, "data") and hasattr(batch, "target")):
        return batch.data, batch.target
    raise RunError(f"expected batches (data, target), or with these names, got {shapes(batch)}: "
                   "say what the model gets by split_batch in trainer/trainer.py")


def only_field(batch: Any) -> Any:
    """What a model gets of a batch without targets: the only entry of a list or tuple, ``data`` of
    a dict, else the batch itself.

    Raises:
        RunError: a list or tuple has more than one.
    """
    if isinstance(batch, Mapping) and "data" in batch:
        return batch["data"]
    if not isinstance(batch, (list, tuple)):
        return batch
    if len(batch) != 1:
        raise RunError(f"expected batches without targets, got {shapes(batch)}: say what the model "
                       "gets by predict_batch in trainer/trainer.py")
    return batch[0]


def num_samples(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor, or of a list with an entry for each.

    What a batch has is taken for fields, one after the other. A field that is a list of strings, of
    dicts, of tensors of different lengths, ... has an entry for each sample, and so has a batch of
    strings or numbers. Where nothing tells, it is 1.
    """
    fields = _items(batch)
    if fields is None:
        return _size(batch)[0] or 1
    guess = 0
    for field in fields:
        size, is_sure = _size(field)
        if size and is_sure:
            return size
        guess = guess or size
    if not guess and isinstance(batch, (list, tuple)) and all(
            isinstance(field, (str, bytes, int, float)) or getattr(field, "ndim", None) == 0
            for field in fields):
        guess = len(fields)
    return guess or 1


def after_samples(batches: Iterator[Any], skip_samples: int) -> Iterator[Any]:
    """The batches that come after so many samples; those before are read and dropped.

    Raises:
        RunError: no batch ends there.
    """
    while skip_samples > 0:
        batch = next(batches, None)
        if batch is None:
            return
        skip_samples -= num_samples(batch)
    if skip_samples < 0:
        raise RunError("the run was stopped after a sample at which no batch ends now; resume with "
                       "the batch_size and num_workers that it had, or an epoch's checkpoint")
    yield from batches


def tensors_in(batch: Any) -> "Iterator[torch.Tensor]":
    """All tensors in nested lists, tuples, dicts and dataclasses."""
    if hasattr(batch, "ndim"):
        yield batch
    else:
        for item in _items(batch) or ():
            yield from tensors_in(item)


def shapes(batch: Any) -> str:
    """A batch's nested structure with the type and shape of each tensor."""
    if hasattr(batch, "shape"):
        return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {shapes(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, (list, tuple)):
        inner = [shapes(value) for value in batch[:4]] + ["..."] * (len(batch) > 4)
        return f"({', '.join(inner)})"
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        inner = [f"{field.name}: {shapes(getattr(batch, field.name))}"
                 for field in dataclasses.fields(batch)]
        return f"{type(batch).__name__}({', '.join(inner)})"
    return type(batch).__name__


def _items(batch: Any) -> Sequence[Any] | None:
    """The parts of a structure; None of anything else."""
    if isinstance(batch, (list, tuple)):
        return batch
    if isinstance(batch, Mapping):
        return list(batch.values())
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return None


def _size(field: Any) -> tuple[int, bool]:
    """How many samples a part of a batch has (0: it does not tell), and whether that is sure."""
    if hasattr(field, "ndim"):
        return (field.shape[0], True) if field.ndim else (0, False)
    if hasattr(field, "to") and not isinstance(field, Mapping):  # an object of its own kind
        return getattr(field, "num_graphs", 0), False
    items = _items(field)
    if not items:
        return 0, False
    if isinstance(field, (list, tuple)):
        lengths = {len(item) if hasattr(item, "ndim") and item.ndim else None for item in items}
        if None not in lengths and len(lengths) == 1:
            return len(items[0]), False
        if None not in lengths or lengths == {None}:
            return len(items), True
    return num_samples(field), True
