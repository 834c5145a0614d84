"""JSON files: what is wrong is told with its place, what is replaced is replaced whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.config.json_file import read_json, replace_json, write_json
from utils.errors import ConfigError, RunError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.json"


@pytest.mark.parametrize(("content", "message"), [
    (b'{"a": 1,\n "b": ', "line 2, column 7: "),
    (b'{\n  // note\n "a": 1}', "line 2, column 3: "),
    (b'{"a": 1 "b": 2}', "line 1, column 9: "),
    (b"{'a': 1}", "line 1, column 2: "),
    (b'{"a": 1} x', "line 1, column 10: Extra data"),
    (b"", "line 1, column 1: the file is empty"),
    (b" \n\t", "the file is empty"),
    (b'{"a": "\xe4"}', "UTF-8, got byte 0xe4 at position 7; save it as UTF-8"),
    ('{"a": 1}'.encode("utf-16"), "UTF-8, got byte 0xff at position 0; save it as UTF-8"),
    (b'{"a": "NaN",\n "b": NaN}', "NaN is no finite number"),
    (b'{"a": -Infinity}', "-Infinity is no finite number"),
    (b'{"a": 1e999}', "1e999 is no finite number"),
    (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
    (b'{"x": {"type": 1}, "y": {"type": 2, "type": 3}}',
     "the key 'type' stands twice in one object"),
    (b'{"a\\n": 1, "a\\u000a": 2}', "the key 'a\\n' stands twice"),
    (b"[" * 100_000, "too many levels of nesting"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too many levels of nesting"),
    (b" " * 2_000_000 + b"{}", "expected a config of at most 1 MiB, got a larger file"),
    (b"\x80\x02}.", "got a checkpoint; to go on with it, use --resume"),
], ids=range(19))
def test_what_is_no_json_is_told_with_its_place_or_reason(file: Path, content: bytes,
                                                          message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_json(file)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


def test_checkpoint_in_place_of_a_config_is_told_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "latest.pth")
    with pytest.raises(ConfigError, match=r"got a checkpoint; .* use --resume .*latest\.pth$"):
        read_json(tmp_path / "latest.pth")


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf{"a": "\xc3\xa4"}', b'{"a": "\xc3\xa4"}',
                                     b'{\r\n"a": "\\u00e4"\r\n}\r\n'])
def test_byte_order_mark_and_line_ends_do_not_matter(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_json(str(file)) == {"a": "\u00e4"}


def test_many_keys_take_no_quadratic_time(file: Path) -> None:
    content = {f"key {number}": number for number in range(40_000)}
    file.write_text(json.dumps(content))
    assert read_json(file) == content


@pytest.mark.parametrize(("name", "message"), [
    ("", "expected a JSON file, got a folder"), ("none.json", "cannot be read (No such file"),
    ("a\0b", "cannot be read"), ("x" * 5000, "cannot be read")], ids=range(4))
def test_file_that_cannot_be_opened_is_told(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_json(f"{tmp_path}/{name}")
    assert message in str(error.value)


def test_file_without_permission_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"a\.json: cannot be read \(Permission denied\)"):
        read_json(file)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless file")
def test_endless_file_is_told() -> None:
    with pytest.raises(ConfigError, match="at most 1 MiB"):
        read_json("/dev/zero")


def test_keys_keep_their_order(file: Path) -> None:
    write_json({"b": 1, "a": {"d": 1}}, file)
    assert list(read_json(file)) == ["b", "a"]
    assert file.read_text() == '{\n    "b": 1,\n    "a": {\n        "d": 1\n    }\n}\n'


def test_replacing_writes_the_new_content_or_leaves_the_old(file: Path, monkeypatch: Any) -> None:
    write_json({"a": 1}, file)
    replace_json({"a": 2}, file)

    def refuse(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        replace_json({"a": 3}, file)
    assert read_json(file) == {"a": 2}
    assert list(file.parent.iterdir()) == [file]
