"""The source of Python's standard library as windows of bytes, read from the disk as needed."""

import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from base import BaseDataLoader, InMemoryDataset

PARTS = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}  # from and to, of all


class CodeDataLoader(BaseDataLoader):
    """Batches of one field, (batch, context + 1) uint8: windows side by side, each with the byte
    that follows it.

    Args:
        data_dir: where the bytes are kept in one file; it is written at first use.
        context: bytes that the model sees.
        part: "train", "valid" or "test".
        options: see ``BaseDataLoader``.
    """

    def __init__(self, data_dir: str, batch_size: int, context: int, shuffle: bool = False,
                 num_workers: int = 0, part: str = "train", **options: Any) -> None:
        code = np.memmap(code_file(Path(data_dir)), dtype=np.uint8, mode="r")
        start, end = PARTS[part]
        code = code[int(start * len(code)):int(end * len(code))]
        windows = np.lib.stride_tricks.sliding_window_view(code, context + 1)[::context]
        super().__init__(InMemoryDataset(windows), batch_size, shuffle, num_workers=num_workers,
                         **options)


def code_file(data_dir: Path) -> Path:
    """A file with the standard library's top modules one after the other, sorted by name."""
    path = data_dir / f"python-{platform.python_version()}.bin"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        written = path.with_suffix(".tmp")
        written.write_bytes(b"".join(module.read_bytes() for module in modules))
        os.replace(written, path)
    return path
