"""Runs on the disk as a table: what each is, how it went, what sets it apart."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from logger.history import FILE_NAME
from utils.config.settings import DEFAULTS
from utils.errors import ConfigError
from utils.runs.folder import CONFIG, ENVIRONMENT, FINISHED, LOCK, STATUS

FACTS = ("name", "run", "state", "monitor", "best", "best_epoch", "best_step", "epochs", "steps",
         "duration", "time", "path")
OF_GROUPS = ("mean", "sd", "n")
LAST = "last."
# what changes nothing in the result
PLACE = ("$schema", "base", *(f"trainer.{key}" for key in (
    "save_dir", "verbosity", "log_steps", "log_images", "log_histograms", "tensorboard", "trackers",
    "profile_steps", "async_save", "save_freq", "save_steps", "keep_last", "keep_best")))
NOT_LAST = ("epoch", "step", "seconds", "time")

Row = dict[str, Any]


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The folders ``models/NAME/RUN`` of runs below each of ``folders``, or that it is.

    Raises:
        ConfigError: one is no folder.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not os.path.isdir(folder):
            raise ConfigError(f"{folder}: expected a folder with runs below it, like saved/, "
                              f"{'got a file' if os.path.exists(folder) else 'there is none'}")
        found |= {run.resolve(): run for run in _runs_in(folder)}
    return list(found.values())


def read_runs(*folders: str | Path) -> Any:
    """A pandas DataFrame with a row for each run below the folders: facts, last values, settings.

    Raises:
        ConfigError: one is no folder.
    """
    return frame_of([row for row, _ in read_rows(map(Path, folders or ["saved/"]))])


def read_rows(folders: Iterable[Path]) -> list[tuple[Row, list[Row]]]:
    """What ``read_run`` says of each run below the folders."""
    return [read_run(run) for run in find_runs(folders)]


def frame_of(table: list[Row]) -> Any:
    """Rows as a pandas DataFrame; integers stay integers where others have none."""
    import pandas as pd

    return pd.DataFrame(table, columns=columns_of(table), dtype=object)


def columns_of(table: list[Row]) -> list[str]:
    """Facts, last values in the order of the histories, settings in that of the configs."""
    last = dict.fromkeys(key for row in table for key in row if key.startswith(LAST))
    return [*FACTS, *last, *setting_names(table)]


def read_run(folder: Path) -> tuple[Row, list[Row]]:
    """The facts, last values and settings of a run, and the rows of its history.

    What cannot be read is told in ``state``; nothing on the disk is changed.
    """
    problems: list[str] = []
    config = _read_object(folder / CONFIG, "config", problems)
    status = _current_status(folder, problems)
    state = status.get("state", "")
    rows = _read_history(_log_dir(folder) / FILE_NAME, problems, state == "running")
    if not rows and (state in ("", *FINISHED) or status.get("epoch")):
        problems.append("no history")
    trainer = config.get("trainer", {})
    if not isinstance(trainer, dict):
        problems.append("config damaged")
        config = trainer = {}
    monitor = str(trainer.get("monitor", "off"))
    best = best_row(rows, monitor, _number(trainer, "min_delta") or 0.0)
    if is_number(told := status.get("best_step")):  # by the run itself: its monitor may be another
        best = next((row for row in rows if row.get("step") == told), best)
    metric = monitor.partition(" ")[2]
    if metric and rows and not any(is_number(row.get(metric)) for row in rows):
        problems.append(f"no {metric} in the history")
    last = rows[-1] if rows else {}
    odd = [key for key, value in last.items() if is_number(value) and not math.isfinite(value)]
    if odd:
        problems.append(f"{', '.join(odd[:2])}{', ...' if len(odd) > 2 else ''} not finite")
    reason = str(status.get("reason") or "")
    words = [f"{state}: {reason}" if reason and state == "failed" else state, *problems]
    name, run = _name_and_id(folder)
    facts = {
        "name": name, "run": run, "state": "; ".join(filter(None, words)),
        "monitor": monitor if metric else None, "best": best.get(metric),
        "best_epoch": _number(best, "epoch"), "best_step": _number(best, "step"),
        "epochs": _number(status, "epoch") if _number(status, "epoch") is not None else (
            _number(last, "epoch") or 0), "steps": _number(last, "step"),
        "duration": round(sum(_number(row, "seconds") or 0 for row in rows), 3) if rows else None,
        "time": _time(folder, status, last), "path": folder.as_posix()}
    values = {LAST + key: value for key, value in last.items()
              if key not in NOT_LAST and is_number(value)}
    return facts | values | (settings_of(config) if config else {}), rows


def best_row(rows: list[Row], monitor: str, min_delta: float = 0.0) -> Row:
    """The row that the run itself held for its best; empty without one."""
    mode, _, metric = monitor.partition(" ")
    sign = {"min": 1, "max": -1}.get(mode, 0)
    lowest, best = math.inf, {}
    for row in rows if sign else ():
        value = _number(row, metric)
        if value is not None and lowest - sign * value > min_delta:  # never of NaN
            lowest, best = sign * value, row
    return best


def settings_of(config: Row) -> Row:
    """A config as dotted keys and plain values; absent, null and empty are the same, and so are
    absent and the default."""
    flat = {**DEFAULTS, **dict(_flatten(config))}
    taken = {f"config.{key}" if key in (*FACTS, *OF_GROUPS) or key.startswith(LAST) else key: value
             for key, value in flat.items() if key != "name"}
    return {key: _plain(value) for key, value in taken.items() if value not in (None, [], {})}


def setting_names(table: Iterable[Row]) -> list[str]:
    """The columns that are settings, in the order of the configs."""
    return list(dict.fromkeys(key for row in table for key in row if not (
        key in (*FACTS, *OF_GROUPS) or key.startswith(LAST))))


def differing(table: list[Row]) -> list[str]:
    """The settings in which runs differ; those without a config have no say."""
    names = setting_names(table)
    known = [row for row in table if any(name in row for name in names)]
    return [name for name in names if name not in PLACE
            and len({row.get(name) for row in known}) > 1]


def _runs_in(folder: Path) -> list[Path]:
    whole = folder.resolve()
    direct = [folder] if whole.parent.parent.name == "models" and _is_run(folder) else []
    if whole.parent.name == "models":
        direct = _runs_of_name(folder)
    if whole.name == "models":
        direct = [run for name in _folders(folder) for run in _runs_of_name(name)]
    if direct:
        return direct
    found = []
    for place, folders, _ in os.walk(folder):
        if "models" in folders:
            found += [run for name in _folders(Path(place, "models"))
                      for run in _runs_of_name(name)]
        folders[:] = sorted(name for name in folders if name not in ("models", "log")
                            and not name.startswith("."))
    return found


def _runs_of_name(folder: Path) -> list[Path]:
    inside = [run for run in _folders(folder) if _is_run(run) or os.path.isdir(_log_dir(run))]
    return [folder, *inside] if _is_run(folder) else inside


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if os.path.isdir(path))
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return not {STATUS, ENVIRONMENT, LOCK}.isdisjoint(names) or any(
        name.endswith(".pth") for name in names)


def _name_and_id(folder: Path) -> tuple[str, str]:
    whole = folder.resolve()
    return (whole.name, "") if whole.parent.name == "models" else (whole.parent.name, whole.name)


def _log_dir(folder: Path) -> Path:
    whole = folder.resolve()
    name, run = _name_and_id(folder)
    return whole.parents[1 if not run else 2] / "log" / name / run


def _current_status(folder: Path, problems: list[str]) -> Row:
    status = _read_object(folder / STATUS, "status", problems)
    if not isinstance(status.get("state", ""), str):
        problems.append("status damaged")
        return {}
    if status.get("state") != "running":
        return status
    is_held = _is_held(folder / LOCK)
    if is_held is None:
        return status | {"state": "running or killed"}
    if is_held:
        return status
    again = _read_object(folder / STATUS, "status", problems)  # it may just have ended
    return again if again.get("state", "running") != "running" else status | {"state": "killed"}


def _is_held(path: Path) -> bool | None:
    """Whether a process has the lock of its run; None where that cannot be found out. To find out
    takes a free one for microseconds; a run that goes on waits for it for seconds."""
    from filelock import FileLock, Timeout

    if not os.path.exists(path):  # also where it may not be looked at
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # not ours to open, or a file system without locks
        return None
    lock.release()
    return False


def _read_object(path: Path, what: str, problems: list[str]) -> Row:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"no {what}")
        return {}
    except OSError as error:
        problems.append(f"{what}: {error.strerror}")
        return {}
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        problems.append(f"{what} damaged")
        return {}
    return content


def _read_history(path: Path, problems: list[str], is_running: bool) -> list[Row]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"history: {error.strerror}")
        return []
    rows, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            damaged.append(number)
        elif row:
            rows.append(row)
    if damaged and not (is_running and damaged == [len(lines)]):  # else it is being written
        problems.append(f"history: line {damaged[0]} damaged" if len(damaged) == 1 else
                        f"history: {len(damaged)} lines damaged")
    return rows


def _number(row: Row, key: str) -> Any:
    return row[key] if is_number(row.get(key)) else None


def _time(folder: Path, status: Row, last: Row) -> str:
    """When the run was last heard of, to the second."""
    told = [str(text).replace("T", " ") for text in (status.get("time"), last.get("time")) if text]
    return max(told) if told else (
        f"{datetime.fromtimestamp(folder.stat().st_mtime):%Y-%m-%d %H:%M:%S}")


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _plain(value: Any) -> Any:
    """Text of what is neither text nor a finite number."""
    if isinstance(value, str) or (is_number(value) and math.isfinite(value)):
        return value
    return json.dumps(value)


def is_number(value: Any) -> bool:
    """Whether it can be reckoned with: a float, or an integer that fits into one."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300)
