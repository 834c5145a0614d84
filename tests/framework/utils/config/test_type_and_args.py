"""Names and arguments of sections are checked by signature; nothing is built."""

import functools
import json
from abc import abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.framework.utils.config.modules import MODULES
from tests.framework.utils.config.test_settings import misspelt
from utils.config.arguments import check_arguments
from utils.config.names import check_built, resolve_name
from utils.config.type_and_args import check_part, check_parts, refusals_told
from utils.errors import ConfigError, RunError

Config = dict[str, Any]


class Unbuildable(nn.Module):
    def __init__(self, size: int, depth: int = 2) -> None:
        raise AssertionError("built")


class Open(Unbuildable):
    def __init__(self, width: int, **options: Any) -> None:
        raise AssertionError("built")


class Abstract(nn.Module):
    @abstractmethod
    def forward(self) -> None:
        raise AssertionError("called")


class OpenLoader(DataLoader[Any]):
    def __init__(self, batch_size: int, **options: Any) -> None:
        super().__init__([1], batch_size, **options)


def function(output: Any, target: Any, weight: Any, scale: float = 1.0) -> None:
    raise AssertionError("called")


HERE: Any = SimpleNamespace(
    __name__="here", Unbuildable=Unbuildable, Open=Open, Abstract=Abstract, function=function,
    bound=functools.partial(function, weight=1), model=functools.partial(Unbuildable, 5),
    Text=str, number=5, module=json, Module=nn.Module, _private=Unbuildable, build=lambda **kw: kw,
    Tensor=torch.Tensor)


def problems(section: Any, name: str = "arch") -> dict[str, str]:
    return check_part(name, section, HERE, name)


def problem(section: Any, name: str = "arch") -> str:
    """The one there is, with its path."""
    (path, text), = problems(section, name).items()
    return f"{path}: {text}"


def of_the_toy(section: str, name: str, args: Any) -> dict[str, str]:
    return check_part(section, {"type": name, "args": args}, MODULES[section], section)


@pytest.mark.parametrize(("section", "name"), [
    ({"type": "Unbuildable", "args": {"size": 5}}, "arch"),
    ({"type": "Open", "args": {"width": 5, "size": 5, "anything_else": 5}}, "arch"),
    ({"type": "model"}, "arch"), ({"type": "build", "args": {"x": 1}}, "arch"),
    ({"type": "function", "args": {"weight": 1}}, "loss"), ("bound", "loss"),
    ({"type": "bound", "args": {"scale": 2, "weight": 3}}, "metrics")], ids=str)
def test_what_can_be_built_has_no_problem_and_is_not_built(section: Any, name: str) -> None:
    assert problems(section, name) == {}


@pytest.mark.parametrize(("section", "name", "texts"), [
    ({"type": "Unbuildable"}, "arch", ["arch.args.size: is missing; Unbuildable needs it"]),
    ({"type": "Unbuildable", "args": {"size": 1, "dept": 5}}, "arch", [
        "arch.args.dept: Unbuildable takes no such argument (with 5); did you mean 'depth'? It "
        "takes: size, depth"]),
    ({"type": "Unbuildable", "args": {"size": 1, "depth": 2, "dept": 5}}, "arch", [
        "did you mean 'depth'?"]),
    ({"type": "Open", "args": {"widht": 1}}, "arch", [
        "arch.args.widht: Open takes no such argument (with 1); did you mean 'width'?",
        "arch.args.width: is missing"]),
    ({"type": "Open", "args": {"width": 1, "dpth": 5}}, "arch", ["did you mean 'depth'?"]),
    ({"type": "function", "args": {"output": 1}}, "loss", [
        "loss.args.output: the code passes it to function", "loss.args.weight: is missing"]),
    ({"type": "bound", "args": {"zzz": 1}}, "metrics", ["metrics.args.zzz"]),
    ({"type": "model", "args": {"depht": 1}}, "arch", ["did you mean 'depth'?"]),
    ({"type": "Unbuildable", "args": {"size": 1, "depth": "x"}}, "arch", [
        'arch.args.depth: expected a number, got "x"']),
    ({"type": "bound", "args": {"scale": "x"}}, "loss", ["loss.args.scale: expected a number"]),
], ids=str)
def test_arguments_that_do_not_bind_are_told(section: Any, name: str, texts: list[str]) -> None:
    found = [f"{path}: {text}" for path, text in problems(section, name).items()]
    assert len(found) == len(texts)
    for text, told in zip(texts, found, strict=True):
        assert text in told


@pytest.mark.parametrize("name", [
    "_private", "__name__", "__class__", "__init__", "__builtins__", "json.loads",
    "here.Unbuildable", "os.system", "a b", "", "1a", "eval(1)", "../x", "Unbuildable\n", None, 5,
    [], {}, True])
def test_name_that_is_no_plain_public_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="expected the plain name of a class or function, got "):
        resolve_name(name, HERE)


@pytest.mark.parametrize(("name", "kind"), [("module", "module"), ("number", "int")])
def test_what_cannot_be_called_is_refused(name: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r} in here is a {kind}"):
        resolve_name(name, HERE)


@pytest.mark.parametrize("name", ["os", "system", "eval", "exec", "open", "print", "Popen", "sys",
                                  "subprocess", "importlib", "breakpoint", "F", "nn", "json"])
@pytest.mark.parametrize("section", MODULES)
def test_names_of_other_modules_are_refused(section: str, name: str) -> None:
    assert f"{section}.type" in of_the_toy(section, name, {})


@pytest.mark.parametrize(("section", "name"), [
    ("arch", "Text"), ("arch", "Module"), ("arch", "Abstract"), ("data_loader", "Unbuildable"),
    ("optimizer", "Unbuildable"), ("lr_scheduler", "Text"), ("loss", "Text"), ("metrics", "Text")])
def test_class_of_another_kind_is_refused(section: str, name: str) -> None:
    assert problem({"type": name, "args": {}}, section).startswith(f"{section}.type: ")


@pytest.mark.parametrize(("section", "name"), [
    ("arch", "BaseModel"), ("optimizer", "Optimizer"), ("lr_scheduler", "LRScheduler")])
def test_abstract_class_is_refused(section: str, name: str) -> None:
    assert f"{name} is abstract" in of_the_toy(section, name, {})[f"{section}.type"]


def test_what_a_function_returned_must_be_of_the_kind() -> None:
    with pytest.raises(ConfigError, match=r"arch.type: expected what builds a Module, got a str"):
        check_built("text", "arch", "arch")


def test_unknown_name_is_told_with_near_ones_and_else_with_the_list() -> None:
    with pytest.raises(ConfigError, match="here has no 'unbuildabel'; did you mean 'Unbuildable'"):
        resolve_name("unbuildabel", HERE)
    with pytest.raises(ConfigError, match=r"has no 'zzz'\. It has: Module, Open, Tensor, "):
        resolve_name("zzz", HERE)


@pytest.mark.parametrize(("section", "name"), [
    ("loss", "Tensr"), ("arch", "Tensor_"), ("metrics", "Txt"), ("optimizer", "Opn")])
def test_what_the_section_cannot_build_is_not_suggested(section: str, name: str) -> None:
    text = problem({"type": name}, section)
    assert "did you mean" not in text and "Tensor," not in text and "Text" not in text


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize(("section", "name"), [
    ("arch", "ToyModel"), ("data_loader", "ToyDataLoader"), ("optimizer", "Adam"),
    ("lr_scheduler", "StepLR"), ("loss", "nll_loss"), ("metrics", "accuracy")])
def test_misspelt_name_is_told_with_the_right_one(section: str, name: str, wrong: int) -> None:
    text = of_the_toy(section, misspelt(name)[wrong], {})[f"{section}.type"]
    assert "; did you mean" in text and repr(name) in text


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("key", ["type", "args"])
def test_misspelt_key_of_a_section_is_told_with_the_right_one(key: str, wrong: int) -> None:
    word = misspelt(key)[wrong]
    section: Config = {"type": "Unbuildable", "args": {"size": 5}}
    section[word] = section.pop(key)
    text = problems(section)[f"arch.{word}"]
    assert text.startswith("unknown key (with ") and f"did you mean {key!r}" in text


@pytest.mark.parametrize("name", [name for name in torch.optim.__all__ if isinstance(
    getattr(torch.optim, name), type) and name != "Optimizer"])
def test_every_optimizer_of_torch_passes_with_its_defaults(name: str) -> None:
    assert of_the_toy("optimizer", name, {"lr": 0.1}) == {}


@pytest.mark.parametrize(("name", "args"), [
    ("StepLR", {"step_size": 1}), ("MultiStepLR", {"milestones": [1]}), ("ConstantLR", {}),
    ("LinearLR", {}), ("ExponentialLR", {"gamma": 0.5}), ("CosineAnnealingLR", {"T_max": 5}),
    ("PolynomialLR", {}), ("CyclicLR", {"base_lr": 0.1, "max_lr": 1}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}), ("ReduceLROnPlateau", {"patience": 3}),
    ("OneCycleLR", {"max_lr": 1, "total_steps": 5})])
def test_every_scheduler_of_torch_passes(name: str, args: Config) -> None:
    section = {"type": name, "args": args, "interval": "step"}
    assert check_part("lr_scheduler", section, "torch.optim.lr_scheduler", "lr_scheduler") == {}


@pytest.mark.parametrize(("section", "name", "args", "text"), [
    ("optimizer", "Adam", {"params": []}, "optimizer.args.params: the code passes it to Adam"),
    ("optimizer", "SGD", {"momentun": 0.9}, "did you mean 'momentum'"),
    ("optimizer", "Adam", {"lr": "0.1 "}, "optimizer.args.lr: expected a number, got"),
    ("lr_scheduler", "StepLR", {"optimizer": 1, "step_size": 1}, "the code passes it to StepLR"),
    ("lr_scheduler", "OneCycleLR", {}, "max_lr: is missing"),
    ("metrics", "F1Score", {}, "metrics.args.task: is missing"),
    ("metrics", "MulticlassF1Score", {"num_clases": 3}, "did you mean 'num_classes'"),
    ("data_loader", "ToyDataLoader", {"batch_size": 1, "pin_memroy": True},
     "did you mean 'pin_memory'")])
def test_wrong_arguments_of_the_packages_are_told(section: str, name: str, args: Config,
                                                  text: str) -> None:
    assert any(text in f"{path}: {told}" for path, told in of_the_toy(section, name, args).items())


@pytest.mark.parametrize(("section", "name", "args"), [
    ("metrics", "F1Score", {"task": "multiclass", "num_classes": 10, "average": "macro"}),
    ("metrics", "MulticlassF1Score", {"num_classes": 10}), ("metrics", "top_k_acc", {"k": 5}),
    ("data_loader", "ToyDataLoader", {"batch_size": 1, "pin_memory": True, "drop_last": True,
                                      "persistent_workers": False})])
def test_arguments_of_the_packages_pass(section: str, name: str, args: Config) -> None:
    assert of_the_toy(section, name, args) == {}


@pytest.mark.parametrize("args", [None, [], 5, "x", True])
def test_args_that_are_no_object_are_told(args: Any) -> None:
    assert problem({"type": "Unbuildable", "args": args}).startswith(
        "arch.args: expected an object of keyword arguments")


@pytest.mark.parametrize("value", ["batch", [], None])
def test_wrong_interval_is_told(value: Any) -> None:
    section = {"type": "ConstantLR", "interval": value}
    assert check_part("lr_scheduler", section, MODULES["lr_scheduler"], "lr_scheduler") == {
        "lr_scheduler.interval": f'expected "epoch" or "step", got {json.dumps(value)}'}


@pytest.mark.parametrize("value", ["", 5, None, []])
def test_wrong_name_of_a_metric_is_told(value: Any) -> None:
    assert problem({"type": "bound", "name": value}, "metrics").startswith(
        "metrics.name: expected a string that is not empty, got ")


def test_callable_without_a_signature_passes() -> None:
    assert check_arguments(type, {"x": 1}, "args", []) == {}


def test_module_that_is_not_installed_has_no_names() -> None:
    assert resolve_name("function", (SimpleNamespace(), "no_such_package", HERE)) is function


@pytest.mark.parametrize("missing", ["no_such_package", "some_package.missing"])
def test_module_that_fails_to_import_another_shows_the_error(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "part.py").write_text(f"import {missing}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=missing):
        resolve_name("A", "some_package.part")


@pytest.mark.parametrize("value", [None, [], {}, 5, "x", True, [None], {"a": None}], ids=str)
@pytest.mark.parametrize("key", ["arch", "data_loader", "optimizer", "loss"])
def test_section_of_another_shape_is_told(config_dict: Config, key: str, value: Any) -> None:
    found = check_parts(config_dict | {key: value}, MODULES)
    assert found and all(path.split(".")[0] == key for path in found)


@pytest.mark.parametrize("key", ["arch", "data_loader", "optimizer", "loss"])
def test_section_that_is_needed_and_missing_is_told(config_dict: Config, key: str) -> None:
    del config_dict[key]
    assert check_parts(config_dict, MODULES) == {key: "this section is missing"}


@pytest.mark.parametrize(("key", "value"), [
    ("lr_scheduler", None), ("metrics", None), ("metrics", []), ("metrics", "accuracy"),
    ("loss", ["nll_loss"]), ("loss", {"type": "nll_loss"})])
def test_sections_may_be_empty_or_short(config_dict: Config, key: str, value: Any) -> None:
    assert check_parts(config_dict | {key: value}, MODULES) == {}


@pytest.mark.parametrize("key", ["lr_scheduler", "metrics"])
def test_sections_may_be_absent(config_dict: Config, key: str) -> None:
    del config_dict[key]
    assert check_parts(config_dict, MODULES) == {}


def test_several_losses_are_refused_with_what_to_do(config_dict: Config) -> None:
    found = check_parts(config_dict | {"loss": ["nll_loss", "nll_loss"]}, MODULES)
    assert "combine several in one function" in found["loss"]


@pytest.mark.parametrize("items", [["accuracy", "accuracy"], ["accuracy", {
    "type": "top_k_acc", "name": "accuracy"}], [{"type": "accuracy", "name": "loss"}]], ids=str)
def test_two_metrics_of_one_name_are_refused(config_dict: Config, items: Any) -> None:
    text, = check_parts(config_dict | {"metrics": items}, MODULES).values()
    assert "is the name of two" in text


def test_sections_are_checked_only_where_there_is_a_module() -> None:
    assert check_parts({"arch": 5, "my_section": 5}, {}) == {}


def built(name: str, args: Config, target: Any) -> None:
    with refusals_told(name, {"type": target.__name__, "args": args}, target):
        target(**args)


@pytest.mark.parametrize(("args", "told"), [
    ({"zzz": 5}, r"^data_loader\.args\.zzz: OpenLoader takes no such argument \(with 5\)$"),
    ({"num_workrs": 5, "num_workers": 0}, r"^data_loader\.args\.num_workrs: .*'num_workers'"),
    ({"batch_size": -1}, r"^data_loader\.args: OpenLoader refuses .*batch_size")])
def test_argument_that_a_base_class_refuses_is_named_with_the_near_one(args: Config,
                                                                       told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        built("data_loader", {"batch_size": 1} | args, OpenLoader)


def test_missing_data_folder_is_one_line(tmp_path: Path) -> None:
    def reader(data_dir: str) -> None:
        (Path(data_dir) / "images").read_text()

    with pytest.raises(RunError) as told:
        built("data_loader", {"data_dir": f"{tmp_path}/none"}, reader)
    assert str(told.value) == (
        f"data_loader.args.data_dir: {tmp_path}/none/images: no such file or folder")


def test_error_of_the_users_code_keeps_its_traceback() -> None:
    def mine() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        built("arch", {}, mine)


def test_own_module_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no module 'model\.losses', which MODULES"):
        resolve_name("nll_loss", ("model.losses", "torch.nn.functional"))


def test_section_without_a_type_is_not_taken_for_several() -> None:
    config = {"optimizer": {"args": {"lr": 0.1}}, "lr_scheduler": {"args": {"gamma": 1}}}
    modules = {name: MODULES[name] for name in config}
    assert check_parts(config, modules) == {
        "optimizer.type": "is missing", "lr_scheduler.type": "is missing"}
