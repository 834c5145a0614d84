"""Nested configs: bases, merging, overrides, differences."""

import json
from pathlib import Path
from typing import Any

import pytest

from utils.config.merging import (
    apply_override,
    deep_merge,
    differences,
    leaves,
    parse_value,
    read_config,
    set_path,
)
from utils.errors import ConfigError


@pytest.fixture
def config() -> dict[str, Any]:
    return {"name": "a", "trainer": {"epochs": 5}, "metrics": ["x", {"type": "y", "args": {}}],
            "optimizer": {"type": "Adam", "args": {"lr": 0.1}}, "lr_scheduler": None}


def write(folder: Path, **contents: Any) -> Path:
    for name, content in contents.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def test_base_is_merged_deeply_over_several_levels(tmp_path: Path) -> None:
    write(tmp_path, a={"x": {"p": 1, "q": 1, "r": 1}, "y": [1, 2]},
          b={"base": "a.json", "x": {"q": 2, "r": 2}}, c={"base": "b.json", "x": {"r": 3}, "y": []})
    assert read_config(tmp_path / "c.json") == {"x": {"p": 1, "q": 2, "r": 3}, "y": []}


def test_base_is_relative_to_the_file_that_names_it(tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub", b={"base": "../a.json"})
    write(tmp_path, a={"x": 1})
    monkeypatch.chdir("/")
    assert read_config(tmp_path / "sub" / "b.json") == {"x": 1}


def test_null_base_is_none(tmp_path: Path) -> None:
    write(tmp_path, a={"base": None, "x": 1})
    assert read_config(tmp_path / "a.json") == {"x": 1}


@pytest.mark.parametrize("chain", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_bases_in_a_circle_are_refused_with_the_circle(tmp_path: Path, chain: list[str]) -> None:
    for name, base in zip(chain, [*chain[1:], chain[0]], strict=True):
        write(tmp_path, **{name: {"base": f"../{tmp_path.name}/{base}.json"}})
    circle = " -> ".join(f"{name}.json" for name in [*chain, chain[0]])
    with pytest.raises(ConfigError, match=f"circle: {circle}$"):
        read_config(tmp_path / "a.json")


def test_circle_through_a_link_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a={"base": "link.json"})
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="circle"):
        read_config(tmp_path / "a.json")


@pytest.mark.parametrize("base", [5, [], {}, "", True])
def test_base_that_is_no_path_is_refused(tmp_path: Path, base: Any) -> None:
    write(tmp_path, a={"base": base})
    with pytest.raises(ConfigError, match="base: expected the path of a config, got"):
        read_config(tmp_path / "a.json")


@pytest.mark.parametrize("base", ["none.json", "a\0b", "x" * 300, ".", "/"])
def test_base_that_cannot_be_read_is_refused(tmp_path: Path, base: Any) -> None:
    write(tmp_path, a={"base": base})
    with pytest.raises(ConfigError):
        read_config(tmp_path / "a.json")


@pytest.mark.parametrize("content", [[], 5, "x", None, True])
def test_config_that_is_no_object_is_refused(tmp_path: Path, content: Any) -> None:
    write(tmp_path, a=content)
    with pytest.raises(ConfigError, match=f"expected an object .* a {type(content).__name__}$"):
        read_config(tmp_path / "a.json")


def test_merge_leaves_both_sides_alone() -> None:
    below, above = {"x": {"a": [1]}}, {"x": {"b": [2]}}
    merged = deep_merge(below, above)
    merged["x"]["a"].append(5)
    merged["x"]["b"].append(5)
    assert (below, above) == ({"x": {"a": [1]}}, {"x": {"b": [2]}})


@pytest.mark.parametrize(("below", "above", "merged"), [
    ({"a": 1}, {"a": None}, {"a": None}),
    ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
    ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({"o": {"type": "Adam", "args": {"amsgrad": True}}}, {"o": {"args": {"lr": 1}}},
     {"o": {"type": "Adam", "args": {"amsgrad": True, "lr": 1}}}),
    ({"o": {"type": "Adam", "args": {"amsgrad": True}}}, {"o": {"type": "SGD", "args": {"lr": 1}}},
     {"o": {"type": "SGD", "args": {"lr": 1}}}),
])
def test_merge(below: Any, above: Any, merged: Any) -> None:
    assert deep_merge(below, above) == merged


@pytest.mark.parametrize(("text", "path", "value"), [
    ("name=b", ["name"], "b"), ("name=5", ["name"], 5), ('name="5"', ["name"], "5"),
    ("name=", ["name"], ""), ("name=a=b", ["name"], "a=b"),
    ("trainer.epochs=7", ["trainer", "epochs"], 7),
    ("trainer.verbosity=1", ["trainer", "verbosity"], 1), ("metrics.0=z", ["metrics", 0], "z"),
    ("metrics.1.type=z", ["metrics", 1, "type"], "z"), ("+metrics.2=z", ["metrics", 2], "z"),
    ("+new.key.deep=[1]", ["new", "key", "deep"], [1]), ("+name=x", ["name"], "x"),
    ("lr_scheduler=null", ["lr_scheduler"], None),
    ("+lr_scheduler.type=A", ["lr_scheduler", "type"], "A"),
    ("optimizer.args.lr=1e-3", ["optimizer", "args", "lr"], 0.001),
    ('optimizer={"type": "B"}', ["optimizer"], {"type": "B"}),
])
def test_override_sets_a_value_by_its_path(config: dict[str, Any], text: str, path: Any,
                                           value: Any) -> None:
    apply_override(config, text, ["trainer.verbosity"])
    for key in path:
        config = config[key]
    assert config == value


@pytest.mark.parametrize(("text", "left"), [
    ("~name", "name"), ("~lr_scheduler", "lr_scheduler"), ("~trainer", "trainer")])
def test_override_removes_a_key(config: dict[str, Any], text: str, left: str) -> None:
    apply_override(config, text, [])
    assert left not in config


def test_override_removes_an_item_of_a_list(config: dict[str, Any]) -> None:
    apply_override(config, "~metrics.0", [])
    assert config["metrics"] == [{"type": "y", "args": {}}]


def test_argument_of_a_section_may_be_set_without_a_plus(config: dict[str, Any]) -> None:
    apply_override(config, "optimizer.args.amsgrad=true", [])
    assert config["optimizer"]["args"]["amsgrad"] is True


@pytest.mark.parametrize(("text", "near"), [
    ("trainer.epoch=5", "'trainer.epochs'"), ("~optimizer.args.l", "'optimizer.args.lr'"),
    ("~trainer.epoch", "'trainer.epochs'"), ("trainer.verbosty=5", "'trainer.verbosity'")])
def test_unknown_path_is_refused_with_near_ones(config: dict[str, Any], text: str,
                                                near: str) -> None:
    with pytest.raises(ConfigError, match=f"no such key; did you mean .*{near}"):
        apply_override(config, text, ["trainer.verbosity"])


def test_unknown_path_is_refused_with_how_to_add_it(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"; to add it, write \+zzz\.qqq=5$"):
        apply_override(config, "zzz.qqq=5", [])


@pytest.mark.parametrize("text", ["", "a", "=5", "+", "~", "~name=5", "+name", ".=5", "a..b=5",
                                  ".a=5", "a.=5", "++a.=1"])
def test_what_is_no_override_is_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key\.path=value"):
        apply_override(config, text, [])


@pytest.mark.parametrize("text", ["+name.x=5", "+metrics.9=5", "+metrics.x=5", "+metrics.-1=5",
                                  "+trainer.epochs.x=5", "+metrics.0.a.b=5", "~metrics.2",
                                  "metrics.99999999999999=1"])
def test_path_through_what_has_no_keys_is_refused(config: dict[str, Any], text: str) -> None:
    before = json.dumps(config)
    with pytest.raises(ConfigError):
        apply_override(config, text, [])
    assert json.dumps(config) == before


@pytest.mark.parametrize(("text", "value"), [
    ("5", 5), ("-0.5", -0.5), ("true", True), ("null", None), ("[1, 2]", [1, 2]), ("", ""),
    ("True", "True"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("1e999", "1e999"), ("[1", "[1"),
    ("0x10", "0x10"), ("saved/x", "saved/x"), ("9" * 5000, "9" * 5000), ("[" * 99, "[" * 99),
    ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000)],
    ids=lambda value: str(value)[:10])
def test_value_is_json_if_it_is_any_else_text(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_set_path_makes_the_objects_on_the_way() -> None:
    config: dict[str, Any] = {}
    set_path(config, ("a", "b", "c"), 5)
    assert config == {"a": {"b": {"c": 5}}}


@pytest.mark.parametrize("path", [("a", "b"), ("a", "b", "c")])
def test_set_path_refuses_to_go_through_a_value(path: Any) -> None:
    with pytest.raises(ConfigError, match=r"^a\.b"):
        set_path({"a": 5}, path, 1)


def test_leaves_are_all_values_and_empty_containers() -> None:
    assert dict(leaves({"a": [1, {"b": None}], "c": {}, "d": []})) == {
        ("a", "0"): 1, ("a", "1", "b"): None, ("c",): {}, ("d",): []}


def test_differences_name_path_old_and_new() -> None:
    old = {"a": 1, "b": {"c": [1, 2]}, "d": 5, "same": 0.1}
    new = {"a": 1.0, "b": {"c": [1, 3]}, "e": {"f": "x"}, "same": 0.1}
    assert differences(old, new) == ["a: 1 -> 1.0", "b.c.1: 2 -> 3", "d: 5 -> (absent)",
                                     'e.f: (absent) -> "x"']
    assert differences({"args": {}}, {"args": {"x": 1}}) == ["args.x: (absent) -> 1"]
    assert differences({"args": {"x": 1}}, {"args": {}}) == ["args.x: 1 -> (absent)"]
    assert differences({"args": {}}, {}) == ["args: {} -> (absent)"]
