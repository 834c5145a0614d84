"""Files of a report: a reader sees the old one or the whole new one."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.errors import RunError
from utils.files import replaced


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file with a line of names.

    Raises:
        RunError: it cannot be written.
    """
    with replaced(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_figure(path: Path, figure: Any) -> None:
    """A matplotlib Figure as PNG.

    Raises:
        RunError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replaced(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def make_folder(path: Path) -> None:
    """Makes a folder, unless it is there.

    Raises:
        RunError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: the folder cannot be made ({error.strerror})") from error


def remove(path: Path) -> None:
    """Removes a file of an earlier report, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be removed ({error.strerror})") from error
