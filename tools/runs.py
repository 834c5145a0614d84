"""Lists and compares runs: ``python -m tools.runs saved/``.

Runs whose configs are equal but for the seed are one row, with the mean and the standard deviation
of their best values: a difference between two rows that is not larger than these may be chance.
"""

import argparse
import contextlib
import fnmatch
import math
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

from logger.console import WIDTH, duration
from logger.curves import draw_curves, is_figure, plain_text
from tools.run_files import Row
from tools.runs_table import (
    LAST,
    OF_GROUPS,
    WHEN,
    columns_of,
    differing,
    frame_of,
    grouped,
    read_rows,
)
from utils.config.misspellings import suggestion
from utils.errors import ConfigError, RunError, clean_exit
from utils.files import replaced

NOT_SHOWN = ("last.memory_mb", "last.samples_per_second")  # unless they are asked for
MAX_CELL, MAX_OTHER = {"run": 30, "state": 34}, 20  # characters


def main(arguments: list[str] | None = None) -> None:
    """The command.

    Raises:
        ConfigError: an option asks for what there is not. RunError: there are no runs.
    """
    args = parse(arguments)
    folders = [Path(folder) for folder in args.folders or ["saved/"]]
    below = f"below {', '.join(folder.as_posix() for folder in folders)}"
    read = read_rows(folders)
    if not read:
        raise RunError(f"no runs {below}: expected folders models/NAME/RUN, as train.py makes")
    histories = {row["path"]: rows for row, rows in read}
    table = [row for row, _ in read]
    names = columns_of(table)
    chosen = [row for row in table if all([matches(row, text, names) for text in args.where])]
    if not chosen:
        raise RunError(f"none of {len(table)} runs {below} has {' and '.join(args.where)}")
    chosen = sorted(chosen, key=WHEN)[-(args.last or 0):]
    shown = chosen if args.each else grouped(chosen)
    is_grouped = len(shown) < len(chosen)
    names = [*columns_of(chosen), *(OF_GROUPS if is_grouped else ())]
    columns = [resolve(name, names) for text in args.columns for name in text.split(",")]
    shown = ordered(shown, args.sort and resolve(args.sort, names), args.desc)
    monitors = {row["monitor"] for row in chosen if row["monitor"]}
    best = f"best value ({plain_text(*monitors)})" if len(monitors) == 1 else "best value"
    of = f"mean and sd (sample standard deviation) of the {best} of n seeds" if is_grouped else best
    head = f"{len(chosen)} run{'s'[:len(chosen) - 1]} {plain_text(below)}; {of}"
    written = [write_csv(chosen if is_grouped else shown, args.csv)] if args.csv else []
    if args.plot:
        written.append(plot(chosen, histories, args.plot.split(","), args.out))
    print(textwrap.fill(head, WIDTH))
    print_table(shown, columns or default_columns(chosen, is_grouped), names)
    print("".join(f"\nwritten: {text}\n" for text in written), end="")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.runs", description="List and compare runs.", epilog="A KEY is a "
        "column: a setting (optimizer.args.lr, or its end if no other has the same), last.NAME for "
        f"the last value of the history, {', '.join(columns_of([]))}; in groups also mean, sd, n.")
    add = parser.add_argument
    add("folders", nargs="*", metavar="FOLDER", help="with runs below it; else saved/")
    add("--where", action="append", default=[], metavar="KEY=VALUE",
        help="only these runs; * stands for any text, state=failed is enough; repeatable")
    add("--last", type=int, metavar="N", help="only the N newest runs")
    add("--sort", metavar="KEY", help="lowest first; else the best first, or the newest")
    add("--desc", action="store_true", help="with --sort: highest first")
    add("--columns", action="append", default=[], metavar="KEY,...", help="what to show")
    add("--each", action="store_true", help="a row for each run")
    add("--csv", type=Path, metavar="FILE", help="all columns of each run; duration in seconds")
    add("--plot", metavar="NAME,...", help="draw these values of the runs over each other")
    add("--out", type=Path, metavar="FILE", help="PNG file to draw into; else NAME.png")
    args = parser.parse_args(arguments)
    if args.out is not None and not args.plot:
        parser.error("--out needs --plot NAME")
    if args.desc and not args.sort:
        parser.error("--desc puts the highest of --sort KEY first; without --sort the best run is "
                     "first, whichever way that is")
    if args.last is not None and args.last < 1:
        parser.error(f"--last expects at least 1 run, got {args.last}")
    return args


def resolve(key: str, names: list[str]) -> str:
    """The column that is meant: by its name, or by the end of it if that is enough.

    Raises:
        ConfigError: there is none, or several.
    """
    if key in names:
        return key
    found = ends_with(names, key)
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{key!r} may be {' or '.join(found)}; give one of them")
    near = suggestion(key, {*names, *(name.rpartition(".")[2] for name in names)})
    raise ConfigError(f"the runs have no {key!r}{near or '; --csv FILE writes all that they have'}")


def ends_with(names: list[str], end: str) -> list[str]:
    return [name for name in names if name.endswith(f".{end}")]


def matches(row: Row, test: str, names: list[str]) -> bool:
    """Whether ``KEY=VALUE`` is so, as a number or as text; ``-`` and ``null`` are no value."""
    key, sign, wanted = map(str.strip, test.partition("="))
    if not sign:
        raise ConfigError(f"--where expects KEY=VALUE, got {test!r}")
    key = resolve(key, names)
    value = row.get(key)
    if value is None or value != value:
        return wanted in ("-", "null", "")
    if is_figure(value):
        with contextlib.suppress(ValueError):
            return float(wanted) == value
    texts = [str(value), re.split("[:;]", str(value))[0]] if key == "state" else [str(value)]
    return wanted in texts or any(fnmatch.fnmatchcase(text, wanted) for text in texts)


def ordered(table: list[Row], key: str | None, is_descending: bool) -> list[Row]:
    """By a column; else the best first if all watch the same, else the newest. Rows without a
    value come last."""
    monitors = {row["monitor"] for row in table if is_figure(row["best"])}
    if key is None and len(monitors) == 1:
        key = "mean" if "mean" in table[0] else "best"
        is_descending = str(*monitors).startswith("max")
    elif key is None:
        key, is_descending = "time", True
    there = [row for row in table if row.get(key) is not None and row[key] == row[key]]
    there.sort(key=WHEN, reverse=True)
    there.sort(key=lambda row: (0, row[key], "") if is_figure(row[key]) else (1, 0, str(row[key])),
               reverse=is_descending)
    return there + [row for row in table if row not in there]


def default_columns(table: list[Row], is_grouped: bool) -> list[str]:
    def differs(key: str) -> list[str]:
        return [key] if len({row[key] for row in table if row[key]}) > 1 else []
    told = ("trainer.monitor", "seed" if is_grouped else "")
    differ = [name for name in differing(table) if name not in told]
    labels = [*differs("name"), "run", "state", *differs("monitor")]
    if is_grouped:
        return [*labels, *OF_GROUPS, *differ, "epochs", "steps", "duration"]
    last = [key for key in columns_of(table) if key.startswith(LAST) and key not in NOT_SHOWN]
    return [*labels, "best", "best_epoch", *differ, "epochs", "steps", "duration", *last]


def print_table(table: list[Row], columns: list[str], names: list[str]) -> None:
    """As wide as the console; further columns come below, with the names of the runs again."""
    cells = {}
    for key in columns:
        column = [plain_text(text, MAX_CELL.get(key, MAX_OTHER))
                  for text in (heading(key, names), *texts(table, key))]
        size = max(map(len, column))
        is_text = any(isinstance(row.get(key), str) for row in table)
        cells[key] = [text.ljust(size) if is_text else text.rjust(size) for text in column]
    labels = [key for key in columns if key in ("name", "run")]
    left = [key for key in columns if key not in labels]
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    blocks: list[list[str]] = []
    for key in left:
        if not blocks or width < sum(len(cells[one][0]) + 2
                                     for one in [*labels, *blocks[-1], key]) - 2:
            blocks.append([])
        blocks[-1].append(key)
    for block in blocks or [[]]:
        print()
        for line in zip(*(cells[key] for key in [*labels, *block]), strict=True):
            print("  ".join(line).rstrip())
    for row in table:
        if "state" in columns and len(row["state"]) > MAX_CELL["state"]:
            text = plain_text(f"{row['name']}/{row['run']}: {row['state']}", 400)
            print(textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def heading(key: str, names: list[str]) -> str:
    """The column's name, or the end of it that is enough for the options, if that is shorter."""
    if len(key) <= MAX_OTHER and not key.startswith(LAST):
        return key
    ends = (key.split(".", number)[-1] for number in range(key.count("."), 0, -1))
    return next((end for end in ends if ends_with(names, end) == [key] and end not in names), key)


def texts(table: list[Row], key: str) -> list[str]:
    """A column's values as text, with as many digits as tell them apart, from four to six."""
    different = len({row[key] for row in table if key in row})
    for digits in (4,) if key.startswith(LAST) else (4, 5, 6):
        found = [text_of(row, key, digits) for row in table]
        if len(set(found)) >= different:
            break
    return found


def text_of(row: Row, key: str, digits: int) -> str:
    value, sd = row.get(key), row.get("sd")
    if value is None or value == "" or value != value:
        return "-"
    if key == "duration":
        return duration(value)
    if not isinstance(value, float):
        return str(value)
    if key == "sd":
        return f"{value:#.2g}".rstrip(".")
    if key == "mean" and sd and value:  # to the second digit of the deviation
        digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(sd)) + 2
        return f"{value:#.{min(max(digits, 2), 10)}g}".rstrip(".")
    return f"{value:.{digits}g}"


def plot(table: list[Row], histories: dict[str, list[Row]], names: list[str],
         path: Path | None) -> str:
    """Draws the runs, called by what sets them apart."""
    differ, columns, labels = differing(table), default_columns(table, False), {}
    for row in table:
        label = f"{row['name']}/{row['run']}" if "name" in columns else row["run"]
        pairs = [f"{key.rpartition('.')[2]}={row[key]}" for key in differ if key in row]
        label += f"  {', '.join(pairs)}" if len(pairs) <= 3 else ""
        labels[label if label not in labels else row["path"]] = histories[row["path"]]
    path = path or Path(re.sub(r"[^\w.-]+", "_", "_".join(names)) + ".png")
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected the name of a PNG file, got {str(path)!r}")
    drawn = {label: rows for label, rows in labels.items()
             if any(name in row for row in rows for name in names)}
    draw_curves(drawn or labels, path, names)
    return f"{path}, with {len(drawn)} of {len(labels)} runs"


def write_csv(table: list[Row], path: Path) -> str:
    with replaced(path) as temporary:
        frame_of(table).to_csv(temporary, index=False, errors="replace")
    return str(path)


if __name__ == "__main__":
    with clean_exit():
        try:
            main()
            sys.stdout.flush()
        except BrokenPipeError:  # what reads it, like head, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
