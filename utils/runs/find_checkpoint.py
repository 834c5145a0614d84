"""Which run and which checkpoint ``--resume`` means: a path, ``latest`` or ``auto``."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import CheckpointError
from utils.runs.folder import BEST, CONFIG, LATEST, is_finished

logger = logging.getLogger("config")


def find_checkpoint(path: Path, *, best_first: bool = False) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its content.

    Args:
        path: a checkpoint; or a run's folder, of which the newest readable one is taken.
        best_first: of a folder take ``model_best.pth`` if there is one.

    Raises:
        CheckpointError: there is none, or none that can be read.
    """
    from utils.runs.checkpoint_file import read_checkpoint  # needs torch, which takes seconds

    if not os.path.isdir(path):
        if path.suffix.lower() == ".json":
            raise CheckpointError(f"{path}: expected a checkpoint (.pth), got a config; "
                                  f"to start a run with it, use -c {path}")
        if not os.path.exists(path):
            raise CheckpointError(f"{path}: no such file; expected a checkpoint (.pth), a run's "
                                  "folder, 'latest' or 'auto'")
        return path, read_checkpoint(path)
    first = BEST if best_first else LATEST
    files = sorted(path.glob("*.pth"), reverse=True,
                   key=lambda file: (file.name == first, changed_at(file)))
    if not files:
        runs = sorted(_run_folders(path), key=changed_at)
        raise CheckpointError(f"{path}: no checkpoint (.pth) in this folder" + (
            f"; it holds runs, the newest is {runs[-1]}" if runs else ""))
    reasons = []
    for file in files:
        try:
            checkpoint = read_checkpoint(file)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            logger.warning("%s", reason)
        if reasons:
            logger.warning("taking the newest readable one: %s", file)
        return file, checkpoint
    raise CheckpointError("no readable checkpoint:\n  " + "\n  ".join(reasons))


def newest_run(root: Path, name: str | None) -> Path:
    """The folder of the run that was written to last.

    Args:
        root: ``trainer.save_dir``.
        name: of the run; None takes any.

    Raises:
        CheckpointError: there is no run, or the newest has no checkpoint.
    """
    runs = sorted(_run_folders(_models(root, name)), key=changed_at, reverse=True)
    if not runs:
        raise CheckpointError(f"{_models(root, name)}: no run in this folder")
    if not any(runs[0].glob("*.pth")):
        older = next((run for run in runs if any(run.glob("*.pth"))), None)
        raise CheckpointError(
            f"{runs[0]}: the newest run has no checkpoint yet. Start it anew by --resume auto"
            + (f", or name an older one: {older}" if older else ""))
    return runs[0]


def auto_run(root: Path, name: str | None, run_id: str | None) -> Path | None:
    """The run that a job goes on with; None if it has to start one.

    Args:
        run_id: of the run; None takes the newest one of ``name`` that has not finished.
    """
    if run_id is not None:
        folder = _models(root, name) / run_id
        return folder if folder.is_dir() else None
    runs = sorted(_run_folders(_models(root, name)), key=changed_at, reverse=True)
    return next((run for run in runs if not is_finished(run)), None)


def changed_at(path: Path) -> int:
    """When a file, or the newest file of a run's folder, was written."""
    files = [*path.glob("*.pth"), path / CONFIG] if path.is_dir() else [path]
    times = []
    for file in files:
        try:
            times.append(file.stat().st_mtime_ns)
        except OSError:  # a link to nothing; reading it says so
            continue
    return max(times, default=0)


def _models(root: Path, name: str | None) -> Path:
    return root / "models" / name if name else root / "models"


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders with a config or a checkpoint, at and below ``folder``."""
    candidates = [folder, *folder.glob("*"), *folder.glob("*/*"), *folder.glob("*/*/*")]
    return (path for path in candidates
            if path.is_dir() and ((path / CONFIG).is_file() or any(path.glob("*.pth"))))
