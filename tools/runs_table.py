"""Runs on the disk as a table: what each is, how it went, what sets it apart."""

import json
import math
import operator
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from logger.history import FILE_NAME
from tools.run_files import (
    Row,
    current_status,
    find_runs,
    log_dir,
    name_and_id,
    read_history,
    read_or_tell,
)
from utils.config.settings import DEFAULTS
from utils.runs.folder import CONFIG, FINISHED

FACTS = ("name", "run", "state", "monitor", "best", "best_epoch", "best_step", "epochs", "steps",
         "duration", "time", "path")
OF_GROUPS = ("mean", "sd", "n")
LAST = "last."
WHEN = operator.itemgetter("time")
# what changes nothing in the result
PLACE = ("$schema", "base", *(f"trainer.{key}" for key in (
    "save_dir", "verbosity", "log_steps", "log_images", "log_histograms", "log_graph",
    "tensorboard", "trackers", "profile_steps", "async_save", "save_freq", "save_steps",
    "keep_last", "keep_best")))
NOT_LAST = ("epoch", "step", "seconds", "time")


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
    config = read_or_tell(folder / CONFIG, "config", problems)
    status = current_status(folder, problems)
    state = status.get("state", "")
    rows = read_history(log_dir(folder) / FILE_NAME, problems, state == "running")
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
    name, run = name_and_id(folder)
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
    settings = settings_of(config) if config else {}
    if settings:
        settings["processes"] = _number(status, "processes") or 1
    return facts | values | settings, rows


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


def grouped(table: list[Row]) -> list[Row]:
    """One row for runs whose configs are equal but for the seed: the first ``+`` how many more.

    ``mean``, ``sd`` (of the sample) and ``n`` are of the best values of runs that came to their
    end, if there are any; of each seed the newest counts.
    """
    names = [name for name in differing(table) if name != "seed"]
    groups: dict[Any, list[Row]] = {}
    for row in table:
        values = (row["name"], *(row.get(name) for name in names))
        groups.setdefault(values if "seed" in row else row["path"], []).append(row)
    return [_group_row(rows) for rows in groups.values()]


def _group_row(rows: list[Row]) -> Row:
    ended = [row for row in rows if row["state"].startswith(FINISHED)]
    by_seed = {row.get("seed"): row["best"] for row in sorted(ended or rows, key=WHEN)
               if is_number(row["best"]) and math.isfinite(row["best"])}
    values = list(by_seed.values())
    of_group = {"mean": statistics.fmean(values) if values else None,
                "sd": statistics.stdev(values) if len(values) > 1 else None, "n": len(values)}
    if len(rows) == 1:
        return rows[0] | of_group
    keys = dict.fromkeys(key for row in rows for key in row)
    common = {key: _common(key, [row.get(key) for row in rows]) for key in keys}
    states = Counter(re.split("[:;]", row["state"])[0] for row in rows)
    state = ", ".join(f"{count} {word}" if len(states) > 1 else word
                      for word, count in states.most_common())
    return common | of_group | {"run": f"{rows[0]['run']} +{len(rows) - 1}", "state": state,
                                "time": max(map(WHEN, rows))}


def _common(key: str, values: list[Any]) -> Any:
    """The value that all have; else the mean of a measured one; else nothing."""
    if len(set(values)) == 1:
        return values[0]
    there = [value for value in values if value is not None]
    is_measured = key.startswith((LAST, "best")) or key in ("epochs", "steps", "duration")
    return statistics.fmean(there) if is_measured and there else None


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
