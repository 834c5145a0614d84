"""``python -m data_loader.draw``: draws sample images, 150 for training and 20 to test a class."""

from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path("data/patterns")
SIZE = 64  # pixels of a side
COUNTS = {"train": 150, "test": 20}  # images of a class
PATTERNS = {  # of two coordinates in radians; bright where it is positive, dark elsewhere
    "checks": lambda u, v: np.sin(u) * np.sin(v),
    "dots": lambda u, v: np.sin(u) + np.sin(v) - 1,
    "rings": lambda u, v: np.sin(np.hypot(u, v)),
    "stripes": lambda u, v: np.sin(u),
    "waves": lambda u, v: np.sin(u + 2 * np.sin(v)),
}


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """A pattern of any place, angle, period and colours, with noise."""
    period, angle = rng.uniform(12, 24), rng.uniform(0, 2 * np.pi)  # pixels, radians
    y, x = (np.mgrid[:SIZE, :SIZE] - rng.uniform(0, SIZE, size=(2, 1, 1))) * 2 * np.pi / period
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    is_first = PATTERNS[name](u, v) > 0
    bright, dark = rng.uniform(140, 255, size=3), rng.uniform(0, 110, size=3)
    pixels = np.where(is_first[..., None], bright, dark)
    pixels += rng.normal(scale=25, size=pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for name in PATTERNS:
            folder = FOLDER / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                draw(name, rng).save(folder / f"{index:03}.png")
