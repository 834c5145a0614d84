"""The log: console lines that respect the progress bar, and a file in the run's folder."""

import logging
import logging.config
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Any

from utils.util import read_json

CONFIG_FILE = Path(__file__).with_name("logger_config.json")
RESULT = 35  # above WARNING, for the end result that is shown at every verbosity
# extra= of records that repeat what a terminal shows already: by its bar, or as a traceback
BAR_SHOWS = {"is_on_bar": True}
FILE_ONLY = {"is_file_only": True}

logging.addLevelName(RESULT, "RESULT")
_waiting: list[logging.handlers.MemoryHandler] = []


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard output, above a progress bar if there is one.

    On a terminal the lines of single batches are left to the bar.
    """

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"warning: {text}" if record.levelno == logging.WARNING else text

    def emit(self, record: logging.LogRecord) -> None:
        is_on_bar = getattr(record, "is_on_bar", False) and sys.stderr.isatty()
        if is_on_bar or getattr(record, "is_file_only", False):
            return
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        if tqdm is None or not getattr(tqdm, "_instances", None):
            super().emit(record)
            return
        try:
            tqdm.write(self.format(record), file=self.stream)
            self.flush()
        except Exception:  # what logging's own handlers do
            self.handleError(record)


def setup_logging(save_dir: str | Path | None = None,
                  log_config: str | Path | dict[str, Any] = CONFIG_FILE,
                  default_level: int = logging.INFO, *, kept_bytes: int | None = None) -> None:
    """Sets up logging after ``log_config``, in the layout of ``logging.config``.

    Without ``save_dir`` only the console is written, and what a file would get is kept in memory
    until a later call says where files go.

    Args:
        save_dir: folder for the handlers' files.
        log_config: a JSON file or its content; a file that is missing gives a plain console log.
        kept_bytes: cut the first handler's file to this size first: a resumed run goes on there.
    """
    if not isinstance(log_config, dict):
        if not Path(log_config).is_file():
            logging.basicConfig(level=default_level)
            logging.getLogger(__name__).warning(
                "%s is missing: logging to the console only", log_config)
            return
        log_config = read_json(log_config)
    handlers = {name: dict(handler) for name, handler in log_config["handlers"].items()}
    files = [name for name, handler in handlers.items() if "filename" in handler]
    for name in files:
        if save_dir is None:
            handlers[name] = {"class": "logging.handlers.MemoryHandler", "capacity": 10000,
                              "flushLevel": logging.CRITICAL + 1,
                              "level": handlers[name].get("level", "NOTSET")}
        else:
            path = Path(save_dir) / handlers[name]["filename"]
            handlers[name]["filename"] = str(path)
            is_cut = kept_bytes is not None and name == files[0] and path.is_file()
            if is_cut and path.stat().st_size > kept_bytes:
                os.truncate(path, kept_bytes)
    early = {handler.name: list(handler.buffer) for handler in _waiting}
    logging.config.dictConfig(log_config | {"handlers": handlers})
    logging.captureWarnings(True)
    _waiting[:] = [handler for handler in logging.getLogger().handlers
                   if isinstance(handler, logging.handlers.MemoryHandler)]
    for handler in logging.getLogger().handlers:
        for record in early.get(handler.name, []):
            handler.handle(record)


def log_bytes() -> int | None:
    """Size of the log file so far, if there is one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.flush()
            return os.path.getsize(handler.baseFilename)
    return None
