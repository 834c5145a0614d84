"""Numbers, tables and hints for the console, which has 80 columns."""

import shlex
from pathlib import Path
from typing import Any

from utils.devices.processes import num_processes

WIDTH = 80
VALID = "val_"


def number(value: Any) -> str:
    """A number to four digits, a table by its size, anything else as text."""
    if isinstance(value, list):
        return f"[{len(value)}x{len(value[0])}]" if value and isinstance(value[0], list) else (
            f"[{len(value)}]")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def shortened(text: str, width: int) -> str:
    """A text that fits, with its middle left out if it must."""
    if len(text) <= width:
        return text
    tail = (width - 3) // 2
    return f"{text[:width - 3 - tail]}...{text[len(text) - tail:]}"


def plain_number(value: Any) -> Any:
    """A scalar of torch or numpy as Python's own, an array as lists; other things as they are."""
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()  # waits for the device
    except (RuntimeError, ValueError):  # more than one element
        return value.tolist()


def table(values: dict[str, Any]) -> str:
    """Names and values, one below the other."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{name:<{width}}  {number(value)}" for name, value in values.items())


def duration(seconds: float) -> str:
    """In the units that matter: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def loading_hint(waited: float, seconds: float) -> str | None:
    """What to do about an epoch of which much went into waiting for the loader.

    Args:
        waited: seconds of it. seconds: of the whole epoch; short ones say nothing.
    """
    if seconds < 10 or waited < 0.3 * seconds:
        return None
    return (f"{waited / seconds:.0%} of the epoch was waiting for data: try more "
            "data_loader.args.num_workers, or InMemoryDataset if it fits in memory")


def go_on_hint(latest: Path) -> str:
    """The command that goes on from a checkpoint, if it was written."""
    if not latest.exists():
        return "no checkpoint was written yet"
    start = "python" if num_processes() == 1 else (
        f"torchrun --nproc-per-node {num_processes()}")
    return f"go on with:\n  {start} train.py --resume {shlex.quote(latest.as_posix())}"
