"""The epochs of a run as a table that other programs read: one JSON object a line."""

import json
import os
from pathlib import Path
from typing import Any

from utils.errors import RunError

FILE_NAME = "history.jsonl"


class History:
    """Appends one row per epoch to ``history.jsonl``; read it by
    ``pandas.read_json(path, lines=True)``.

    Args:
        folder: of the log; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE_NAME

    def append(self, row: dict[str, Any]) -> None:
        """Adds an epoch: numbers and strings; NaN and infinities are kept as ``NaN``, ``Infinity``.

        Raises:
            RunError: the file cannot be written.
        """
        try:
            with open(self.path, "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read() != b"\n":  # a kill left a line unfinished
                        file.write(b"\n")
                file.write(json.dumps(row, default=str).encode() + b"\n")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror})") from error

    def rows(self) -> list[dict[str, Any]]:
        """All epochs so far; a line that a kill left unfinished is passed over."""
        if not self.path.is_file():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def keep_until(self, epoch: int) -> None:
        """Drops the rows after ``epoch``: a resumed run writes them again.

        Raises:
            RunError: the file cannot be written.
        """
        rows = [row for row in self.rows() if row["epoch"] <= epoch]
        temporary = self.path.with_name(self.path.name + ".tmp")
        try:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror})") from error
