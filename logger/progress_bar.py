"""The progress bars of an epoch and a validation, whole at 80 columns, and lines above them."""

import os
import sys
from typing import Any, TextIO

from utils.devices.processes import is_main_process

WITH_TOTAL = "{desc} |{bar}| {percentage:3.0f}% {remaining} left"
WITHOUT_TOTAL = "{desc}  {n_fmt} batches  {elapsed}"
LEFT_TO_BAR = 32  # columns: the bar, percent and time left
_shown: list["ProgressBar"] = []


class ProgressBar:
    """A bar on standard error, where that is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._label = ""

    def open(self, label: str, total: int | None, done: int = 0) -> None:
        """Shows the bar.

        Args:
            label: what is going on.
            total: batches, or None if nobody knows. done: of these, already.
        """
        self.close()
        if not sys.stderr.isatty() or not is_main_process():
            return
        from tqdm import tqdm

        self._label = label
        self._bar = tqdm(total=total, initial=done, desc=label, leave=False, dynamic_ncols=True,
                         bar_format=WITHOUT_TOTAL if total is None else WITH_TOTAL)
        _shown.append(self)

    def update(self) -> None:
        """One more batch is finished."""
        if self._bar is not None:
            self._bar.update()

    def refresh(self) -> None:
        """Shows where it is now, not only after a while."""
        if self._bar is not None:
            self._bar.refresh()

    def show(self, *figures: str) -> None:
        """Puts figures beside the label, from the next update on: as many, from the first on, as
        leave room for a bar."""
        if self._bar is None:
            return
        text, room = self._label, _width() - LEFT_TO_BAR
        for figure in figures:
            if len(f"{text}  {figure}") > room:
                break
            text = f"{text}  {figure}"
        self._bar.set_description_str(text, refresh=False)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            _shown.remove(self)
            self._bar.close()
            self._bar = None


def _width() -> int:
    """Columns of the terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def write_above(text: str, stream: TextIO) -> bool:
    """Writes a line above the bar; False, and nothing written, if none is shown."""
    if not _shown:
        return False
    from tqdm import tqdm

    tqdm.write(text, file=stream)
    return True
