"""Where the runs are below a folder, and what their files say, damaged ones too."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.errors import ConfigError
from utils.runs.folder import ENVIRONMENT, LOCK, STATUS

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
    inside = [run for run in _folders(folder) if _is_run(run) or os.path.isdir(log_dir(run))]
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


def name_and_id(folder: Path) -> tuple[str, str]:
    """Of a run, by its folder; one without an id has ""."""
    whole = folder.resolve()
    return (whole.name, "") if whole.parent.name == "models" else (whole.parent.name, whole.name)


def log_dir(folder: Path) -> Path:
    """The folder of its log."""
    whole = folder.resolve()
    name, run = name_and_id(folder)
    return whole.parents[1 if not run else 2] / "log" / name / run


def current_status(folder: Path, problems: list[str]) -> Row:
    """What ``status.json`` says, with the state ``killed`` where nobody runs it any more.

    Args:
        problems: gets what is wrong.
    """
    status = read_or_tell(folder / STATUS, "status", problems)
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
    again = read_or_tell(folder / STATUS, "status", problems)  # it may just have ended
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


def read_or_tell(path: Path, what: str, problems: list[str]) -> Row:
    """A JSON file, or nothing and a problem."""
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


def read_history(path: Path, problems: list[str], is_running: bool) -> list[Row]:
    """The rows of a history that can be read; of a running one the last may be half written."""
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
