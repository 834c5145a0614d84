"""The log: console lines that respect the progress bar, and a file in the run's folder."""

import logging
import logging.config
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Any

from logger.progress_bar import write_above
from utils.config.json_file import read_json
from utils.devices.processes import is_main_process, rank

CONFIG_FILE = Path(__file__).with_name("logger_config.json")
RESULT = 35  # above WARNING, for the end result that is shown at every verbosity
LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}  # of the console, by verbosity
# extra= of records that repeat what a terminal shows already: by its bar, or as a traceback
BAR_SHOWS = {"is_on_bar": True}
FILE_ONLY = {"is_file_only": True}
GOOD = {"is_good": True}  # extra= of records that stand out in green
YELLOW, GREEN, BOLD, PLAIN = "\033[33m", "\033[32m", "\033[1m", "\033[0m"

logging.addLevelName(RESULT, "RESULT")
_console_levels: dict[str, int] = {}
_waiting: list[logging.handlers.MemoryHandler] = []


class ConsoleHandler(logging.StreamHandler):
    """Writes to standard output, above a progress bar if there is one.

    On a terminal the lines of single batches are left to the bar.
    """

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        text = f"warning: {text}" if record.levelno == logging.WARNING else text
        text = text if is_main_process() else f"[process {rank()}] {text}"
        is_terminal = getattr(self.stream, "isatty", bool)()
        if not is_terminal or os.environ.get("NO_COLOR"):
            return text
        colour = {RESULT: BOLD, logging.WARNING: YELLOW}.get(record.levelno) or (
            GREEN if getattr(record, "is_good", False) else "")
        return f"{colour}{text}{PLAIN}" if colour else text

    def emit(self, record: logging.LogRecord) -> None:
        is_on_bar = getattr(record, "is_on_bar", False) and sys.stderr.isatty()
        level = _console_levels.get(record.name, _console_levels.get("", logging.NOTSET))
        if not is_main_process() and record.levelno in (logging.DEBUG, logging.INFO, RESULT):
            return  # the main process says it
        if record.levelno < level or is_on_bar or getattr(record, "is_file_only", False):
            return
        try:
            if write_above(self.format(record), self.stream):
                self.flush()
            else:
                super().emit(record)
        except Exception:  # what logging's own handlers do
            self.handleError(record)


def set_console_level(verbosity: int, name: str = "") -> None:
    """Says from which level on the console shows a logger; without a name, all others.

    Raises:
        ValueError: no such verbosity.
    """
    if verbosity not in LEVELS:
        raise ValueError(f"verbosity must be one of {list(LEVELS)}, got {verbosity!r}")
    _console_levels[name] = LEVELS[verbosity]


def setup_logging(save_dir: str | Path | None = None,
                  log_config: str | Path | dict[str, Any] = CONFIG_FILE,
                  default_level: int = logging.INFO) -> None:
    """Sets up logging after ``log_config``, in the layout of ``logging.config``.

    Without ``save_dir`` only the console is written, and what a file would get is kept in memory
    until a later call says where files go.

    Args:
        save_dir: folder for the handlers' files.
        log_config: a JSON file or its content; a file that is missing gives a plain console log.
    """
    if not isinstance(log_config, dict):
        if not Path(log_config).is_file():
            logging.basicConfig(level=default_level)
            logging.getLogger(__name__).warning(
                "%s is missing: logging to the console only", log_config)
            return
        log_config = read_json(log_config)
    handlers = {name: dict(handler) for name, handler in log_config["handlers"].items()}
    for name, options in handlers.items():
        if "filename" not in options:
            continue
        if save_dir is None:
            handlers[name] = {"class": "logging.handlers.MemoryHandler", "capacity": 10000,
                              "flushLevel": logging.CRITICAL + 1,
                              "level": options.get("level", "NOTSET")}
        else:
            options["filename"] = str(Path(save_dir) / options["filename"])
    early = {handler.name: list(handler.buffer) for handler in _waiting}
    logging.config.dictConfig(log_config | {"handlers": handlers})
    logging.captureWarnings(True)
    _waiting[:] = [handler for handler in logging.getLogger().handlers
                   if isinstance(handler, logging.handlers.MemoryHandler)]
    for handler in logging.getLogger().handlers:
        for record in early.get(handler.name, []):
            handler.handle(record)
