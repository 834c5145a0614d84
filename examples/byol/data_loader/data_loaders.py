"""MNIST without labels for training, as two random views of each image; with labels for a probe."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from base import BaseDataLoader, InMemoryDataset

PARTS = {"train": ("train", slice(0, 55_000)), "labelled": ("train", slice(0, 1_000)),
         "valid": ("train", slice(55_000, 60_000)), "test": ("t10k", slice(0, 10_000))}
MAX_CHANGE = 0.25  # of each entry of a view's affine map; a shift of 1 is half an image


class DigitsDataLoader(BaseDataLoader):
    """Batches of images (batch, 1, 28, 28) float32, 0 to 1, and labels (batch,) int64; in training
    two views of each image in place of the image.

    Args:
        data_dir: holds ``MNIST/raw/``, as it comes with the template.
        part: "train", "labelled" (some of the same images, as they are), "valid" or "test".
        options: see ``BaseDataLoader``.
    """

    def __init__(self, data_dir: str, batch_size: int, part: str, shuffle: bool = False,
                 num_workers: int = 0, **options: Any) -> None:
        files, chosen = PARTS[part]
        raw = Path(data_dir) / "MNIST" / "raw"
        images = read_bytes(raw / f"{files}-images-idx3-ubyte.gz", header=16).view(-1, 1, 28, 28)
        labels = read_bytes(raw / f"{files}-labels-idx1-ubyte.gz", header=8).long()
        is_train = part == "train"
        dataset = InMemoryDataset(images[chosen], labels[chosen], is_random=is_train,
                                  transform=two_views if is_train else as_float)
        super().__init__(dataset, batch_size, shuffle, num_workers=num_workers, **options)


def read_bytes(path: Path, header: int) -> Tensor:
    """(bytes,) uint8: a packed file without the header of so many bytes."""
    return torch.from_numpy(np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)[header:]
                            .copy())


def as_float(images: Tensor) -> Tensor:
    """uint8 pixels to float32, 0 to 1."""
    return images.float() / 255


def two_views(images: Tensor) -> tuple[Tensor, Tensor]:
    """Two random views of each image, (batch, 1, 28, 28) float32, 0 to 1."""
    images = as_float(images)
    return random_view(images), random_view(images)


def random_view(images: Tensor) -> Tensor:
    """Each image turned, sheared, scaled and shifted by a random map of its own."""
    change = MAX_CHANGE * (2 * torch.rand(len(images), 2, 3) - 1)
    grid = F.affine_grid(torch.eye(2, 3) + change, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
