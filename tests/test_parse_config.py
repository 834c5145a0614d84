"""ConfigParser: what projects call, the order of precedence, options and their help."""

import argparse
import json
import logging
import os
import pickle
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from parse_config import ConfigParser
from train import MODULES
from utils.errors import ConfigError
from utils.settings import TrainerConfig

CustomArgs = namedtuple("CustomArgs", "flags type target")
LR = CustomArgs(["--lr", "--learning_rate"], float, "optimizer;args;lr")
BS = CustomArgs(["--bs", "--batch-size"], int, ("data_loader", "args", "batch_size"))


class Thing:
    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


THINGS = SimpleNamespace(Thing=Thing)


@pytest.fixture
def minimal(tmp_path):
    return {"name": "run", "trainer": {"epochs": 5, "save_dir": str(tmp_path / "saved"),
                                       "save_period": 1, "verbosity": 2}}


@pytest.fixture
def parse(monkeypatch, config_file):
    """``parse(*arguments)``: the config that a project's own train.py gets."""
    def run(*arguments, options=(LR, BS), modules=None, config=config_file):
        parser = argparse.ArgumentParser(prog="train.py")
        parser.add_argument("-c", "--config", default=None)
        parser.add_argument("-r", "--resume", default=None)
        parser.add_argument("-d", "--device", default=None)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        given = [] if config is None else ["-c", config]
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, [*given, *arguments])])
        return ConfigParser.from_args(parser, options, modules)
    return run


@pytest.fixture
def checkpoint(tmp_path, config_dict):
    """A checkpoint in a run's folder, whose config differs from the file's."""
    path = tmp_path / "saved" / "models" / "Mnist_LeNet" / "first" / "latest.pth"
    path.parent.mkdir(parents=True)
    config_dict["trainer"]["epochs"] = 7
    config_dict["optimizer"]["args"]["lr"] = 0.5
    torch.save({"state_dict": {}, "config": config_dict}, path)
    return path


def test_a_nested_dict_is_enough(minimal):
    config = ConfigParser(minimal)
    assert config["trainer"]["epochs"] == config.trainer.epochs == 5
    assert type(config.config) is dict and config.resume is None


def test_what_is_written_into_the_config_sticks(minimal):
    config = ConfigParser(minimal)
    config["trainer"]["epochs"] = 9
    config["mine"] = {"a": 1}
    assert config.config["trainer"]["epochs"] == 9 and config["mine"]["a"] == 1


def test_it_reads_like_a_dict(minimal):
    """D39"""
    config = ConfigParser(minimal)
    assert "name" in config and "arch" not in config
    assert config.get("name") == "run" and config.get("arch") is None and config.get("x", 5) == 5
    assert list(config) == list(config.keys()) == [key for key, _ in config.items()]


def test_missing_section_is_told_with_those_that_are_there(minimal):
    with pytest.raises(ConfigError, match="no section or key 'arch'; it has: name, trainer"):
        ConfigParser(minimal)["arch"]


def test_defaults_are_filled_in_under_the_key_that_is_used(minimal):
    config = ConfigParser(minimal | {"trainer": minimal["trainer"] | {"save_period": 3}})
    assert config.trainer.save_freq == config["trainer"]["save_period"] == 3
    assert "save_freq" not in config["trainer"] and config["trainer"]["monitor"] == "off"


@pytest.mark.parametrize("target", ["optimizer;args;lr", ("optimizer", "args", "lr")])
def test_modification_sets_a_path_unless_it_is_none(minimal, target):
    config = ConfigParser(minimal, modification={target: 0.1, "trainer;epochs": None})
    assert config["optimizer"] == {"args": {"lr": 0.1}} and config.trainer.epochs == 5


def test_folders_are_those_of_the_run_and_made_on_first_use(minimal, tmp_path):
    config = ConfigParser(minimal, run_id="one")
    assert list(tmp_path.iterdir()) == []
    assert config.save_dir == tmp_path / "saved" / "models" / "run" / "one"
    assert config.log_dir == tmp_path / "saved" / "log" / "run" / "one"
    assert json.loads((config.save_dir / "config.json").read_text()) == config.config


def test_written_config_has_the_overrides(parse):
    config = parse("--lr", "0.25")
    assert json.loads((config.save_dir / "config.json").read_text())["optimizer"]["args"][
        "lr"] == 0.25


def test_it_can_be_pickled(minimal):
    config = ConfigParser(minimal, run_id="one")
    folder = config.save_dir
    again = pickle.loads(pickle.dumps(config))
    assert again.config == config.config and again.save_dir == folder
    assert again.trainer == config.trainer


@pytest.mark.parametrize("method", ["init_obj", "initialize"])
def test_init_obj_passes_positions_then_the_configs_arguments_then_keywords(minimal, method):
    config = ConfigParser(minimal | {"thing": {"type": "Thing", "args": {"a": 1}}})
    built = getattr(config, method)("thing", THINGS, 5, b=2)
    assert (built.args, built.kwargs) == ((5,), {"a": 1, "b": 2})


def test_init_obj_works_without_args(minimal):
    assert ConfigParser(minimal | {"thing": {"type": "Thing"}}).init_obj("thing", THINGS).args == ()


def test_init_ftn_is_the_same_as_a_partial(minimal):
    config = ConfigParser(minimal | {"thing": {"type": "Thing", "args": {"a": 1}}})
    built = config.init_ftn("thing", THINGS, 5, b=2)(6, c=3)
    assert (built.args, built.kwargs) == ((5, 6), {"a": 1, "b": 2, "c": 3})


def test_repeating_an_argument_of_the_config_is_an_error(minimal):
    config = ConfigParser(minimal | {"thing": {"type": "Thing", "args": {"a": 1}}})
    with pytest.raises(ValueError, match=r"thing\.args: a would overwrite"):
        config.init_obj("thing", THINGS, a=2)


@pytest.mark.parametrize("section", [5, "Thing", [], {}, {"args": {}}])
def test_section_that_cannot_be_built_is_told(minimal, section):
    with pytest.raises(ConfigError, match=r'thing: expected \{"type": '):
        ConfigParser(minimal | {"thing": section}).init_obj("thing", THINGS)


def test_init_functions_bind_arguments_and_have_names(minimal):
    """D41"""
    config = ConfigParser(minimal | {"metrics": [
        "accuracy", {"type": "top_k_acc", "args": {"k": 1}, "name": "top1"}]})
    first, second = config.init_functions("metrics", "model.metric")
    output, target = torch.eye(3), torch.tensor([0, 1, 0])
    assert (first.__name__, second.__name__) == ("accuracy", "top1")
    assert second(output, target) == first(output, target) == pytest.approx(2 / 3)


def test_init_functions_build_classes(minimal):
    """D10"""
    config = ConfigParser(minimal | {"metrics": [
        {"type": "Accuracy", "args": {"task": "multiclass", "num_classes": 3}}]})
    metric, = config.init_functions("metrics", "torchmetrics")
    assert metric.__name__ == "Accuracy" and hasattr(metric, "compute")


def test_init_functions_of_null_are_none(minimal):
    assert ConfigParser(minimal | {"metrics": None}).init_functions("metrics", "m") == []


@pytest.mark.parametrize(("verbosity", "level"), [
    (0, logging.WARNING), (1, logging.INFO), (2, logging.DEBUG)])
def test_verbosity_is_the_level_of_a_logger(minimal, verbosity, level):
    assert ConfigParser(minimal).get_logger("any", verbosity).level == level


def test_unknown_verbosity_is_refused(minimal):
    with pytest.raises(ValueError, match=r"verbosity must be one of \[0, 1, 2\], got 3"):
        ConfigParser(minimal).get_logger("any", 3)


@pytest.mark.parametrize("change", [
    {"n_gpu": 2}, {"metrics": {"a": 1}}, {"metrics": []}, {"loss": ["a", "b"]}, {"arch": None},
    {"arch": {"type": "not.checked", "arg": 5}}, {"optimizr": 1}, {"lr_scheduler": None},
    {"my_section": [{"a": None}]}, {"seed": None}, {"freeze": True}])
def test_projects_own_sections_pass_without_modules(minimal, change):
    key, = change
    assert ConfigParser(minimal | change)[key] == change[key]


@pytest.mark.parametrize(("key", "value"), [
    ("monitor", "whatever"), ("monitor", "lowest loss"), ("log_steps", "x"), ("compile", "fast")])
def test_newer_key_of_trainer_is_warned_about_without_modules(minimal, caplog, key, value):
    minimal["trainer"][key] = value
    config = ConfigParser(minimal)
    assert config["trainer"][key] == value
    assert getattr(config.trainer, key) == TrainerConfig.model_fields[key].default
    record, = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"trainer.{key}: expected ")


@pytest.mark.parametrize("trainer", [None, {}, {"epochs": "x"}, {"epochs": 1, "save_period": "x"}])
def test_classic_keys_are_checked_without_modules(minimal, trainer):
    with pytest.raises(ConfigError, match="trainer"):
        ConfigParser(minimal | {"trainer": trainer})


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/a", "a\\b", "CON", "lpt1.x", "a\n", "."])
def test_name_and_run_id_cannot_leave_the_folder(minimal, tmp_path, name):
    with pytest.raises(ConfigError, match="name: "):
        ConfigParser(minimal | {"name": name})
    with pytest.raises(ConfigError, match="--run-id: "):
        ConfigParser(minimal, run_id=name)
    assert list(tmp_path.iterdir()) == []


def test_declared_options_set_their_targets(parse):
    """D36, D37"""
    config = parse("--learning_rate", "0.25", "--batch-size=8")
    assert config["optimizer"]["args"]["lr"] == 0.25
    assert config["data_loader"]["args"]["batch_size"] == 8


def test_option_that_is_not_given_changes_nothing(parse, config_dict):
    assert parse()["optimizer"] == config_dict["optimizer"]


def test_option_may_have_several_targets(parse):
    option = CustomArgs(["--n"], int, ["trainer;epochs", ("data_loader", "args", "batch_size")])
    config = parse("--n", "3", options=[option])
    assert config["trainer"]["epochs"] == config["data_loader"]["args"]["batch_size"] == 3


def test_further_fields_of_an_option_are_honoured(parse, capsys):
    option = SimpleNamespace(flags=["--seed"], type=int, target="seed", choices=[1, 2], default=2)
    assert parse(options=[option])["seed"] == 2
    with pytest.raises(SystemExit):
        parse("--seed", "3", options=[option])
    assert "invalid choice: 3" in capsys.readouterr().err


def test_option_may_be_a_switch(parse):
    option = SimpleNamespace(flags=["--no-board"], type=None, target="trainer;tensorboard",
                             action="store_false", default=None)
    assert parse("--no-board", options=[option]).trainer.tensorboard is False


def test_help_shows_target_and_the_configs_value(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "sets optimizer.args.lr (config: 0.002)" in text
    assert "sets data_loader.args.batch_size (config: 20)" in text


def test_options_may_be_empty_text(parse):
    assert parse(options="").trainer.epochs == 2


def test_namespace_serves_as_well(config_file):
    config = ConfigParser.from_args(
        argparse.Namespace(config=str(config_file), lr=0.5, resume=None), [LR])
    assert config["optimizer"]["args"]["lr"] == 0.5


def test_mistake_in_a_namespace_raises_config_error():
    with pytest.raises(ConfigError, match="expected a config"):
        ConfigParser.from_args(argparse.Namespace())


def test_device_is_chosen_before_cuda_starts(parse):
    parse("-d", "2,3")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_device_cpu_uses_no_gpu(parse):
    config = parse("-d", "cpu", "n_gpu=4")
    assert (os.environ["CUDA_VISIBLE_DEVICES"], config.run.n_gpu) == ("", 0)


@pytest.mark.parametrize("device", ["gpu", "0;rm", "", "1,", "cuda:0"])
def test_unknown_device_is_told(parse, capsys, device):
    with pytest.raises(SystemExit):
        parse(f"--device={device}")
    assert "--device: expected GPU numbers" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "epochs", "lr"), [
    ([], 7, 0.5), (["-c", "part"], 9, 0.5), (["-c", "part", "--lr", "0.25"], 9, 0.25),
    (["-c", "part", "--lr", "0.25", "optimizer.args.lr=0.125", "trainer.epochs=11"], 11, 0.125)])
def test_later_sources_win(parse, tmp_path, checkpoint, arguments, epochs, lr):
    """D25, D27, D28"""
    (tmp_path / "part").write_text('{"trainer": {"epochs": 9}}')
    given = [tmp_path / "part" if item == "part" else item for item in arguments]
    config = parse("-r", checkpoint, *given, config=None)
    assert (config.trainer.epochs, config["optimizer"]["args"]["lr"]) == (epochs, lr)
    assert config.resume == checkpoint and config["name"] == "Mnist_LeNet"


def test_config_beside_a_checkpoint_without_one_is_taken(parse, tmp_path, config_file):
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    assert parse("-r", tmp_path / "a.pth", config=None).trainer.epochs == 2


def test_checkpoint_without_any_config_is_told(parse, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    torch.save({"state_dict": {}}, tmp_path / "bare" / "a.pth")
    with pytest.raises(SystemExit):
        parse("-r", tmp_path / "bare" / "a.pth", config=None)
    assert "holds no config and there is no config.json beside it" in capsys.readouterr().err


@pytest.mark.parametrize("config", [{"x": torch.zeros(2)}, {"x": b"1"}, {(1, 2): 3}])
def test_config_in_a_checkpoint_that_is_no_json_is_told(parse, tmp_path, capsys, config):
    torch.save({"state_dict": {}, "config": config}, tmp_path / "a.pth")
    with pytest.raises(SystemExit):
        parse("-r", tmp_path / "a.pth", config=None)
    assert "its config is not plain JSON" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["trainer.save_dir={}", None])
def test_latest_is_looked_for_where_runs_write(parse, tmp_path, checkpoint, monkeypatch, override):
    """D33"""
    monkeypatch.chdir(tmp_path / "saved" if override else tmp_path)
    given = [override.format(tmp_path / "saved")] if override else []
    assert parse("-r", "latest", *given, config=None).resume.resolve() == checkpoint


@pytest.mark.parametrize("content", ['{"trainer": 5}', '{"trainer": {"save_dir": 5}}',
                                     '{"name": "../../**a", "trainer": {}}', '{"name": []}'])
def test_latest_beside_a_broken_config_is_told(parse, tmp_path, capsys, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        parse("-r", "latest", config=tmp_path / "b.json")
    assert stop.value.code == 2 and "--resume: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.json", "none.pth", ".", "text.pth"])
def test_what_is_no_checkpoint_is_told(parse, tmp_path, capsys, monkeypatch, name):
    """D43"""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(SystemExit) as stop:
        parse("-r", name, config=None)
    assert stop.value.code == 2 and "--resume: " in capsys.readouterr().err


def test_log_shows_what_differs_from_the_file(parse, capsys, config_file):
    parse("--lr", "0.25", "+mine=1", "~metrics.0")
    text = capsys.readouterr().out
    assert f"changes to {config_file}:" in text
    for line in ("  optimizer.args.lr: 0.002 -> 0.25", "  mine: (absent) -> 1",
                 '  metrics.0: "accuracy" -> "top_k_acc"'):
        assert line in text.splitlines()


def test_base_of_a_config_is_read(parse, tmp_path, config_file):
    (tmp_path / "b.json").write_text('{"base": "config.json", "trainer": {"epochs": 1}}')
    config = parse(config=tmp_path / "b.json", modules=MODULES)
    assert config.trainer.epochs == 1 and config["arch"]["type"] == "MnistModel"


def test_overrides_may_stand_between_the_options(parse):
    """D36"""
    config = parse("trainer.epochs=5", "--lr", "0.25", "metrics.0=top_k_acc")
    assert (config.trainer.epochs, config["metrics"][0]) == (5, "top_k_acc")


def test_example_config_is_valid():
    path = Path(__file__).resolve().parent.parent / "config.json"
    assert ConfigParser(json.loads(path.read_text()), modules=MODULES).run.name == "Mnist_LeNet"
