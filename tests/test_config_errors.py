"""Every mistake in a config is told before anything is built: where, what came, what is meant."""

import argparse
import copy
import json
import sys
from typing import Any

import pytest

from parse_config import ConfigParser
from train import MODULES
from utils.settings import SECTIONS, RunConfig, TrainerConfig

EXAMPLE_ARGS = [("data_loader", "data_dir"), ("data_loader", "batch_size"),
                ("data_loader", "shuffle"), ("data_loader", "validation_split"),
                ("data_loader", "num_workers"), ("optimizer", "lr"), ("optimizer", "weight_decay"),
                ("optimizer", "amsgrad"), ("lr_scheduler", "step_size"), ("lr_scheduler", "gamma")]
TOP = [*RunConfig.model_fields, *SECTIONS, "trainer"]
WRONG_VALUES = [  # key, wrong types, values out of range
    ("name", [5, None, [], True], ["", "..", "a/b", "a\\b", "/etc", "C:", "a?", "CON", "nul.txt",
                                   "com1", "a.", " a", "a\n", "x" * 101]),
    ("n_gpu", ["1", 1.0, True, []], [-1]),
    ("seed", ["1", 1.5, None, True, {}], [-1, 2**32, 10**400]),
    ("init_from", [5, True, []], ["", "a\0b"]),
    ("freeze", ["conv*", 5, [1], {}, None], []),
    ("base", [5, []], ["", "a\0"]),
    ("trainer.epochs", ["5", 5.0, None, True, [1]], [0, -1]),
    ("trainer.save_dir", [5, None, [], {}], ["", "a\0b"]),
    ("trainer.save_freq", ["1", 1.5, None, True], [0, -1]),
    ("trainer.save_period", ["1", 1.5, None, True], [0, -1]),
    ("trainer.save_steps", ["1", 1.5, True, {}], [0]),
    ("trainer.keep_last", ["1", 1.5, None, True], [-1]),
    ("trainer.async_save", [1, "true", None], []),
    ("trainer.checkpoint_name", [5, None, []], [
        "epoch.pth", "../{epoch}.pth", "a/{epoch}.pth", "{epoch}", "{epoch:99999999d}.pth",
        "{epoch.x}.pth", "x" * 100 + "{epoch}.pth"]),
    ("trainer.verbosity", ["2", 1.0, None, True], [-1, 3]),
    ("trainer.monitor", [5, None, []], ["mn val_loss", "min", "min a b", "", "off\n"]),
    ("trainer.early_stop", ["5", 1.5, None, True], []),
    ("trainer.min_delta", ["0", None, True], [-0.1, 10**400, float("nan"), float("inf")]),
    ("trainer.tensorboard", [1, "true", None], []),
    ("trainer.log_steps", ["1", 1.5, None, True], [0]),
    ("trainer.log_images", [1, "no", None], []),
    ("trainer.log_histograms", [1, "no", None], []),
    ("trainer.len_epoch", ["1", 1.5, True], [0]),
    ("trainer.max_seconds", ["1", True, []], [0, -1.0, float("inf")]),
    ("trainer.check_loss_steps", ["1", 1.5, True], [0]),
    ("trainer.deterministic", [1, None, []], ["loud"]),
    ("trainer.channels_last", [1, "yes", None], []),
    ("trainer.compile", [1, "yes", None], []),
]


def misspelt(word: str) -> list[str]:
    """A letter left out, two exchanged, one doubled, one wrong."""
    return [word[:-1], word[:1] + word[2:], word[1] + word[0] + word[2:],
            word[:2] + word[1:], word[:2] + "z" + word[3:]]


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ConfigParser:
    parser = argparse.ArgumentParser(prog="train.py")
    parser.add_argument("-c", "--config")
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    return ConfigParser.from_args(parser, modules=MODULES)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """``refused(config)``: the message that a config of that content is refused with."""
    def run(config: Any) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        with pytest.raises(SystemExit) as stop:
            parse(monkeypatch, "-c", str(path))
        assert stop.value.code == 2
        assert sorted(tmp_path.iterdir()) == [path]
        return capsys.readouterr().err
    return run


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("key", TOP)
def test_misspelt_key_at_the_top_is_named_with_the_right_one(refused, config_dict, key, wrong):
    """D38"""
    word = misspelt(key)[wrong]
    value = config_dict.pop(key, 5)
    message = refused(config_dict | {word: value})
    assert f"  {word}: unknown key (with " in message
    assert repr(key) in message.partition(f"  {word}: ")[2].splitlines()[0]


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("key", [*TrainerConfig.model_fields, "save_period"])
def test_misspelt_key_of_trainer_is_named_with_the_right_one(refused, config_dict, key, wrong):
    """D38"""
    word = misspelt(key)[wrong]
    config_dict["trainer"].pop("save_freq")
    value = config_dict["trainer"].pop(key, 5)
    config_dict["trainer"][word] = value
    line = refused(config_dict).partition(f"  trainer.{word}: ")[2].splitlines()[0]
    assert line.startswith("unknown key (with ") and repr(key) in line


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("section", ["arch", "data_loader", "optimizer", "lr_scheduler"])
@pytest.mark.parametrize("key", ["type", "args"])
def test_misspelt_key_of_a_section_is_named_with_the_right_one(
        refused, config_dict, section, key, wrong):
    """D38"""
    word = misspelt(key)[wrong]
    config_dict[section][word] = config_dict[section].pop(key)
    line = refused(config_dict).partition(f"  {section}.{word}: ")[2].splitlines()[0]
    assert line.startswith("unknown key (with ") and f"did you mean {key!r}" in line


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("section", ["arch", "data_loader", "optimizer", "lr_scheduler"])
def test_misspelt_type_is_named_with_the_right_one(refused, config_dict, section, wrong):
    """D38"""
    name = config_dict[section]["type"]
    word = misspelt(name)[wrong]
    config_dict[section]["type"] = word
    line = refused(config_dict).partition(f"  {section}.type: ")[2].splitlines()[0]
    assert f"has no {word!r}; did you mean" in line and repr(name) in line


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize(("section", "path", "name"), [
    ("loss", "loss", "nll_loss"), ("metrics", "metrics.0", "accuracy"),
    ("metrics", "metrics.0", "top_k_acc")])
def test_misspelt_function_is_named_with_the_right_one(
        refused, config_dict, section, path, name, wrong):
    """D38"""
    word = misspelt(name)[wrong]
    config_dict[section] = word if section == "loss" else [word]
    line = refused(config_dict).partition(f"  {path}.type: ")[2].splitlines()[0]
    assert f"has no {word!r}; did you mean" in line and repr(name) in line


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize(("section", "key"), EXAMPLE_ARGS)
def test_misspelt_argument_is_named_with_the_right_one(refused, config_dict, section, key, wrong):
    """D38"""
    args = config_dict[section]["args"]
    word = (misspelt(key) if len(key) > 2 else ["l", "lrr", "rl", "xlr", "lz"])[wrong]
    args[word] = args.pop(key)
    line = refused(config_dict).partition(f"  {section}.args.{word}: ")[2].splitlines()[0]
    assert "takes no such argument" in line
    assert repr(key) in line or key in line.partition("It takes: ")[2].split(", ")


def test_every_typed_key_has_wrong_values_here():
    known = {*RunConfig.model_fields, *(f"trainer.{key}" for key in TrainerConfig.model_fields)}
    assert {key for key, *_ in WRONG_VALUES} == known | {"trainer.save_period"}


@pytest.mark.parametrize(("path", "value"), [
    (path, value) for path, wrong, outside in WRONG_VALUES for value in [*wrong, *outside]],
    ids=lambda value: str(value)[:20].encode("unicode_escape").decode().replace("\\x00", "NUL"))
def test_wrong_value_is_told_with_path_and_value(config_dict, path, value):
    config_dict["trainer"].pop("save_freq")
    *section, key = path.split(".")
    (config_dict["trainer"] if section else config_dict)[key] = value
    with pytest.raises(ValueError, match="1 problem\n") as error:
        ConfigParser(config_dict, modules=MODULES)
    line = str(error.value).splitlines()[1]
    assert line.startswith(f"  {path}: expected ")
    assert f", got {json.dumps(value)[:57]}" in line


def test_all_mistakes_are_told_at_once(refused, config_dict):
    """D38"""
    config_dict["nme"] = config_dict.pop("name")
    config_dict["trainer"]["epochs"] = 0
    config_dict["trainer"]["verbosty"] = config_dict["trainer"].pop("verbosity")
    config_dict["optimizer"] |= {"type": "Adm"}
    config_dict["lr_scheduler"]["args"] = {"gamm": 0.1}
    config_dict["metrics"][1] = "top_k_ac"
    message = refused(config_dict)
    assert "config.json: 7 problems" in message
    for path in ("nme", "trainer.epochs", "trainer.verbosty", "optimizer.type", "metrics.1.type",
                 "lr_scheduler.args.gamm", "lr_scheduler.args.step_size"):
        assert message.count(f"\n  {path}: ") == 1


@pytest.mark.parametrize("value", [None, [], {}, 5, "x", True, [None], {"a": None}])
@pytest.mark.parametrize("key", ["arch", "data_loader", "optimizer", "loss", "trainer"])
def test_section_of_another_shape_is_told(refused, config_dict, key, value):
    assert f"\n  {key}" in refused(config_dict | {key: value})


@pytest.mark.parametrize("key", ["arch", "data_loader", "optimizer", "loss", "trainer"])
def test_section_that_is_needed_and_missing_is_told(refused, config_dict, key):
    del config_dict[key]
    assert f"  {key}: this section is missing" in refused(config_dict)


@pytest.mark.parametrize(("key", "value"), [
    ("lr_scheduler", None), ("metrics", None), ("metrics", []), ("metrics", "accuracy"),
    ("loss", ["nll_loss"]), ("loss", {"type": "nll_loss"})])
def test_sections_may_be_empty_or_short(config_dict, key, value):
    """D39"""
    config_dict[key] = value
    assert ConfigParser(config_dict, modules=MODULES)[key] == value


@pytest.mark.parametrize("key", ["lr_scheduler", "metrics", "name", "n_gpu"])
def test_sections_may_be_absent(config_dict, key):
    """D39"""
    del config_dict[key]
    assert key not in ConfigParser(config_dict, modules=MODULES)


@pytest.mark.parametrize("items", [["accuracy", "accuracy"], ["accuracy", {
    "type": "top_k_acc", "name": "accuracy"}], [{"type": "accuracy", "name": "loss"}]])
def test_two_metrics_of_one_name_are_refused(refused, config_dict, items):
    assert "is the name of two" in refused(config_dict | {"metrics": items})


def test_each_of_several_optimizers_is_checked(refused, config_dict):
    section = config_dict["optimizer"]
    config_dict["optimizer"] = {"generator": section, "critic": {"type": "Adm", "args": {}}}
    message = refused(config_dict)
    assert "1 problem\n  optimizer.critic.type: torch.optim has no 'Adm'" in message


def test_two_names_of_one_setting_that_disagree_are_refused(refused, config_dict):
    config_dict["trainer"] |= {"save_freq": 1, "save_period": 2}
    assert "trainer.save_period: 2, but save_freq, its other name, is 1" in refused(config_dict)


@pytest.mark.parametrize("key", ["valid_data_loader", "my_section", "$comment", "x"])
def test_own_keys_pass_and_are_mentioned_once(config_dict, caplog, key):
    """D38"""
    config_dict |= {key: {"any": [None]}}
    config_dict["trainer"]["warmup_length"] = 5
    with caplog.at_level("DEBUG", logger="config"):
        config = ConfigParser(config_dict, modules=MODULES)
    assert config[key] == {"any": [None]}
    assert [record.getMessage() for record in caplog.records] == [
        f"keys of your own, passed through: {key}, trainer.warmup_length"]


def test_own_keys_are_not_mentioned_at_verbosity_1(config_dict, caplog):
    config_dict |= {"my_section": 5}
    config_dict["trainer"]["verbosity"] = 1
    ConfigParser(config_dict, modules=MODULES)
    assert not caplog.records


def test_the_config_handed_in_is_not_changed(config_dict):
    before = copy.deepcopy(config_dict)
    ConfigParser(config_dict, modules=MODULES)["trainer"]["epochs"] = 77
    assert config_dict == before


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "texts"), [
    (["trainer.epochs=0", "+optimizr.x=1", "optimizer.type=Adm"],
     ["2 problems", "trainer.epochs: expected an integer of at least 1, got 0",
      "optimizer.type: torch.optim has no 'Adm'; did you mean 'Adam'"]),
    (["trainer.epoch=5"], ["trainer.epoch: the config has no such key; did you mean "
                           "'trainer.epochs'"]),
    (["--lr", "nan"], ["--lr: expected a finite number, got nan"]),
    (["--overfit", "0"], ["--overfit: expected a number of batches from 1 on"]),
])
def test_command_ends_with_status_2_and_writes_nothing(run_script, tmp_path, config_file,
                                                       arguments, texts):
    """D38"""
    result = run_script("train.py", "-c", config_file, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert list(tmp_path.iterdir()) == [config_file]


@pytest.mark.slow
@pytest.mark.parametrize(("argument", "text"), [
    ("optimizer.args.lr=-1", "optimizer.args: Adam refuses"),
    ("data_loader.args.validation_split=7.5", "data_loader.args: MnistDataLoader refuses"),
    ("data_loader.args.batch_size=0", "data_loader.args: MnistDataLoader refuses"),
])
def test_value_that_a_constructor_refuses_is_told_without_a_traceback(
        run_script, tmp_path, config_file, argument, text):
    result = run_script("train.py", "-c", config_file, argument, cwd=tmp_path)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert list(tmp_path.iterdir()) == [config_file]
