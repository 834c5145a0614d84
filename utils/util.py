"""Small things that every project needs; all names that classic projects import from here."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from utils.config.json_file import read_json, write_json
from utils.devices.device import prepare_device
from utils.metric_tracker import MetricTracker

__all__ = ["MetricTracker", "ensure_dir", "inf_loop", "prepare_device", "read_json", "write_json"]


def ensure_dir(dirname: str | Path) -> None:
    """Makes the folder and its parents; one that exists is left alone."""
    Path(dirname).mkdir(parents=True, exist_ok=True)


def inf_loop(data_loader: Iterable[Any]) -> Iterator[Any]:
    """Repeats the loader for ever: each pass is a new ``iter(data_loader)``.

    Raises:
        ValueError: a pass had no batch, so that the loop would never yield.
    """
    for loader in repeat(data_loader):
        is_empty = True
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty:
            raise ValueError("inf_loop needs a loader with at least one batch, got an empty one")
