"""The folders of a run: found by a checkpoint, or made so that no two runs share one."""

import logging
import os
import re
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.environment import environment
from utils.errors import CheckpointError, ConfigError, RunError
from utils.run_lock import lock_folder
from utils.settings import FILE_NAME
from utils.util import replace_json

logger = logging.getLogger("config")

MAX_NAME = 100  # characters


class RunFolder:
    """``<root>/models/<name>/<run_id>`` for checkpoints and ``<root>/log/<name>/<run_id>`` beside.

    Args:
        root: ``trainer.save_dir``.
        name: of the run.
        run_id: None for a timestamp, made unique; "" for the folders of ``name`` themselves.
        resume: a checkpoint. If it lies in a folder of a run of this name, that folder goes on.

    Attributes:
        save_dir, log_dir: the two folders; with a timestamp they are final once they are made.
        is_made: whether they are there.
    """

    def __init__(self, root: Path, name: str, run_id: str | None, *,
                 resume: Path | None = None) -> None:
        for option, text in (("name", name), ("--run-id", run_id)):
            if text and not _is_safe(text):
                raise ConfigError(f"{option}: expected a name of at most {MAX_NAME} characters "
                                  "that can name a folder everywhere: without / \\ : * ? \" < > |, "
                                  f"a dot or space at its ends, none like CON, got {text!r}")
        self.run_id = run_id
        self.is_made = False
        self.resume = resume
        found = None if resume is None or run_id is not None else _folder_of(resume, name)
        self.goes_on = found is not None
        if found is not None:
            root, self.run_id = found
        self._models, self._logs = root / "models" / name, root / "log" / name
        self._place(self.run_id if self.run_id is not None else datetime.now().strftime(
            "%Y%m%d_%H%M%S"))

    def make(self, config: dict[str, Any]) -> int | None:
        """Makes and locks the folders, writes the config and what the run is made with.

        Returns:
            For a run that goes on, the size in bytes that its log had at the checkpoint.

        Raises:
            ConfigError: the chosen ``run_id`` is taken.
            RunError: the folder cannot be made, or another process writes to it.
        """
        try:
            if self.goes_on or self.run_id == "":
                self.save_dir.mkdir(parents=True, exist_ok=True)
            else:
                self._make_new()
            self.log_dir.mkdir(parents=True, exist_ok=True)
            lock_folder(self.save_dir)
            replace_json(config, self.save_dir / "config.json")
            replace_json(environment(shlex.join(sys.argv)), self.save_dir / "environment.json")
        except OSError as error:
            raise RunError(f"{self.save_dir}: the run's folder cannot be written "
                           f"({error.strerror}); choose another trainer.save_dir") from error
        self.is_made = True
        if not self.goes_on or self.resume is None:
            return None
        from utils.checkpoint_file import read_checkpoint  # needs torch, which takes seconds

        return read_checkpoint(self.resume).get("log_bytes")

    def _make_new(self) -> None:
        self._models.mkdir(parents=True, exist_ok=True)
        first = self.save_dir.name
        for number in range(2, 10000):
            try:
                return self.save_dir.mkdir()
            except FileExistsError:  # making the folder is the test, not the clock
                if self.run_id is not None:
                    raise ConfigError(f"--run-id: {self.save_dir} exists; go on with it by "
                                      f"--resume {self.save_dir}, or choose another name") from None
                self._place(f"{first}_{number}")
        raise RunError(f"{self.save_dir}: no free run id")

    def _place(self, run_id: str) -> None:
        self.save_dir, self.log_dir = self._models / run_id, self._logs / run_id


def find_checkpoint(path: Path, *, pattern: str | None = None,
                    best_first: bool = False) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that ``--resume`` means, and its content.

    Args:
        path: a checkpoint; or a run's folder, of which the newest readable one is taken.
        pattern: of run folders below ``path``; the one with the newest checkpoint is taken.
        best_first: of a folder take ``model_best.pth`` if there is one.

    Raises:
        CheckpointError: there is none, or none that can be read.
    """
    from utils.checkpoint_file import read_checkpoint  # needs torch, which takes seconds

    if pattern is None and not os.path.isdir(path):
        if path.suffix.lower() == ".json":
            raise CheckpointError(f"{path}: expected a checkpoint (.pth), got a config; "
                                  f"to start a run with it, use -c {path}")
        if not os.path.exists(path):
            raise CheckpointError(f"{path}: no such file; expected a checkpoint (.pth), a run's "
                                  "folder, or 'latest'")
        return path, read_checkpoint(path)
    files = list(path.glob("*.pth" if pattern is None else f"{pattern}/*.pth"))
    rank = {"model_best.pth": 2} if best_first else {"latest.pth": 1}
    files.sort(key=lambda file: (rank.get(file.name, 0) if pattern is None else 0,
                                 _changed_at(file), rank.get(file.name, 0)), reverse=True)
    if not files:
        where = path if pattern is None else path / pattern
        raise CheckpointError(f"{where}: no checkpoint (.pth) in this folder")
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


def _is_safe(name: str) -> bool:
    return re.fullmatch(FILE_NAME, name) is not None and len(name) <= MAX_NAME


def _changed_at(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:  # a link to nothing; reading it says so
        return 0


def _folder_of(checkpoint: Path, name: str) -> tuple[Path, str] | None:
    """(root, run_id) if the file lies in a folder of a run of that name."""
    folder = checkpoint.resolve().parent
    if folder.name == name and folder.parent.name == "models":
        return _relative(folder.parent.parent), ""
    if folder.parent.name == name and folder.parent.parent.name == "models":
        return _relative(folder.parent.parent.parent), folder.name
    return None


def _relative(folder: Path) -> Path:
    """As seen from here if it lies below, so that messages stay short."""
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
