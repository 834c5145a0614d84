"""A folder of images with one sub-folder for each class."""

from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from base import BaseDataLoader
from utils.errors import RunError

TO_TENSOR = [  # mean and standard deviation of ImageNet, which torchvision's weights expect
    v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
]


class ImagesDataLoader(BaseDataLoader):
    """Batches of (batch, 3, size, size) float32 images, normalised, and (batch,) int64 classes.

    Args:
        data_dir: has ``train/CLASS/`` and ``test/CLASS/``; classes count in alphabetical order.
        size: pixels of a side.
        training: the images of ``train``, augmented; else those of ``test`` as they are.
        options: see ``BaseDataLoader``.

    Raises:
        RunError: there is no such folder.
    """

    def __init__(self, data_dir: str, size: int, batch_size: int, shuffle: bool = True,
                 validation_split: float = 0.0, num_workers: int = 0, training: bool = True,
                 **options: Any) -> None:
        folder = Path(data_dir) / ("train" if training else "test")
        if not folder.is_dir():
            raise RunError(f"{folder}: there is no such folder; python -m data_loader.draw draws "
                           "sample images into data/patterns")
        plain = ImageFolder(folder, v2.Compose([v2.Resize((size, size)), *TO_TENSOR]))
        augmented = ImageFolder(folder, v2.Compose([
            v2.RandomResizedCrop(size, scale=(0.6, 1.0)), v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.3, contrast=0.3), *TO_TENSOR]))
        super().__init__(augmented if training else plain, batch_size, shuffle, validation_split,
                         num_workers, valid_dataset=plain, stratify=plain.targets, **options)
