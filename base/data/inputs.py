"""Data without targets, as it lies on the disk: files of a folder, rows of a CSV file."""

import csv
import logging
import os
from pathlib import Path

import numpy as np

from utils.errors import ConfigError, RunError

logger = logging.getLogger(__name__)


def files_in(folder: Path) -> tuple[list[Path], list[str]]:
    """All files of a folder and of those in it, in the order of their names; and these names, as
    seen from the folder. Hidden ones (``.name``) are left out.

    Raises:
        ConfigError: there are none.
    """
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    shown = sorted(name for name in found if not any(part.startswith(".") for part in name.parts))
    if not shown:
        raise ConfigError(f"{folder}: expected a folder with files, there are none in it")
    # a name may have bytes that are no text
    names = [os.fsencode(name.as_posix()).decode(errors="backslashreplace") for name in shown]
    return [found[name] for name in shown], names


def read_rows(path: Path, num_values: int) -> tuple[np.ndarray, list[str]]:
    """(rows, ``num_values``) float64 of a CSV file, and the number of each row, from 0. A first
    line in which nothing is a number, or that is ``0,1,2,...`` as pandas writes it, has the names of
    the columns, and is left out.

    Raises:
        RunError: it cannot be read, has no row, or one of another length or with anything else than
            numbers.
    """
    rows: list[np.ndarray] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for texts in reader:
                is_heading = reader.line_num == 1 and len(texts) == num_values and (
                    not any(map(_is_number, texts)) or _are_counted(texts))
                if not texts or is_heading:
                    continue
                rows.append(_numbers(texts, num_values, f"{path}, line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: expected a CSV file, it cannot be read ({error})") from error
    if not rows:
        raise RunError(f"{path}: expected rows of {num_values} values, there are none")
    return np.stack(rows), [str(number) for number in range(len(rows))]


def _numbers(texts: list[str], num_values: int, place: str) -> np.ndarray:
    if len(texts) != num_values:
        raise RunError(f"{place}: expected {num_values} values, got {len(texts)}")
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError as error:
        raise RunError(f"{place}: expected numbers only ({error})") from error
    if not np.isfinite(values).all():
        raise RunError(f"{place}: expected finite numbers only")
    return values


def _are_counted(texts: list[str]) -> bool:
    """Whether they are the numbers of columns that have no names."""
    is_counted = len(texts) > 1 and texts == [str(number) for number in range(len(texts))]
    if is_counted:
        logger.warning("the first line, 0, 1, ..., is taken for the names of the columns")
    return is_counted


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
