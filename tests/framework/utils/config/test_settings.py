"""The typed keys, the check of their values and their JSON Schema say the same."""

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest

from tests.framework.conftest import ROOT
from utils.config.check import check_spelling
from utils.config.misspellings import shown
from utils.config.settings import (
    SECTIONS,
    RunConfig,
    TrainerConfig,
    check_settings,
    check_typed,
    json_schema,
    table,
)

Config = dict[str, Any]
SCHEMA = json.loads((ROOT / "config.schema.json").read_text(encoding="utf-8"))
TOP = [*RunConfig.model_fields, *SECTIONS, "trainer"]
WRONG_VALUES = [  # key, wrong types, values out of range
    ("name", [5, None, [], True], ["", "..", "a/b", "a\\b", "/etc", "C:", "a?", "CON", "nul.txt",
                                   "com1", "a.", " a", "a\n", "x" * 101]),
    ("n_gpu", ["1", 1.0, True, []], [-1]),
    ("seed", ["1", 1.5, None, True, {}], [-1, 2**32, 10**400]),
    ("init_from", [5, True, []], ["", "a\0b"]),
    ("freeze", ["conv*", 5, [1], {}, None], []),
    ("base", [5, []], ["", "a\0"]),
    ("trainer.epochs", ["5", 5.0, True, [1]], [0, -1]),
    ("trainer.max_steps", ["5", 5.0, True, [1]], [0, -1]),
    ("trainer.valid_steps", ["5", 5.0, True, [1]], [0, -1]),
    ("trainer.keep_best", ["1", 1.5, None, True], [-1]),
    ("trainer.save_dir", [5, None, [], {}], ["", "a\0b"]),
    ("trainer.save_freq", ["1", 1.5, None, True], [0, -1]),
    ("trainer.save_period", ["1", 1.5, None, True], [0, -1]),
    ("trainer.save_steps", ["1", 1.5, True, {}], [0]),
    ("trainer.keep_last", ["1", 1.5, None, True], [-1]),
    ("trainer.async_save", [1, "true", None], []),
    ("trainer.checkpoint_name", [5, None, []], [
        "epoch.pth", "../{epoch}.pth", "a/{epoch}.pth", "{epoch}", "{epoch:99999999d}.pth",
        "{epoch:3}.pth", "{epoch.x}.pth", "x" * 100 + "{epoch}.pth"]),
    ("trainer.verbosity", ["2", 1.0, None, True], [-1, 3]),
    ("trainer.monitor", [5, None, []], ["mn val_loss", "val_loss", "min", "min a b", "", "off\n"]),
    ("trainer.early_stop", ["5", 1.5, None, True], []),
    ("trainer.min_delta", ["0", None, True], [-0.1, 10**400, float("nan"), float("inf")]),
    ("trainer.sanity_batches", ["1", 1.5, True, None], [-1]),
    ("trainer.tensorboard", [1, "true", None], []),
    ("trainer.log_steps", ["1", 1.5, None, True], [0]),
    ("trainer.log_images", [1, "no", None], []),
    ("trainer.log_histograms", [1, "no", None], []),
    ("trainer.log_graph", [1, "no", None], []),
    ("trainer.len_epoch", ["1", 1.5, True], [0]),
    ("trainer.overfit_batches", ["1", 1.5, True, []], [0]),
    ("trainer.max_seconds", ["1", True, []], [0, -1.0, float("inf")]),
    ("trainer.deterministic", [1, None, []], ["loud"]),
    ("trainer.channels_last", [1, "yes", None], []),
    ("trainer.compile", [1, "yes", None], []),
    ("trainer.profile_steps", ["x", 1.5, None], [-1, 1001]),
    ("trainer.trackers", ["x", {}, None], []),
    ("trainer.sharded_checkpoints", [1, "yes", None], []),
    ("trainer.strategy", [1, None, []], ["fsdp"]),
    ("trainer.find_unused_parameters", ["yes", 2, None], []),
    ("trainer.precision", [16, None, []], ["half"]),
    ("trainer.matmul_precision", [1, []], ["low"]),
    ("trainer.accumulate", ["1", 1.5, None, True], [0]),
    ("trainer.clip_grad_norm", ["1", True], [0, -1.0, float("inf")]),
    ("trainer.ema_decay", ["1", True], [0, 1, 1.5]),
]
ALL_WRONG = [(path, value) for path, wrong, outside in WRONG_VALUES for value in [*wrong, *outside]]


def short(value: Any) -> str:
    return str(value)[:20].encode("unicode_escape").decode().replace("\\x00", "NUL")


def changed(config: Config, path: str, value: Any) -> Config:
    *section, key = path.split(".")
    (config["trainer"] if section else config)[key] = value
    return config


def misspelt(word: str) -> list[str]:
    """A letter left out, two exchanged, one doubled, one wrong."""
    return [word[:-1], word[:1] + word[2:], word[1] + word[0] + word[2:],
            word[:2] + word[1:], word[:2] + "z" + word[3:]]


def is_valid(config: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(config)


def test_every_typed_key_has_wrong_values_here() -> None:
    known = {*RunConfig.model_fields, *(f"trainer.{key}" for key in TrainerConfig.model_fields)}
    assert {path for path, *_ in WRONG_VALUES} == known | {"trainer.save_period"}


@pytest.mark.parametrize(("path", "value"), ALL_WRONG, ids=short)
def test_wrong_value_is_told_with_its_key_what_was_expected_and_what_came(
        config_dict: Config, path: str, value: Any) -> None:
    problems = check_typed(changed(config_dict, path, value))
    assert list(problems) == [path]
    assert problems[path].startswith("expected ")
    assert f", got {json.dumps(value)[:57]}" in problems[path]


@pytest.mark.parametrize(("path", "value", "words"), [
    ("trainer.monitor", "val_loss", 'like "min val_loss" or "max val_accuracy", or "off"'),
    ("seed", -1, "an integer from 0 to 4294967295"),
    ("trainer.max_seconds", 0, "a number above 0 or null"),
    ("trainer.deterministic", "x", 'true or false or "warn"'),
    ("trainer.checkpoint_name", "x", "a string like model-{epoch:03d}.pth, without folders")])
def test_what_was_expected_is_said_in_words(config_dict: Config, path: str, value: Any,
                                            words: str) -> None:
    assert words in check_typed(changed(config_dict, path, value))[path]


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("is_there_too", [False, True])
@pytest.mark.parametrize("path", [*TOP, *(f"trainer.{key}" for key in TrainerConfig.model_fields),
                                  "trainer.save_period"])
def test_misspelt_key_is_told_with_the_right_one(config_dict: Config, path: str, is_there_too: bool,
                                                 wrong: int) -> None:
    *section, key = path.split(".")
    place = config_dict["trainer"] if section else config_dict
    word = misspelt(key)[wrong]
    value = place.pop(key, {})
    place |= {key: value, word: 5} if is_there_too else {word: 5}
    problems = check_spelling(config_dict)
    word = ".".join([*section, word])
    assert list(problems) == [word]
    assert problems[word].startswith("unknown key (with 5); did you mean '")


@pytest.mark.parametrize(("word", "right"), [
    ("epoch", "epochs"), ("early_stopp", "early_stop"), ("save_freqq", "save_freq"),
    ("earlystop", "early_stop"), ("Epochs", "epochs")])
def test_misspelling_names_the_nearest_key(config_dict: Config, word: str, right: str) -> None:
    config_dict["trainer"][word] = 5
    assert f"did you mean {right!r}?" in check_spelling(config_dict)[f"trainer.{word}"]


@pytest.mark.parametrize("key", ["valid_data_loader", "my_section", "$comment", "x",
                                 "warmup_length", "$schema"])
def test_key_of_ones_own_is_no_misspelling(config_dict: Config, key: str) -> None:
    config_dict[key] = config_dict["trainer"][key] = 5
    assert check_spelling(config_dict) == check_typed(config_dict) == {}


@pytest.mark.parametrize("value", [None, [], 5, "x"])
def test_config_or_section_that_is_no_object_is_told(config_dict: Config, value: Any) -> None:
    text = f"expected an object {{...}}, got {json.dumps(value)}"
    assert check_typed(value) == {"config": text}
    assert check_typed(config_dict | {"trainer": value}) == {"trainer": text}


def test_section_trainer_is_needed(config_dict: Config) -> None:
    del config_dict["trainer"]
    assert check_typed(config_dict) == {"trainer": "this section is missing"}


def test_neither_epochs_nor_max_steps_is_told(config_dict: Config) -> None:
    del config_dict["trainer"]["epochs"]
    assert check_typed(config_dict)["trainer.epochs"].startswith("is missing: say how long")
    config_dict["trainer"]["max_steps"] = 5
    assert check_typed(config_dict) == {}


@pytest.mark.parametrize("key", [1, None, "\ud800", "a\n", (1, 2)])
def test_key_that_is_no_text_is_told(key: Any) -> None:
    assert check_settings(TrainerConfig, {"epochs": 1, key: 2}, "trainer.") == {
        f"trainer.{key!a}": "expected printable text as a key"}


def test_two_names_of_one_setting_that_disagree_are_refused(config_dict: Config) -> None:
    config_dict["trainer"] |= {"save_freq": 1, "save_period": 2}
    assert check_typed(config_dict) == {
        "trainer.save_period": "2, but save_freq, its newer name, is 1; keep one of them"}


@pytest.mark.parametrize("value", ["x" * 1000, list(range(1000)), {(1, 2): 3}, object(), "\ud800"])
def test_any_value_is_shown_in_short_ascii(value: Any) -> None:
    assert len(shown(value)) <= 60 and shown(value).isascii()


def test_settings_are_frozen_and_keep_keys_of_ones_own() -> None:
    settings = TrainerConfig(epochs=1, my_key=5)
    assert settings.my_key == 5
    with pytest.raises(ValueError, match="frozen"):
        settings.epochs = 2


@pytest.mark.parametrize("kind", [RunConfig, TrainerConfig])
def test_every_default_is_valid(kind: Any) -> None:
    fields = {key: field.default for key, field in kind.model_fields.items()
              if not field.is_required()}
    assert check_settings(kind, fields | {"epochs": 1}) == {}


def test_every_key_has_a_type_a_default_and_a_meaning() -> None:
    rows = table()
    assert [row[0] for row in rows] == [
        *(f"`{key}`" for key in RunConfig.model_fields),
        *(f"`trainer.{key}`" for key in TrainerConfig.model_fields)]
    assert all(kind and default and len(meaning) > 20 for _, kind, default, meaning in rows)


def test_module_prints_the_shipped_schema() -> None:
    printed = subprocess.run([sys.executable, "-m", "utils.config.settings"], cwd=ROOT, check=True,
                             capture_output=True, text=True).stdout
    assert printed == (ROOT / "config.schema.json").read_text(encoding="utf-8")
    assert json.loads(printed) == json_schema()


def test_schema_is_a_valid_one_and_takes_a_config(config_dict: Config) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(config_dict | {"$schema": "x"})


@pytest.mark.parametrize(("path", "value"), [
    (path, value) for path, value in ALL_WRONG
    # JSON has no NaN, JSON Schema takes 5.0 for an integer, Python's $ stands before a newline too
    if not isinstance(value, float) or 0 < abs(value % 1) < 1
    if value not in ("off\n", 10**400)], ids=short)
def test_schema_refuses_the_values_that_the_check_refuses(config_dict: Config, path: str,
                                                          value: Any) -> None:
    assert not is_valid(changed(config_dict, path, value))


@pytest.mark.parametrize("change", [
    {"my_section": {"any": 5}}, {"lr_scheduler": None}, {"metrics": "accuracy"},
    {"metrics": {}}, {"loss": ["a"]}, {"loss": {"type": "a"}},
    {"optimizer": {"generator": {"type": "Adam"}, "critic": {"type": "Adam"}}}], ids=str)
def test_schema_takes_sections_of_projects(config_dict: Config, change: Config) -> None:
    assert is_valid(config_dict | change)


@pytest.mark.parametrize("change", [
    {"arch": "ToyModel"}, {"arch": {"args": {}}}, {"arch": {"type": 5}}, {"loss": 5},
    {"lr_scheduler": []}, {"trainer": None}, {"trainer": {}}, {"optimizer": []},
    {"data_loader": {"type": "A", "args": []}}], ids=str)
def test_schema_refuses_sections_of_another_shape(config_dict: Config, change: Config) -> None:
    assert not is_valid(config_dict | change)
