"""A folder of images, one folder a class, read one by one with random flips."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from base import BaseDataLoader


class FolderDataset(Dataset[Any]):
    def __init__(self, root: Path, augment: bool) -> None:
        self.classes = sorted(path.name for path in root.iterdir())
        self.files = [(file, label) for label, name in enumerate(self.classes)
                      for file in sorted((root / name).glob("*.png"))]
        self.augment = augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, label = self.files[index]
        pixels = np.asarray(Image.open(file).convert("RGB"), np.float32) / 255
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        if self.augment and random.random() < 0.5:
            image = image.flip(2)
        return {"data": image, "target": label, "name": file.name}


class ImageFolderLoader(BaseDataLoader):
    def __init__(self, root: str, batch_size: int, shuffle: bool = True,
                 validation_split: float = 0.0, num_workers: int = 0, training: bool = True,
                 **options: Any) -> None:
        folder = Path(root) / ("train" if training else "test")
        super().__init__(FolderDataset(folder, augment=training), batch_size, shuffle,
                         validation_split, num_workers,
                         valid_dataset=FolderDataset(folder, augment=False), **options)
