"""Data that is one array per field: a batch is one indexed read and one transform."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class InMemoryDataset(Dataset[Any]):
    """Tensors or numpy arrays (``numpy.memmap`` as well) whose first dimension is the samples.

    What it fetches are batches already: a loader other than ``BaseDataLoader`` needs
    ``collate_fn=as_fetched``.

    Args:
        fields: arrays of equal length: images (n, c, h, w), rows (n, columns), tokens (n, length),
            targets (n,), ... They are kept as they are; uint8 images stay uint8.
        transform: gets the whole batch of the first field, returns what the model gets. Random
            transforms of torchvision's v2 draw once for a batch; per sample they need a loop.
        is_random: whether ``transform`` draws random numbers. False saves 100 us per batch.

    Raises:
        ValueError: no field, or fields of different lengths.
    """

    fetches_batches = True

    def __init__(self, *fields: Any,
                 transform: Callable[[torch.Tensor], Any] | None = None,
                 is_random: bool = True) -> None:
        lengths = [len(field) for field in fields]
        if not fields or len(set(lengths)) > 1:
            raise ValueError(f"expected fields of one length, got lengths {lengths}")
        self.fields = fields
        self.transform = transform
        self.is_random = is_random and transform is not None

    def __len__(self) -> int:
        return len(self.fields[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, ...]:
        """The batch of these samples, one entry per field."""
        return self._fetch(np.asarray(indices))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        batch = self._fetch(np.asarray([range(len(self))[index]]))
        return tuple(field[0] for field in batch)

    def _fetch(self, indices: np.ndarray) -> tuple[Any, ...]:
        first, *others = (self._take(field, indices) for field in self.fields)
        return (first if self.transform is None else self.transform(first), *others)

    @staticmethod
    def _take(field: Any, indices: np.ndarray) -> torch.Tensor:
        if isinstance(field, torch.Tensor):  # index_select is up to ten times as fast as field[...]
            return field.index_select(0, torch.from_numpy(indices).to(field.device))
        return torch.from_numpy(np.ascontiguousarray(field[indices]))
