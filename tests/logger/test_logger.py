import io
import json
import logging
import logging.handlers
import sys
import warnings
from pathlib import Path

import pytest
from tqdm import tqdm

from logger import setup_logging
from logger.logger import BAR_SHOWS, CONFIG_FILE, FILE_ONLY, RESULT, ConsoleHandler, log_bytes


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def log():
    logger = logging.getLogger("test_logger")
    logger.setLevel(logging.DEBUG)
    return logger


def file_text(folder):
    for handler in logging.getLogger().handlers:
        handler.flush()
    return (folder / "info.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("cwd", ["here", "."])
def test_logging_works_from_any_folder(tmp_path, monkeypatch, capsys, log, cwd):
    """D44"""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / cwd)
    setup_logging(tmp_path)
    log.info("hello")
    assert "hello" in file_text(tmp_path)


def test_file_has_the_lines_of_batches_and_warnings(tmp_path, capsys, log):
    """D45"""
    setup_logging(tmp_path)
    log.debug("batch 3", extra=BAR_SHOWS)
    log.warning("beware")
    assert "test_logger - DEBUG - batch 3" in file_text(tmp_path)
    assert "test_logger - WARNING - beware" in file_text(tmp_path)


def test_warnings_of_libraries_reach_the_file(tmp_path, capsys):
    """D45"""
    logging.captureWarnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        setup_logging(tmp_path)
        warnings.warn("step() came too early", stacklevel=1)
        logging.captureWarnings(False)
    assert "py.warnings - WARNING" in file_text(tmp_path)
    assert "step() came too early" in file_text(tmp_path)


def test_file_rotates():
    config = json.loads(CONFIG_FILE.read_text(encoding="utf-8"))
    handler = config["handlers"]["info_file_handler"]
    assert handler["class"] == "logging.handlers.RotatingFileHandler"
    assert handler["maxBytes"] > 0 and handler["backupCount"] > 0


def test_rotating_file_keeps_going_in_a_new_one(tmp_path, capsys, log):
    config = json.loads(CONFIG_FILE.read_text(encoding="utf-8"))
    config["handlers"]["info_file_handler"]["maxBytes"] = 200
    setup_logging(tmp_path, config)
    for number in range(10):
        log.info("line number %d", number)
    assert "line number 9" in file_text(tmp_path) and (tmp_path / "info.log.1").is_file()


def test_early_records_reach_the_file_later(tmp_path, capsys, log):
    setup_logging()
    log.warning("too early for a file")
    setup_logging(tmp_path)
    assert file_text(tmp_path).count("too early for a file") == 1
    assert capsys.readouterr().out.count("too early for a file") == 1


def test_early_records_reach_only_the_files_of_their_level(tmp_path, capsys, log):
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


def test_resumed_run_goes_on_where_the_checkpoint_left_the_file(tmp_path, capsys, log):
    """D26"""
    setup_logging(tmp_path)
    log.info("before")
    kept = log_bytes()
    log.info("after")
    setup_logging(tmp_path, kept_bytes=kept)
    log.info("again")
    assert [line.rsplit(" - ", 1)[1] for line in file_text(tmp_path).splitlines()] == [
        "before", "again"]


def test_only_the_first_file_is_cut(tmp_path, capsys):
    config = json.loads(CONFIG_FILE.read_text(encoding="utf-8"))
    config["handlers"]["other"] = {"class": "logging.FileHandler", "filename": "other.log"}
    for name in ("info.log", "other.log"):
        (tmp_path / name).write_text("0123456789", encoding="utf-8")
    setup_logging(tmp_path, config, kept_bytes=4)
    assert (tmp_path / "info.log").stat().st_size == 4
    assert (tmp_path / "other.log").stat().st_size == 10


def test_file_shorter_than_the_cut_is_left_alone(tmp_path, capsys):
    (tmp_path / "info.log").write_text("short", encoding="utf-8")
    setup_logging(tmp_path, kept_bytes=100)
    assert file_text(tmp_path) == "short"


def test_without_a_file_there_is_no_size(capsys):
    setup_logging()
    assert log_bytes() is None


def test_missing_config_still_gives_a_log(tmp_path, caplog):
    setup_logging(tmp_path, tmp_path / "absent.json")
    logging.getLogger("test_logger").warning("still here")
    assert "absent.json is missing" in caplog.text and "still here" in caplog.text


def test_config_may_be_the_users_own_file(tmp_path, capsys, log):
    path = tmp_path / "mine.json"
    path.write_text(CONFIG_FILE.read_text(encoding="utf-8").replace("info.log", "mine.log"),
                    encoding="utf-8")
    setup_logging(tmp_path, path)
    log.info("hello")
    assert "hello" in Path(tmp_path / "mine.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("level", "line"), [
    (logging.INFO, "text\n"), (logging.WARNING, "warning: text\n"), (RESULT, "text\n")])
def test_console_lines_are_bare_but_for_warnings(capsys, log, level, line):
    setup_logging()
    log.log(level, "text")
    assert capsys.readouterr().out == line


@pytest.mark.parametrize(("stderr", "line"), [(Terminal, ""), (io.StringIO, "batch 3\n")])
def test_console_leaves_batch_lines_to_the_bar_of_a_terminal(monkeypatch, capsys, log, stderr,
                                                             line):
    monkeypatch.setattr(sys, "stderr", stderr())
    setup_logging()
    log.debug("batch 3", extra=BAR_SHOWS)
    assert capsys.readouterr().out == line


def test_records_for_the_file_only_are_not_on_the_console(tmp_path, capsys, log):
    setup_logging(tmp_path)
    log.error("traceback", extra=FILE_ONLY)
    assert "traceback" in file_text(tmp_path) and capsys.readouterr().out == ""


def test_console_writes_above_a_bar(monkeypatch, log):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    setup_logging()
    with tqdm(total=10, file=screen, desc="epoch 1", mininterval=0) as bar:
        bar.update(3)
        log.info("above")
    before, after = screen.getvalue().split("above\n")
    assert before.endswith("\r") and "epoch 1" in after  # bar wiped, line written, bar redrawn


def test_line_that_cannot_be_formatted_does_not_stop_the_run(monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = ConsoleHandler()
    with tqdm(total=1, file=io.StringIO()):
        handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("x",), "levelno": 20}))
    assert capsys.readouterr().out == ""
