"""The log: a file with everything, a console with what the verbosity asks for."""

import io
import json
import logging
import logging.handlers
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from logger import logger as module
from logger import setup_logging
from logger.logger import (
    BAR_SHOWS,
    CONFIG_FILE,
    FILE_ONLY,
    RESULT,
    ConsoleHandler,
    set_console_level,
)
from logger.progress_bar import ProgressBar

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Console levels that a test sets do not reach the next one."""
    monkeypatch.setattr(module, "_console_levels", {})


@pytest.fixture
def log() -> logging.Logger:
    logger = logging.getLogger("test_logger")
    logger.setLevel(logging.DEBUG)
    return logger


def file_text(folder: Path) -> str:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return (folder / "info.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("cwd", ["here", "."])
def test_logging_works_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       log: logging.Logger, cwd: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / cwd)
    setup_logging(tmp_path)
    log.info("hello")
    assert "hello" in file_text(tmp_path)


def test_file_has_the_lines_of_batches_and_warnings(tmp_path: Path, log: logging.Logger) -> None:
    setup_logging(tmp_path)
    log.debug("batch 3", extra=BAR_SHOWS)
    log.warning("beware")
    assert "test_logger - DEBUG - batch 3" in file_text(tmp_path)
    assert "test_logger - WARNING - beware" in file_text(tmp_path)


def test_warnings_of_libraries_reach_the_file(tmp_path: Path) -> None:
    logging.captureWarnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        setup_logging(tmp_path)
        warnings.warn("step() came too early", stacklevel=1)
        logging.captureWarnings(False)
    assert "py.warnings - WARNING" in file_text(tmp_path)
    assert "step() came too early" in file_text(tmp_path)


def test_rotating_file_keeps_going_in_a_new_one(tmp_path: Path, log: logging.Logger) -> None:
    config = json.loads(CONFIG_FILE.read_text(encoding="utf-8"))
    handler = config["handlers"]["info_file_handler"]
    assert handler["maxBytes"] > 0 and handler["backupCount"] > 0
    handler["maxBytes"] = 200
    setup_logging(tmp_path, config)
    for number in range(10):
        log.info("line number %d", number)
    assert "line number 9" in file_text(tmp_path) and (tmp_path / "info.log.1").is_file()


def test_early_records_reach_the_file_later(tmp_path: Path, capsys: Capture,
                                            log: logging.Logger) -> None:
    setup_logging()
    log.warning("too early for a file")
    setup_logging(tmp_path)
    assert file_text(tmp_path).count("too early for a file") == 1
    assert capsys.readouterr().out.count("too early for a file") == 1


def test_early_records_reach_only_the_files_of_their_level(tmp_path: Path,
                                                           log: logging.Logger) -> None:
    config = json.loads(CONFIG_FILE.read_text(encoding="utf-8"))
    config["handlers"]["errors"] = {"class": "logging.FileHandler", "level": "ERROR",
                                    "filename": "errors.log"}
    config["root"]["handlers"].append("errors")
    setup_logging(None, config)
    log.info("harmless")
    log.error("bad")
    setup_logging(tmp_path, config)
    assert (tmp_path / "errors.log").read_text(encoding="utf-8") == "bad\n"
    assert file_text(tmp_path).count("bad") == file_text(tmp_path).count("harmless") == 1


def test_file_is_only_ever_added_to(tmp_path: Path, log: logging.Logger) -> None:
    setup_logging(tmp_path)
    log.info("before")
    before = file_text(tmp_path)
    setup_logging(tmp_path)
    log.info("again")
    assert file_text(tmp_path).startswith(before) and "again" in file_text(tmp_path)


@pytest.mark.parametrize(("verbosity", "shown"), [
    (0, ["warning: beware", "result"]), (1, ["epoch", "warning: beware", "result"]),
    (2, ["batch", "epoch", "warning: beware", "result"])])
@pytest.mark.parametrize("name", ["", "test_logger"])
def test_verbosity_changes_the_console_and_not_the_file(tmp_path: Path, capsys: Capture,
                                                        log: logging.Logger, name: str,
                                                        verbosity: int, shown: list[str]) -> None:
    set_console_level(verbosity, name)
    setup_logging(tmp_path)
    for level, text in ((logging.DEBUG, "batch"), (logging.INFO, "epoch"),
                        (logging.WARNING, "beware"), (RESULT, "result")):
        log.log(level, text)
    assert capsys.readouterr().out.splitlines() == shown
    assert [line.rsplit(" - ", 1)[1] for line in file_text(tmp_path).splitlines()] == [
        "batch", "epoch", "beware", "result"]


def test_level_of_one_logger_leaves_the_others_as_they_are(capsys: Capture,
                                                           log: logging.Logger) -> None:
    set_console_level(0)
    set_console_level(1, "test_logger")
    setup_logging()
    log.info("shown")
    logging.getLogger("other").info("not shown")
    assert capsys.readouterr().out == "shown\n"


def test_unknown_verbosity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"verbosity must be one of \[0, 1, 2\], got 3"):
        set_console_level(3)


def test_missing_config_still_gives_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    setup_logging(tmp_path, tmp_path / "absent.json")
    logging.getLogger("test_logger").warning("still here")
    assert "absent.json is missing" in caplog.text and "still here" in caplog.text


def test_config_may_be_the_users_own_file(tmp_path: Path, log: logging.Logger) -> None:
    path = tmp_path / "mine.json"
    path.write_text(CONFIG_FILE.read_text(encoding="utf-8").replace("info.log", "mine.log"),
                    encoding="utf-8")
    setup_logging(tmp_path, path)
    log.info("hello")
    assert "hello" in Path(tmp_path / "mine.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("level", "line"), [
    (logging.INFO, "text\n"), (logging.WARNING, "warning: text\n"), (RESULT, "text\n")])
def test_console_lines_are_bare_but_for_warnings(capsys: Capture, log: logging.Logger, level: int,
                                                 line: str) -> None:
    setup_logging()
    log.log(level, "text")
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(("stderr", "line"), [(Terminal, ""), (io.StringIO, "batch 3\n")])
def test_console_leaves_batch_lines_to_the_bar_of_a_terminal(monkeypatch: pytest.MonkeyPatch,
                                                             capsys: Capture, log: logging.Logger,
                                                             stderr: Any, line: str) -> None:
    monkeypatch.setattr(sys, "stderr", stderr())
    setup_logging()
    log.debug("batch 3", extra=BAR_SHOWS)
    assert capsys.readouterr().out == line


def test_records_for_the_file_only_are_not_on_the_console(tmp_path: Path, capsys: Capture,
                                                          log: logging.Logger) -> None:
    setup_logging(tmp_path)
    log.error("traceback", extra=FILE_ONLY)
    assert "traceback" in file_text(tmp_path) and capsys.readouterr().out == ""


def test_console_writes_above_a_bar(monkeypatch: pytest.MonkeyPatch, log: logging.Logger) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    setup_logging()
    bar = ProgressBar()
    bar.open("epoch 1", total=10)
    log.info("above")
    bar.close()
    before, after = screen.getvalue().split("above\n")
    assert before.endswith("\r") and "epoch 1" in after  # bar wiped, line written, bar redrawn


def test_line_that_cannot_be_formatted_does_not_stop_the_run(monkeypatch: pytest.MonkeyPatch,
                                                             capsys: Capture) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    ConsoleHandler().handle(logging.makeLogRecord({"msg": "%d", "args": ("x",), "levelno": 20}))
    assert capsys.readouterr().out == ""
