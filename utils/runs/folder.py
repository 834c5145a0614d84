"""The folders of a run: where they are, made so that no two runs share one, one writer each."""

import json
import logging
import re
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.config.json_file import replace_json
from utils.config.settings import FILE_NAME, MAX_NAME
from utils.devices.processes import is_main_process, num_processes
from utils.errors import ConfigError, RunError
from utils.runs.environment import environment

logger = logging.getLogger("config")

# the names of what is in a run's folder, beside its epoch files
LATEST, BEST = "latest.pth", "model_best.pth"
CONFIG, ENVIRONMENT, STATUS, LOCK = "config.json", "environment.json", "status.json", ".lock"
FINISHED = ("finished", "stopped early")
WAIT_SECONDS = 10  # a killed run's loader workers hold its lock for some seconds more


class RunFolder:
    """``<root>/models/<name>/<run_id>`` for checkpoints and ``<root>/log/<name>/<run_id>`` beside.

    Of several processes only the main one writes. Nothing is on the disk before ``make``. A run
    that goes on changes no file that is there before ``record``, so that one which fails at once
    leaves everything as it was.

    Args:
        root: ``trainer.save_dir``.
        name: of the run.
        run_id: None for a timestamp, made unique; "" none: the folders of ``name`` themselves.
        resume: a checkpoint to go on with in the folder in which it lies.
        restart: folder of a run to start anew in.

    Attributes:
        save_dir, log_dir: the two folders; with a timestamp they are final once they are made.
        goes_on: whether an earlier run's folder is taken.
    """

    def __init__(self, root: Path, name: str, run_id: str | None = None, *,
                 resume: Path | None = None, restart: Path | None = None) -> None:
        for option, text in (("name", name), ("--run-id", run_id)):
            if text and (problem := name_problem(text)):
                raise ConfigError(f"{option}: {problem}")
        self.is_made = self.is_recorded = False
        self._lock: Any = None
        found = None if resume is None else _place_of(resume.resolve().parent)
        if restart is not None:
            found = _place_of(restart.resolve())
        self.goes_on = found is not None
        self._elsewhere = resume if found is None else None
        if found is not None:
            root, name, run_id = found
        self.run_id = run_id
        self._models, self._logs = root / "models" / name, root / "log" / name
        self._place(run_id if run_id is not None else f"{datetime.now():%Y%m%d_%H%M%S}")

    def make(self) -> None:
        """Makes and locks the folders.

        Raises:
            ConfigError: the chosen ``run_id`` is taken.
            RunError: the folder cannot be made, or another process writes to it.
        """
        if not is_main_process():
            self.is_made = True
            return
        if self._elsewhere is not None:
            logger.warning("%s does not lie in a folder of runs (models/NAME/RUN): the run writes "
                           "to a folder of its own, %s", self._elsewhere, self.save_dir)
        try:
            if self.goes_on or self.run_id == "":
                self.save_dir.mkdir(parents=True, exist_ok=True)
            else:
                self._make_new()
            self.log_dir.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise RunError(f"{self.save_dir}: the run's folder cannot be written "
                           f"({error.strerror}); choose another trainer.save_dir") from error
        self.is_made = True

    def record(self, config: dict[str, Any]) -> None:
        """Writes the config and what the run is made with; those of its first start stay first.

        Raises:
            RunError: they cannot be written.
        """
        made_with = environment(shlex.join(sys.argv))
        earlier = read_object(self.save_dir / ENVIRONMENT)
        if earlier:
            made_with = earlier | {"resumed": [*earlier.get("resumed", []), made_with]}
        replace_json(config, self.save_dir / CONFIG)
        replace_json(made_with, self.save_dir / ENVIRONMENT)
        self.is_recorded = True
        self.tell("running")

    def tell(self, state: str, **details: Any) -> None:
        """Notes how the run goes in ``status.json``, once it is recorded."""
        if self.is_recorded:
            replace_json({"state": state, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
                          "processes": num_processes(), **details}, self.save_dir / STATUS)

    def release(self) -> None:
        """Lets another process write to the folder; the end of this one does so, too."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}  # a copy does not hold it

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self.save_dir / LOCK, timeout=WAIT_SECONDS if self.goes_on else 0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(f"{self.save_dir}: another process writes to this run; wait for it, "
                           "stop it, or start a run of its own with --new-run") from error
        except NotImplementedError:  # a file system without locks
            logger.warning("%s cannot be locked: take care that only one process writes to it",
                           self.save_dir)
        self._lock = lock

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


def name_problem(text: str) -> str | None:
    """Why a text cannot name a folder on every system, or None."""
    if len(text) <= MAX_NAME and re.fullmatch(FILE_NAME, text):
        return None
    return (f"expected a name of at most {MAX_NAME} characters that can name a folder everywhere: "
            "without / \\ : * ? \" < > |, a dot or space at its ends, none like CON, got "
            f"{text!r}")


def is_finished(folder: Path) -> bool:
    """Whether the run in the folder has come to its end by itself."""
    return read_object(folder / STATUS).get("state") in FINISHED


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file of a run's folder; empty where it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _place_of(folder: Path) -> tuple[Path, str, str] | None:
    """(root, name, run_id) of a folder in the layout of runs, whatever it was called before."""
    if folder.parent.name == "models":
        return _relative(folder.parent.parent), folder.name, ""
    if folder.parent.parent.name == "models":
        return _relative(folder.parent.parent.parent), folder.parent.name, folder.name
    return None


def _relative(folder: Path) -> Path:
    """As seen from here if it lies below, so that messages stay short."""
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
