"""ConfigParser as projects use it: a dict with folders and builders; checked or only warned of."""

import copy
import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parse_config import ConfigParser
from tests.framework.toy.model import metric
from tests.framework.utils.config.modules import MODULES
from train import MODULES as EXAMPLE
from utils.config.settings import TrainerConfig
from utils.errors import ConfigError, RunError

Config = dict[str, Any]


class Thing:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


THINGS = SimpleNamespace(Thing=Thing)


@pytest.fixture
def minimal(tmp_path: Path) -> Config:
    return {"name": "run", "trainer": {"epochs": 5, "save_dir": str(tmp_path / "saved"),
                                       "save_period": 1, "verbosity": 2}}


def test_a_nested_dict_is_enough(minimal: Config) -> None:
    config = ConfigParser(minimal)
    assert config["trainer"]["epochs"] == config.trainer.epochs == 5
    assert type(config.config) is dict and config.resume is None


def test_what_is_written_into_the_config_sticks(minimal: Config) -> None:
    config = ConfigParser(minimal)
    config["trainer"]["epochs"] = 9
    config["mine"] = {"a": 1}
    assert config.config["trainer"]["epochs"] == config.trainer.epochs == 9
    assert config["mine"]["a"] == 1


def test_the_config_handed_in_is_not_changed(config_dict: Config) -> None:
    before = copy.deepcopy(config_dict)
    ConfigParser(config_dict, modules=MODULES)["trainer"]["epochs"] = 77
    assert config_dict == before


def test_it_reads_like_a_dict(minimal: Config) -> None:
    config = ConfigParser(minimal)
    assert "name" in config and "arch" not in config
    assert config.get("name") == "run" and config.get("arch") is None and config.get("x", 5) == 5
    assert list(config) == list(config.keys()) == [key for key, _ in config.items()]


def test_missing_section_is_told_with_those_that_are_there(minimal: Config) -> None:
    with pytest.raises(ConfigError, match="no section or key 'arch'; it has: name, trainer"):
        ConfigParser(minimal)["arch"]


def test_defaults_are_filled_in_under_the_key_that_is_used(minimal: Config) -> None:
    config = ConfigParser(minimal | {"trainer": minimal["trainer"] | {"save_period": 3}})
    assert config.trainer.save_freq == config["trainer"]["save_period"] == 3
    assert "save_freq" not in config["trainer"] and config["trainer"]["monitor"] == "off"


@pytest.mark.parametrize("target", ["optimizer;args;lr", ("optimizer", "args", "lr")])
def test_modification_sets_a_path_unless_it_is_none(minimal: Config, target: Any) -> None:
    config = ConfigParser(minimal, modification={target: 0.1, "trainer;epochs": None})
    assert config["optimizer"] == {"args": {"lr": 0.1}} and config.trainer.epochs == 5


def test_folders_are_those_of_the_run_and_made_on_first_use(minimal: Config,
                                                            tmp_path: Path) -> None:
    config = ConfigParser(minimal, run_id="one")
    assert list(tmp_path.iterdir()) == []
    assert config.save_dir == tmp_path / "saved" / "models" / "run" / "one"
    assert config.log_dir == tmp_path / "saved" / "log" / "run" / "one"
    assert json.loads((config.save_dir / "config.json").read_text()) == config.config


def test_what_classic_projects_reach_for_can_be_read(minimal: Config) -> None:
    config = ConfigParser(minimal, run_id="one")
    assert config._config is config.config
    assert (config._save_dir, config._log_dir) == (config.save_dir, config.log_dir)
    assert config.log_levels == {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


def test_it_can_be_pickled(minimal: Config) -> None:
    config = ConfigParser(minimal, run_id="one")
    folder = config.save_dir
    again = pickle.loads(pickle.dumps(config))
    assert again.config == config.config and again.save_dir == folder
    assert again.trainer == config.trainer


@pytest.mark.parametrize("method", ["init_obj", "initialize"])
def test_init_obj_passes_positions_then_the_configs_arguments_then_keywords(minimal: Config,
                                                                            method: str) -> None:
    config = ConfigParser(minimal | {"thing": {"type": "Thing", "args": {"a": 1}}})
    built = getattr(config, method)("thing", THINGS, 5, b=2)
    assert (built.args, built.kwargs) == ((5,), {"a": 1, "b": 2})


def test_init_obj_works_without_args(minimal: Config) -> None:
    assert ConfigParser(minimal | {"thing": {"type": "Thing"}}).init_obj("thing", THINGS).args == ()


def test_init_ftn_is_the_same_as_a_partial(minimal: Config) -> None:
    config = ConfigParser(minimal | {"thing": {"type": "Thing", "args": {"a": 1}}})
    built = config.init_ftn("thing", THINGS, 5, b=2)(6, c=3)
    assert (built.args, built.kwargs) == ((5, 6), {"a": 1, "b": 2, "c": 3})


def test_repeating_an_argument_of_the_config_is_an_error(minimal: Config) -> None:
    config = ConfigParser(minimal | {"thing": {"type": "Thing", "args": {"a": 1}}})
    with pytest.raises(ConfigError, match=r"thing\.args: a would overwrite"):
        config.init_obj("thing", THINGS, a=2)


@pytest.mark.parametrize("section", [5, "Thing", [], {}, {"args": {}}], ids=str)
def test_section_that_cannot_be_built_is_told(minimal: Config, section: Any) -> None:
    with pytest.raises(ConfigError, match=r'thing: expected \{"type": '):
        ConfigParser(minimal | {"thing": section}).init_obj("thing", THINGS)


def test_init_functions_bind_arguments_and_have_names(minimal: Config) -> None:
    config = ConfigParser(minimal | {"metrics": [
        "accuracy", {"type": "top_k_acc", "args": {"k": 1}, "name": "top1"}]})
    first, second = config.init_functions("metrics", metric)
    output, target = torch.eye(3), torch.tensor([0, 1, 0])
    assert (first.__name__, second.__name__) == ("accuracy", "top1")
    assert second(output, target) == first(output, target) == pytest.approx(2 / 3)


def test_init_functions_build_classes(minimal: Config) -> None:
    config = ConfigParser(minimal | {"metrics": [
        {"type": "Accuracy", "args": {"task": "multiclass", "num_classes": 3}}]})
    built, = config.init_functions("metrics", "torchmetrics")
    assert built.__name__ == "Accuracy" and hasattr(built, "compute")


def test_init_functions_of_null_are_none(minimal: Config) -> None:
    assert ConfigParser(minimal | {"metrics": None}).init_functions("metrics", "m") == []


@pytest.mark.parametrize("change", [
    {"n_gpu": 2}, {"metrics": {"a": 1}}, {"metrics": []}, {"loss": ["a", "b"]}, {"arch": None},
    {"arch": {"type": "not.checked", "arg": 5}}, {"lr_scheduler": None},
    {"my_section": [{"a": None}]}, {"seed": None}, {"freeze": True}], ids=str)
def test_projects_own_sections_pass_without_modules(minimal: Config, change: Config) -> None:
    key, = change
    assert ConfigParser(minimal | change)[key] == change[key]


@pytest.mark.parametrize(("key", "value"), [
    ("monitor", "whatever"), ("monitor", "lowest loss"), ("log_steps", "x"), ("compile", "fast")])
def test_newer_key_of_trainer_is_warned_about_without_modules(
        minimal: Config, caplog: pytest.LogCaptureFixture, key: str, value: Any) -> None:
    minimal["trainer"][key] = value
    config = ConfigParser(minimal)
    assert config["trainer"][key] == value
    assert getattr(config.trainer, key) == TrainerConfig.model_fields[key].default
    record, = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"trainer.{key}: expected ")


@pytest.mark.parametrize("has_modules", [False, True])
@pytest.mark.parametrize("key", ["lr_schedular", "trainer.earlystop"])
def test_misspelt_key_is_refused_and_without_modules_warned_about(
        config_dict: Config, caplog: pytest.LogCaptureFixture, key: str, has_modules: bool) -> None:
    *section, word = key.split(".")
    (config_dict["trainer"] if section else config_dict)[word] = 5
    if has_modules:
        with pytest.raises(ConfigError, match=f"1 problem\n  {key}: unknown key"):
            ConfigParser(config_dict, modules=MODULES)
    else:
        ConfigParser(config_dict)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.messages[0].startswith(f"{key}: unknown key")


@pytest.mark.parametrize("trainer", [None, {}, {"epochs": "x"}, {"epochs": 1, "save_period": "x"}],
                         ids=str)
def test_classic_keys_are_checked_without_modules(minimal: Config, trainer: Any) -> None:
    with pytest.raises(ConfigError, match="trainer"):
        ConfigParser(minimal | {"trainer": trainer})


def test_keys_of_ones_own_pass_and_are_mentioned_once(config_dict: Config,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    config_dict |= {"my_section": {"any": [None]}}
    config_dict["trainer"]["warmup_length"] = 5
    with caplog.at_level("DEBUG", logger="config"):
        config = ConfigParser(config_dict, modules=MODULES)
    assert config["my_section"] == {"any": [None]}
    assert caplog.messages == [
        "keys of your own, passed through: my_section, trainer.warmup_length"]


def test_key_of_ones_own_that_begins_like_a_known_one_is_warned_of(
        config_dict: Config, caplog: pytest.LogCaptureFixture) -> None:
    config_dict["trainer"] |= {"early_stopping": 5, "warmup_length": 5}
    ConfigParser(config_dict, modules=MODULES)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["trainer.early_stopping is a key of your own; did you mean 'early_stop'?"]


class Sized:
    def __init__(self, size: int, depth: int = 1) -> None:
        self.size, self.depth = size, depth


def test_argument_that_the_code_passes_need_not_be_in_the_config(minimal: Config) -> None:
    modules: dict[str, Any] = {"thing": (__name__, ["size"])}
    config = ConfigParser(minimal | {"thing": {"type": "Sized", "args": {"depth": 2}}},
                          modules=modules)
    built = config.init_obj("thing", None, size=5)
    assert (built.size, built.depth) == (5, 2)
    for args, text in (({"size": 1}, "thing.args.size: the code passes it to Sized"),
                       ({"siz": 1}, "thing.args.siz: Sized takes no such argument")):
        with pytest.raises(ConfigError, match=text):
            ConfigParser(minimal | {"thing": {"type": "Sized", "args": args}}, modules=modules)


@pytest.mark.parametrize("name", [
    "MulticlassAccuracy", "R2Score", "MeanIoU", "CharErrorRate", "IntersectionOverUnion",
    "PeakSignalNoiseRatio", "MeanMetric"])
def test_metrics_of_every_domain_are_found_where_they_belong(minimal: Config, name: str) -> None:
    """Not under names that torchmetrics is about to take away, which warn."""
    args = {"MulticlassAccuracy": {"num_classes": 3}, "MeanIoU": {"num_classes": 3},
            "PeakSignalNoiseRatio": {"data_range": 1.0}}.get(name, {})
    config = ConfigParser(minimal | {"metrics": [{"type": name, "args": args}]},
                          modules={"metrics": EXAMPLE["metrics"]})
    metric, = config.init_functions("metrics")
    assert "_deprecated" not in type(metric).__module__


def test_metric_whose_package_is_missing_is_one_error(minimal: Config) -> None:
    modules: dict[str, Any] = {"metrics": __name__}
    config = ConfigParser(minimal | {"metrics": ["NeedsMore"]}, modules=modules)
    with pytest.raises(RunError, match="NeedsMore needs a package that is not installed: pip ins"):
        config.init_functions("metrics")


class NeedsMore:
    def __init__(self) -> None:
        raise ModuleNotFoundError("pip install more")

    def update(self, output: Any, target: Any) -> None:
        raise AssertionError("called")

    compute = reset = update
