"""Images of drawn shapes and their masks, drawn when they are asked for."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from base import BaseDataLoader

CIRCLE, SQUARE, TRIANGLE = 1, 2, 3  # values of a mask; 0 is the background
SIZE = 64  # pixels of a side

# a tv_tensors.Mask is moved as its image is, but gets no other colours and no values in between
AUGMENT = v2.Compose([
    v2.RandomHorizontalFlip(),
    v2.RandomVerticalFlip(),
    v2.RandomAffine(degrees=0, translate=(0.2, 0.2)),
    v2.ColorJitter(brightness=0.3, contrast=0.3),
])


class ShapesDataLoader(BaseDataLoader):
    """Batches {"image": (batch, 3, 64, 64) float32 in [0, 1], "mask": (batch, 64, 64) int64}.

    Args:
        num_images: of training and validation together, or of the test set.
        training: augmented images; else others, as they were drawn.
        options: see ``BaseDataLoader``.
    """

    def __init__(self, num_images: int, batch_size: int, shuffle: bool = True,
                 validation_split: float = 0.0, num_workers: int = 0, training: bool = True,
                 **options: Any) -> None:
        plain = ShapesDataset(num_images, seed=1 if training else 2)
        augmented = ShapesDataset(num_images, seed=1, transform=AUGMENT)
        super().__init__(augmented if training else plain, batch_size, shuffle, validation_split,
                         num_workers, valid_dataset=plain, **options)


class ShapesDataset(Dataset[dict[str, torch.Tensor]]):
    """Drawn shapes: each sample follows from (seed, index) alone.

    Args:
        transform: gets and returns {"image": ..., "mask": ...}, so that both are moved together.
    """

    def __init__(self, num_images: int, seed: int, transform: Any = None) -> None:
        self.num_images = num_images
        self.seed = seed
        self.transform = transform

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, mask = draw(np.random.default_rng((self.seed, index)))
        sample = {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)}
        return sample if self.transform is None else self.transform(sample)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (3, 64, 64) float32 in [0, 1] of one or two shapes, and its mask (64, 64)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((3, SIZE, SIZE), rng.uniform(size=(3, 1, 1)))
    mask = np.zeros((SIZE, SIZE), dtype=np.int64)
    for shape in rng.integers(CIRCLE, TRIANGLE + 1, size=rng.integers(1, 3)):
        radius, (dy, dx) = rng.uniform(10, 18), rng.uniform(12, SIZE - 12, size=2)
        dy, dx = y - dy, x - dx  # distances of each pixel to the centre
        inside = {CIRCLE: np.hypot(dy, dx) < radius,
                  SQUARE: np.maximum(abs(dy), abs(dx)) < radius,
                  TRIANGLE: (dy < radius) & (2 * abs(dx) < dy + radius)}[int(shape)]
        image[:, inside] = rng.uniform(size=(3, 1))
        mask[inside] = shape
    image += rng.normal(scale=0.08, size=image.shape)
    return image.clip(0, 1).astype(np.float32), mask
