"""Small images, a bright row of which tells the class."""

from pathlib import Path
from typing import Any

import torch

from base import BaseDataLoader, InMemoryDataset
from base.data.inputs import read_rows


class ToyDataLoader(BaseDataLoader):
    """Batches of (batch, 1, 8, 8) float32 and (batch,) int64.

    Args:
        training: 120 images of the training set, else 30 of the test set.
    """

    def __init__(self, batch_size: int, shuffle: bool = True, validation_split: float = 0.0,
                 num_workers: int = 0, training: bool = True, **options: Any) -> None:
        generator = torch.Generator().manual_seed(1 if training else 2)
        count = 120 if training else 30
        targets = torch.randint(0, 3, (count,), generator=generator)
        images = torch.rand(count, 1, 8, 8, generator=generator)
        images[torch.arange(count), 0, 2 * targets + 1] += 1.0
        dataset = InMemoryDataset(images, targets, transform=add_noise)
        super().__init__(dataset, batch_size, shuffle, validation_split, num_workers, **options)

    def inputs_of(self, path: Path) -> tuple[InMemoryDataset, list[str]]:
        """Rows of 64 pixels."""
        rows, names = read_rows(path, 64)
        images = torch.from_numpy(rows).float().reshape(-1, 1, 8, 8)
        return InMemoryDataset(images, transform=add_noise), names


def add_noise(images: torch.Tensor) -> torch.Tensor:
    return images + 0.1 * torch.randn(images.shape)
