"""The epochs of a run as a table that other programs read: one JSON object a line."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.errors import RunError
from utils.files import replaced

FILE_NAME = "history.jsonl"
BESIDE_LOG = ("step", "seconds", "time", "memory_mb", "samples_per_second")  # of a row
COUNTERS = ("epoch", *BESIDE_LOG)
logger = logging.getLogger(__name__)


def own_names(log: dict[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """The log, with ``own_`` before names that are taken."""
    return {f"own_{name}" if name in taken else name: value for name, value in log.items()}


class History:
    """The rows of all epochs so far, and ``history.jsonl``, which has the same; read it by
    ``pandas.read_json(path, lines=True)``.

    The rows are part of the checkpoint: a resumed run brings the file to where the checkpoint is.

    Args:
        folder: gives the folder of the log, once it is needed.
    """

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._lines: list[str] = []
        self._num_written: int | None = None  # None: what is in the file is not known
        self._before = 0.0  # seconds of the open epoch, before a resume
        self._since: float | None = None  # when it began, or went on
        self._told: set[str] = set()

    def begin(self) -> None:
        """An epoch begins, or goes on after a resume."""
        self._since = time.monotonic()

    def seconds(self) -> float:
        """That the open epoch has taken, those before a resume included."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def end(self) -> float:
        """The epoch is over; the seconds that it took."""
        seconds, self._before, self._since = self.seconds(), 0.0, None
        return seconds

    def renamed(self, log: dict[str, Any]) -> dict[str, Any]:
        """The log of an epoch, with ``own_`` before names that its row has for something else."""
        taken = sorted({*log} & {*BESIDE_LOG})
        if {*taken} - self._told:
            self._told.update(taken)
            logger.warning("each epoch has %s by itself: values of your own with these names are "
                           "called %s", ", ".join(taken), ", ".join(map("own_{}".format, taken)))
        return own_names(log, taken)

    def append(self, log: dict[str, Any], *, step: int, seconds: float) -> None:
        """Adds the row of an epoch.

        Args:
            log: numbers and strings by name, ``epoch`` among them; NaN and infinities are kept as
                ``NaN``, ``Infinity``.
            step: optimizer steps of the run so far. seconds: that the epoch took.
        """
        row = {"epoch": log["epoch"], "step": step, "seconds": round(seconds, 3),
               "time": datetime.now().isoformat(timespec="seconds"), **log}
        self._lines.append(json.dumps(row, default=str))

    def rows(self) -> list[dict[str, Any]]:
        """All epochs so far."""
        return [json.loads(line) for line in self._lines]

    def write(self) -> None:
        """Brings the file up to date.

        Raises:
            RunError: it cannot be written.
        """
        path = self._folder() / FILE_NAME
        if self._num_written is None or not path.is_file():
            with replaced(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in self._lines), "utf-8")
        else:
            try:
                with open(path, "a", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in self._lines[self._num_written:])
            except OSError as error:
                raise RunError(f"{path}: cannot be written ({error.strerror})") from error
        self._num_written = len(self._lines)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": "\n".join(self._lines), "seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lines = state["rows"].splitlines()
        self._before, self._since = state.get("seconds", 0.0), None
        self._num_written = None
