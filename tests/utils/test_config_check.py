"""Names and arguments of sections are checked by signature; nothing is built."""

import functools
import json
from abc import abstractmethod
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from train import MODULES
from utils.config_check import (
    check_arguments,
    check_built,
    check_part,
    check_parts,
    refusal,
    resolve_name,
)
from utils.errors import ConfigError


class Unbuildable(nn.Module):
    def __init__(self, size: int, depth: int = 2) -> None:
        raise AssertionError("built")


class Open(Unbuildable):
    def __init__(self, width: int, **options) -> None:
        raise AssertionError("built")


class Abstract(nn.Module):
    @abstractmethod
    def forward(self):
        raise AssertionError("called")


def function(output, target, weight, scale=1.0):
    raise AssertionError("called")


HERE = SimpleNamespace(
    __name__="here", Unbuildable=Unbuildable, Open=Open, Abstract=Abstract, function=function,
    bound=functools.partial(function, weight=1), model=functools.partial(Unbuildable, 5),
    Text=str, number=5, module=json, Module=nn.Module, _private=Unbuildable, build=lambda **kw: kw)


def problems(section, name="arch"):
    return check_part(name, section, HERE, name)


@pytest.mark.parametrize(("section", "name"), [
    ({"type": "Unbuildable", "args": {"size": 5}}, "arch"),
    ({"type": "Open", "args": {"width": 5, "size": 5, "anything_else": 5}}, "arch"),
    ({"type": "model"}, "arch"), ({"type": "build", "args": {"x": 1}}, "arch"),
    ({"type": "function", "args": {"weight": 1}}, "loss"), ("bound", "loss"),
    ({"type": "bound", "args": {"scale": 2, "weight": 3}}, "metrics")])
def test_what_can_be_built_has_no_problem_and_is_not_built(section, name):
    assert problems(section, name) == []


@pytest.mark.parametrize(("section", "name", "texts"), [
    ({"type": "Unbuildable"}, "arch", ["arch.args.size: is missing; Unbuildable needs it"]),
    ({"type": "Unbuildable", "args": {"size": 1, "dept": 5}}, "arch", [
        "arch.args.dept: Unbuildable takes no such argument (with 5); did you mean 'depth'? It "
        "takes: size, depth"]),
    ({"type": "Open", "args": {"widht": 1}}, "arch", [
        "arch.args.widht: Open takes no such argument (with 1); did you mean 'width'?",
        "arch.args.width: is missing"]),
    ({"type": "Open", "args": {"width": 1, "dpth": 5}}, "arch", ["did you mean 'depth'?"]),
    ({"type": "function", "args": {"output": 1}}, "loss", [
        "loss.args.output: function takes no such argument", "loss.args.weight: is missing"]),
    ({"type": "bound", "args": {"zzz": 1}}, "metrics", ["metrics.args.zzz"]),
    ({"type": "model", "args": {"depht": 1}}, "arch", ["did you mean 'depth'?"]),
])
def test_arguments_that_do_not_bind_are_told(section, name, texts):
    """D38"""
    found = problems(section, name)
    assert len(found) == len(texts)
    for text, problem in zip(texts, found, strict=True):
        assert text in problem


@pytest.mark.parametrize("name", [
    "_private", "__name__", "__class__", "__init__", "__builtins__", "json.loads",
    "here.Unbuildable",
    "os.system", "a b", "", "1a", "eval(1)", "../x", "Unbuildable\n", None, 5, [], {}, True])
def test_name_that_is_no_plain_public_name_is_refused(name):
    with pytest.raises(ConfigError, match="expected the plain name of a class or function, got "):
        resolve_name(name, HERE)


@pytest.mark.parametrize(("name", "kind"), [("module", "module"), ("number", "int")])
def test_what_cannot_be_called_is_refused(name, kind):
    with pytest.raises(ConfigError, match=f"{name!r} in here is a {kind}"):
        resolve_name(name, HERE)


@pytest.mark.parametrize("name", ["os", "system", "eval", "exec", "open", "print", "Popen", "sys",
                                  "subprocess", "importlib", "breakpoint", "F", "nn", "json"])
@pytest.mark.parametrize("section", MODULES)
def test_names_of_other_modules_are_refused(section, name):
    found = check_part(section, {"type": name, "args": {}}, MODULES[section], section)
    assert found and found[0].startswith(f"{section}.type: ")


@pytest.mark.parametrize(("section", "name"), [
    ("arch", "Text"), ("arch", "Module"), ("arch", "Abstract"), ("data_loader", "Unbuildable"),
    ("optimizer", "Unbuildable"), ("lr_scheduler", "Text"), ("loss", "Text"), ("metrics", "Text")])
def test_class_of_another_kind_is_refused(section, name):
    """D52"""
    found, = problems({"type": name, "args": {}}, section)
    assert found.startswith(f"{section}.type: ")


@pytest.mark.parametrize(("section", "name"), [
    ("arch", "BaseModel"), ("optimizer", "Optimizer"), ("lr_scheduler", "LRScheduler")])
def test_abstract_class_is_refused(section, name):
    """D52"""
    found, = check_part(section, {"type": name}, MODULES[section], section)
    assert f"{name} is abstract" in found


def test_what_a_function_returned_must_be_of_the_kind():
    with pytest.raises(ConfigError, match=r"arch.type: expected what builds a Module, got a str"):
        check_built("text", "arch")


def test_unknown_name_is_told_with_near_ones_and_else_with_the_list():
    with pytest.raises(ConfigError, match="here has no 'unbuildabel'; did you mean 'Unbuildable'"):
        resolve_name("unbuildabel", HERE)
    with pytest.raises(ConfigError, match=r"has no 'zzz'\. It has: Abstract, Module, Open, "):
        resolve_name("zzz", HERE)


@pytest.mark.parametrize("name", [name for name in torch.optim.__all__ if isinstance(
    getattr(torch.optim, name), type) and name != "Optimizer"])
def test_every_optimizer_of_torch_passes_with_its_defaults(name):
    assert check_part("optimizer", {"type": name, "args": {"lr": 0.1}}, "torch.optim",
                      "optimizer") == []


@pytest.mark.parametrize(("name", "args"), [
    ("StepLR", {"step_size": 1}), ("MultiStepLR", {"milestones": [1]}), ("ConstantLR", {}),
    ("LinearLR", {}), ("ExponentialLR", {"gamma": 0.5}), ("CosineAnnealingLR", {"T_max": 5}),
    ("PolynomialLR", {}), ("CyclicLR", {"base_lr": 0.1, "max_lr": 1}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}), ("ReduceLROnPlateau", {"patience": 3}),
    ("OneCycleLR", {"max_lr": 1, "total_steps": 5})])
def test_every_scheduler_of_torch_passes(name, args):
    """D40"""
    section = {"type": name, "args": args, "interval": "step"}
    assert check_part("lr_scheduler", section, "torch.optim.lr_scheduler", "lr_scheduler") == []


@pytest.mark.parametrize(("section", "name", "args", "text"), [
    ("optimizer", "Adam", {"params": []}, "optimizer.args.params: Adam takes no such argument"),
    ("optimizer", "SGD", {"momentun": 0.9}, "did you mean 'momentum'"),
    ("lr_scheduler", "StepLR", {"optimizer": 1, "step_size": 1}, "StepLR takes no such argument"),
    ("lr_scheduler", "OneCycleLR", {}, "max_lr: is missing"),
    ("metrics", "F1Score", {}, "metrics.args.task: is missing"),
    ("metrics", "MulticlassF1Score", {"num_clases": 3}, "did you mean 'num_classes'"),
    ("data_loader", "MnistDataLoader", {"data_dir": "", "batch_size": 1, "pin_memroy": True},
     "did you mean 'pin_memory'")])
def test_wrong_arguments_of_the_packages_are_told(section, name, args, text):
    """D38"""
    found = check_part(section, {"type": name, "args": args}, MODULES[section], section)
    assert any(text in problem for problem in found)


@pytest.mark.parametrize(("section", "name", "args"), [
    ("metrics", "F1Score", {"task": "multiclass", "num_classes": 10, "average": "macro"}),
    ("metrics", "MulticlassF1Score", {"num_classes": 10}),
    ("metrics", "top_k_acc", {"k": 5}),
    ("data_loader", "MnistDataLoader", {"data_dir": "", "batch_size": 1, "pin_memory": True,
                                        "drop_last": True, "persistent_workers": False})])
def test_arguments_of_the_packages_pass(section, name, args):
    """D10, D41, D53"""
    assert check_part(section, {"type": name, "args": args}, MODULES[section], section) == []


@pytest.mark.parametrize("args", [None, [], 5, "x", True])
def test_args_that_are_no_object_are_told(args):
    assert "arch.args: expected an object of keyword arguments" in problems(
        {"type": "Unbuildable", "args": args})[0]


@pytest.mark.parametrize(("key", "value"), [("interval", "batch"), ("interval", []),
                                            ("interval", None)])
def test_wrong_interval_is_told(key, value):
    section = {"type": "ConstantLR", key: value}
    found, = check_part("lr_scheduler", section, MODULES["lr_scheduler"], "lr_scheduler")
    assert found == (f'lr_scheduler.interval: expected "epoch" or "step", got {json.dumps(value)}')


@pytest.mark.parametrize("value", ["", 5, None, []])
def test_wrong_name_of_a_metric_is_told(value):
    found, = problems({"type": "bound", "name": value}, "metrics")
    assert found.startswith("metrics.name: expected a string that is not empty, got ")


def test_callable_without_a_signature_passes():
    assert check_arguments(type, {"x": 1}, "args", "arch") == []


def test_module_that_is_not_installed_has_no_names():
    assert resolve_name("function", ("no_such_package.part", HERE)) is function


def test_module_that_fails_to_import_something_else_shows_the_error(tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        resolve_name("A", "broken_part")


def test_module_that_misses_a_neighbour_shows_the_error(tmp_path, monkeypatch):
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "part.py").write_text("import some_package.missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="missing"):
        resolve_name("A", "some_package.part")


def test_sections_are_checked_only_where_there_is_a_module():
    assert check_parts({"arch": 5, "my_section": 5}, {}) == []


def test_refusal_of_the_framework_is_told_and_an_error_of_the_user_is_not():
    with pytest.raises(ValueError, match="learning rate") as of_torch:
        torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=-1.0)
    with pytest.raises(ValueError, match="mine") as of_user:
        raise ValueError("mine")
    assert "learning rate" in refusal(of_torch.value)
    assert refusal(of_user.value) is None
