"""The example data: MNIST, held in memory as it is on disk."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base import BaseDataLoader, InMemoryDataset
from base.data.inputs import files_in, read_rows
from utils.errors import ConfigError, RunError

MEAN, STD = 0.1307, 0.3081  # of the training images, in [0, 1]
SIDE = 28  # pixels


class MnistDataLoader(BaseDataLoader):
    """Batches of handwritten digits: (batch, 1, 28, 28) float32, normalised, and (batch,) int64.

    Args:
        data_dir: holds ``MNIST/raw/``; what is missing there is downloaded.
        training: the 60,000 images of the training set, else the 10,000 of the test set.
        options: see ``BaseDataLoader``.
    """

    def __init__(self, data_dir: str, batch_size: int, shuffle: bool = True,
                 validation_split: float = 0.0, num_workers: int = 0, training: bool = True,
                 valid_batch_size: int = 500, **options: Any) -> None:
        self.data_dir = data_dir
        images, labels = read_mnist(Path(data_dir), "train" if training else "t10k")
        dataset = InMemoryDataset(images, labels, transform=normalise, is_random=False)
        super().__init__(dataset, batch_size, shuffle, validation_split, num_workers,
                         valid_batch_size=valid_batch_size, **options)

    def inputs_of(self, path: Path) -> tuple[InMemoryDataset, list[str]]:
        """The images of a folder, grey with 28 x 28 pixels, or of a CSV file with the 784 pixels of
        one in each row, 0 (black) to 255."""
        if path.is_dir():
            files, names = files_in(path)
            pixels = np.stack([_read_image(file) for file in files])
        elif path.suffix.lower() == ".csv":
            values, names = read_rows(path, SIDE * SIDE)
            wrong = values[(values < 0) | (values > 255) | (values % 1 != 0)]
            if len(wrong):
                raise RunError(f"{path}: expected whole numbers from 0 to 255, got {wrong[0]:g}")
            pixels = values.astype(np.uint8)
        else:
            raise ConfigError(f"--predict: expected a folder of images or a .csv file, got {path}")
        images = torch.from_numpy(pixels).reshape(-1, 1, SIDE, SIDE)
        return InMemoryDataset(images, transform=normalise, is_random=False), names


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels to float32 of mean 0 and standard deviation 1, a whole batch at once."""
    return images.float().sub_(255 * MEAN).mul_(1 / (255 * STD))


def read_mnist(data_dir: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 1, 28, 28) uint8 and labels (n,) int64 of a part, "train" or "t10k".

    Raises:
        RunError: the files are neither there nor to be downloaded, or are damaged.
    """
    raw = data_dir / "MNIST" / "raw"
    if not all(_file(raw, part, kind) for kind in ("images-idx3", "labels-idx1")):
        _download(data_dir)
    images, labels = _read_idx(raw, part, "images-idx3", 3), _read_idx(raw, part, "labels-idx1", 1)
    if len(images) != len(labels):
        raise RunError(f"{raw}: {len(images)} images of {part}, but {len(labels)} labels")
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def _file(raw: Path, part: str, kind: str) -> Path | None:
    """The file, packed or not, if it is there."""
    name = f"{part}-{kind}-ubyte"
    return next((path for path in (raw / f"{name}.gz", raw / name) if path.is_file()), None)


def _read_idx(raw: Path, part: str, kind: str, num_dimensions: int) -> np.ndarray:
    """An IDX file: two zero bytes, type 8 (uint8), dimensions, their sizes, the values."""
    path = _file(raw, part, kind) or raw / f"{part}-{kind}-ubyte.gz"
    try:
        content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
        if content[:4] != bytes([0, 0, 8, num_dimensions]):
            raise ValueError(f"expected an IDX file of {num_dimensions} dimensions")
        shape = np.frombuffer(content, ">i4", num_dimensions, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions)
        return values.reshape(shape).copy()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RunError(f"{path}: damaged ({error}); delete it to download it anew") from error


def _read_image(path: Path) -> np.ndarray:
    """(28, 28) uint8.

    Raises:
        RunError: it is no image, or one of another kind.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, (width, height), pixels = image.mode, image.size, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunError(f"{path}: expected an image, it cannot be read as one ({error})") from error
    if (mode, width, height) != ("L", SIDE, SIDE):
        raise RunError(f"{path}: expected {SIDE} x {SIDE} grey pixels of 8 bits (mode L), got "
                       f"{width} x {height} of mode {mode}")
    return pixels


def _download(data_dir: Path) -> None:
    try:
        from torchvision.datasets import MNIST

        MNIST(str(data_dir), download=True)
    except Exception as error:  # no torchvision that loads, no network, no space, ...
        names = ", ".join(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k")
                          for kind in ("images-idx3", "labels-idx1"))
        cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise RunError(f"{data_dir / 'MNIST' / 'raw'}: MNIST is missing and could not be "
                       f"downloaded ({cause}). Put these files there: {names}") from error
