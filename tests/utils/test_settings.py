"""The typed keys, their JSON Schema and the table of the README say the same."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.test_config_errors import WRONG_VALUES, misspelt
from utils.settings import (
    SECTIONS,
    RunConfig,
    TrainerConfig,
    check_settings,
    json_schema,
    shown,
    table,
)

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))
EXAMPLE = json.loads((ROOT / "config.json").read_text(encoding="utf-8"))


@pytest.fixture
def config():
    return copy.deepcopy(EXAMPLE)


def is_valid(config):
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(config)


def test_shipped_schema_is_the_generated_one():
    assert json_schema() == SCHEMA


def test_module_prints_the_shipped_schema():
    printed = subprocess.run([sys.executable, "-m", "utils.settings"], cwd=ROOT, check=True,
                             capture_output=True, text=True).stdout
    assert printed == (ROOT / "config.schema.json").read_text(encoding="utf-8")


def test_schema_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_example_config_names_the_schema_and_validates(config):
    assert (ROOT / config["$schema"]).resolve() == ROOT / "config.schema.json"
    jsonschema.Draft202012Validator(SCHEMA).validate(config)


@pytest.mark.parametrize("wrong", range(2))
@pytest.mark.parametrize("key", [*RunConfig.model_fields, *SECTIONS, "trainer"])
def test_schema_refuses_a_misspelt_key_at_the_top(config, key, wrong):
    """D38"""
    config[misspelt(key)[wrong]] = config.pop(key, 5)
    assert not is_valid(config)


@pytest.mark.parametrize("wrong", range(2))
@pytest.mark.parametrize("key", TrainerConfig.model_fields)
def test_schema_refuses_a_misspelt_key_of_trainer(config, key, wrong):
    """D38"""
    config["trainer"][misspelt(key)[wrong]] = config["trainer"].pop(key, 5)
    assert not is_valid(config)


@pytest.mark.parametrize(("path", "value"), [
    (path, value) for path, wrong, outside in WRONG_VALUES for value in [*wrong, *outside]
    # JSON has no NaN, JSON Schema takes 5.0 for an integer, Python's $ stands before a newline too
    if not isinstance(value, float) or 0 < abs(value % 1) < 1
    if value not in ("off\n", 10**400)],
    ids=lambda value: str(value)[:20].encode("unicode_escape").decode().replace("\\x00", "NUL"))
def test_schema_and_check_refuse_the_same_values(config, path, value):
    *section, key = path.split(".")
    (config["trainer"] if section else config)[key] = value
    assert not is_valid(config)


@pytest.mark.parametrize("change", [
    {"my_section": {"any": 5}}, {"lr_scheduler": None}, {"metrics": "accuracy"},
    {"metrics": {}}, {"loss": ["a"]}, {"loss": {"type": "a"}},
    {"optimizer": {"generator": {"type": "Adam"}, "critic": {"type": "Adam"}}}])
def test_schema_takes_what_the_check_takes(config, change):
    assert is_valid(config | change)


@pytest.mark.parametrize("change", [
    {"arch": "MnistModel"}, {"arch": {"args": {}}}, {"arch": {"type": 5}}, {"loss": 5},
    {"lr_scheduler": []}, {"trainer": None}, {"trainer": {}}, {"optimizer": []},
    {"data_loader": {"type": "A", "args": []}}])
def test_schema_refuses_sections_of_another_shape(config, change):
    assert not is_valid(config | change)


@pytest.mark.parametrize("kind", [RunConfig, TrainerConfig])
def test_every_default_is_valid(kind):
    fields = {key: field.default for key, field in kind.model_fields.items()
              if not field.is_required()}
    assert check_settings(kind, fields | {"epochs": 1}) == []


def test_every_key_has_a_type_a_default_and_a_meaning():
    keys = [f"`{key}`" for key in RunConfig.model_fields]
    keys += [f"`trainer.{key}`" for key in TrainerConfig.model_fields]
    rows = table()
    assert [row[0] for row in rows] == keys
    assert all(kind and default and len(meaning) > 20 for _, kind, default, meaning in rows)


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrainerConfig(epochs=1).epochs = 2


def test_own_keys_of_trainer_are_kept():
    assert TrainerConfig(epochs=1, my_key=5).my_key == 5


@pytest.mark.parametrize("value", [None, [], 5, "x"])
def test_what_is_no_object_is_told(value):
    assert check_settings(TrainerConfig, value, "trainer.") == [
        f"trainer: expected an object {{...}}, got {json.dumps(value)}"]


def test_missing_key_is_told_with_its_type_and_meaning():
    problem, = check_settings(TrainerConfig, {}, "trainer.")
    assert problem.startswith("trainer.epochs: is missing; expected an integer of at least 1: Epo")


def test_missing_key_is_told_with_its_misspelling():
    problem, = check_settings(TrainerConfig, {"epoch": 5}, "trainer.")
    assert problem == "trainer.epochs: is missing; is 'epoch' a misspelling of it?"


@pytest.mark.parametrize("key", [1, None, "\ud800", "a\n", (1, 2)])
def test_key_that_is_no_text_is_told(key):
    assert check_settings(TrainerConfig, {"epochs": 1, key: 2}, "trainer.") == [
        f"trainer.{key!a}: expected printable text as a key"]


@pytest.mark.parametrize("value", ["x" * 1000, list(range(1000)), {(1, 2): 3}, object(), "\ud800"])
def test_any_value_is_shown_in_short_ascii(value):
    assert len(shown(value)) <= 60 and shown(value).isascii()
