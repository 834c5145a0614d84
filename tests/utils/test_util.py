"""Reading and writing JSON, folders, endless loaders."""

import json
import os
from itertools import islice
from pathlib import Path

import pytest

from utils.errors import ConfigError, RunError
from utils.util import MAX_LEVELS, ensure_dir, inf_loop, read_json, replace_json, write_json


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.json"


@pytest.mark.parametrize(("content", "message"), [
    (b'{"a": 1,\n "b": ', "line 2, column 7: the file ends too early"),
    (b'{"a": 1,', "the file ends too early"),
    (b'{"a": "b', "line 1, column 7: the file ends too early"),
    (b'{\n  // note\n "a": 1}', "line 2, column 3: JSON has no comments; delete this one"),
    (b'{"a": 1 /* note */}', "line 1, column 9: JSON has no comments"),
    (b'{"a": 1 # note\n}', "line 1, column 9: JSON has no comments"),
    (b'{"a": [1, 2,\n]}', "a comma before a closing bracket; delete the comma"),
    (b'{"a": 1 , }', "a comma before a closing bracket"),
    (b"{'a': 1}", "line 1, column 2: JSON wants double quotes"),
    (b'{"a": 1 "b": 2}', "line 1, column 9: "),
    (b"", "line 1, column 1: the file is empty"),
    (b" \n\t", "the file is empty"),
    (b'{"a": 1} x', "line 1, column 10: Extra data"),
    (b'{"a": "\xe4"}', "UTF-8, got byte 0xe4 at position 7; save it as UTF-8"),
    ('{"a": 1}'.encode("utf-16"), "UTF-8, got byte 0xff at position 0; save it as UTF-8"),
    (b'{"a": "NaN",\n "b": NaN}', "line 2, column 7: JSON has no NaN"),
    (b'{"a": Infinity}', "line 1, column 7: JSON has no Infinity"),
    (b'{"a": -Infinity}', "line 1, column 7: JSON has no -Infinity"),
    (b'{"a": 1e999}', "line 1, column 7: 1e999 is too large a number"),
    (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
    (b'{"x": {"type": 1},\n "y": {"type": 2,\n  "type": 3}, "z": {"type": 4}}',
     "line 3, column 3: the key 'type' stands twice in one object"),
    (b'{"a\\n": 1, "a\\u000a": 2}', "line 1, column 12: the key 'a\\n' stands twice"),
    (b"[" * (MAX_LEVELS + 1) + b"]" * (MAX_LEVELS + 1), "levels of nesting"),
    (b'{"a":' * 100000 + b"1" + b"}" * 100000, "levels of nesting"),
    (b" " * 10_000_000 + b"{}", r"expected a config of at most 1 MiB, got 9.5 MiB"),
], ids=range(25))
def test_what_is_no_json_is_told_with_its_place_or_reason(file, content, message):
    """D43"""
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_json(file)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf{"a": "\xc3\xa4"}', b'{"a": "\xc3\xa4"}',
                                     b'{\r\n"a": "\\u00e4"\r\n}\r\n'])
def test_byte_order_mark_and_line_ends_do_not_matter(file, content):
    file.write_bytes(content)
    assert read_json(str(file)) == {"a": "\u00e4"}


def test_many_keys_take_no_quadratic_time(file):
    content = {f"key {number}": number for number in range(40_000)}
    file.write_text(json.dumps(content))
    assert read_json(file) == content


def test_deepest_nesting_that_is_allowed_is_read(file):
    file.write_text("[" * MAX_LEVELS + "]" * MAX_LEVELS)
    assert json.dumps(read_json(file)) == file.read_text()


def test_folder_is_told(tmp_path):
    """D43"""
    with pytest.raises(ConfigError, match="expected a JSON file, got a folder"):
        read_json(tmp_path)


def test_missing_file_is_told(tmp_path):
    """D43"""
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read \(No such file"):
        read_json(tmp_path / "none.json")


def test_file_without_permission_is_told(file, monkeypatch):
    file.write_text("{}")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"a\.json: cannot be read \(Permission denied\)"):
        read_json(file)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_name_is_told(name):
    with pytest.raises(ConfigError):
        read_json(name)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless file")
def test_endless_file_is_told():
    with pytest.raises(ConfigError, match="at most 1 MiB"):
        read_json("/dev/zero")


def test_keys_keep_their_order(file):
    write_json({"b": 1, "a": {"d": 1}}, file)
    assert list(read_json(file)) == ["b", "a"]
    assert file.read_text() == '{\n    "b": 1,\n    "a": {\n        "d": 1\n    }\n}\n'


def test_replacing_leaves_the_old_file_whole_when_it_fails(file, monkeypatch):
    write_json({"a": 1}, file)

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        replace_json({"a": 2}, file)
    assert read_json(file) == {"a": 1}
    assert list(file.parent.iterdir()) == [file]


def test_replacing_writes_the_new_content(file):
    write_json({"a": 1}, file)
    replace_json({"a": 2}, file)
    assert read_json(file) == {"a": 2}


def test_ensure_dir_makes_parents_and_leaves_what_exists(tmp_path):
    folder = tmp_path / "a" / "b"
    ensure_dir(folder)
    (folder / "kept").touch()
    ensure_dir(str(folder))
    assert [path.name for path in Path(folder).iterdir()] == ["kept"]


def test_inf_loop_repeats_for_ever():
    assert list(islice(inf_loop([1, 2]), 5)) == [1, 2, 1, 2, 1]


def test_inf_loop_begins_each_pass_anew():
    class Loader:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([self.passes])

    assert list(islice(inf_loop(Loader()), 3)) == [1, 2, 3]


@pytest.mark.parametrize("loader", [[], iter([1])])
def test_inf_loop_refuses_a_loader_without_batches(loader):
    with pytest.raises(ValueError, match="at least one batch"):
        list(islice(inf_loop(loader), 2))
