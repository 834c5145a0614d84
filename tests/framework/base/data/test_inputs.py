"""Data without targets as it lies on the disk."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from base.data.inputs import files_in, read_rows
from utils.errors import ConfigError, RunError


def test_files_come_in_the_order_of_their_names_those_of_inner_folders_too(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a/.hidden", ".DS_Store", "c.txt", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, names = files_in(tmp_path)
    assert names == ["a/z.png", "b.png", "c.txt"]
    assert files == [tmp_path / name for name in names]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")).touch()
    files, names = files_in(tmp_path)
    assert names == ["a\\xff.png"] and files[0].is_file()


def test_folder_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    folder = tmp_path / ".data" / "images"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert files_in(folder)[1] == ["a.png"]


def test_folder_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(ConfigError, match="expected a folder with files"):
        files_in(tmp_path)


@pytest.mark.parametrize("text", [
    "1,2\n3,4.5\n", "1,2\r\n3,4.5", "\ufeff1,2\n3,4.5\n\n", "x,y\n1,2\n3,4.5\n",
    '"1","2"\n"3","4.5"\n'])
def test_rows_are_numbered_from_0_and_a_heading_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    rows, names = read_rows(tmp_path / "a.csv", 2)
    assert rows.tolist() == [[1, 2], [3, 4.5]] and rows.dtype == np.float64
    assert names == ["0", "1"]


@pytest.mark.parametrize(("content", "text"), [
    (b"", "expected rows of 2 values, there are none"),
    (b"x,y\n", "expected rows of 2 values, there are none"),
    (b"1,2\n3\n", "line 2: expected 2 values, got 1"),
    (b"1;2\n", "line 1: expected 2 values, got 1"),
    (b"1,2\n3,4,5\n", "line 2: expected 2 values, got 3"),
    (b"1,x\n", "line 1: expected numbers only"),
    (b"1,2\nx,y\n", "line 2: expected numbers only"),
    (b"1,\n", "line 1: expected numbers only"),
    (b"1,2\n1,nan\n", "line 2: expected finite numbers only"),
    (b"1,inf\n", "line 1: expected finite numbers only"),
    (b"\xff\xfe1,2\n", "expected a CSV file, it cannot be read")])
def test_rows_that_are_no_numbers_are_told_with_their_line(tmp_path: Path, content: bytes,
                                                           text: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(RunError, match=f"a.csv.*{text}"):
        read_rows(tmp_path / "a.csv", 2)


def test_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_rows(tmp_path, 2)


def test_heading_of_pandas_without_names_is_none_and_told(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "a.csv").write_text("0,1,2\n5,6,7\n0,1,2\n")
    rows, names = read_rows(tmp_path / "a.csv", 3)
    assert rows.tolist() == [[5, 6, 7], [0, 1, 2]] and names == ["0", "1"]
    assert "the first line, 0, 1, ..., is taken for the names" in caplog.text
