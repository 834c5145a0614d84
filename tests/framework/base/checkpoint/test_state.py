import enum
import io
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from base import Callback
from base.callback import CallbackList
from base.checkpoint.state import (
    Gradients,
    Parts,
    as_part,
    check_finite,
    check_plain,
    collect,
    make_checkpoint,
    networks_in,
    parts_of,
    restore,
)
from utils.errors import CheckpointError, RunError


class Part:
    def __init__(self, value: Any = 0, loads: list[Any] | None = None) -> None:
        self.value = value
        self.loads = loads if loads is not None else []

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
        self.loads.append(self.value)


def linear(value: float = 1.0) -> nn.Linear:
    module = nn.Linear(2, 1)
    nn.init.constant_(module.weight, value)
    nn.init.zeros_(module.bias)
    return module


def test_whatever_attribute_has_a_state_is_a_part() -> None:
    model = nn.Sequential(linear(), linear())
    owner = SimpleNamespace(
        model=model, head=model[1], second=linear(), ema=[linear(), Part()], own={"a": Part()},
        noise=torch.Generator(), wrapped=nn.DataParallel(linear()), path=Path("x"), numbers=[1, 2],
        kind=Part, loader=DataLoader([1]), left=Part(), again=model, same=[model])
    parts = parts_of(owner, ("left",))
    assert list(parts) == ["model", "second", "ema", "own", "noise", "wrapped"]
    assert parts["wrapped"] is owner.wrapped.module


def test_networks_are_found_in_dicts_and_lists_as_well() -> None:
    one, other = linear(), linear()
    parts = parts_of(SimpleNamespace(model=one, nets={"g": other, "part": Part()}, part=Part()))
    assert networks_in(parts) == {"model": one, "nets.g": other}


def test_what_has_no_state_at_the_moment_is_not_collected() -> None:
    assert collect({"a": Part(1), "b": CallbackList()}) == {"a": {"value": 1}}


def test_parts_are_restored_in_the_order_of_their_states() -> None:
    loads: list[Any] = []
    parts = {name: Part(loads=loads) for name in ("z", "a", "random")}
    restore(parts, {"a": {"value": 2}, "z": {"value": 1}, "random": {"value": 3}})
    assert loads == [2, 1, 3]


def test_missing_and_unknown_parts_are_one_error_with_both_lists_and_change_nothing() -> None:
    parts = {"a": Part(5), "b": Part(), "c": Part()}
    with pytest.raises(CheckpointError, match=r"missing in the checkpoint: b, c; unknown to the "
                                              r"run: x, y\."):
        restore(parts, {"a": {"value": 1}, "x": {}, "y": {}})
    assert parts["a"].value == 5


def test_state_that_does_not_fit_is_one_error_with_the_name_of_its_part() -> None:
    with pytest.raises(CheckpointError, match="the checkpoint's a does not fit this run's Part"):
        restore({"a": Part()}, {"a": {"other": 1}})


@pytest.mark.parametrize("make", [lambda a, b: [a, b], lambda a, b: {"g": a, "d": b},
                                  lambda a, b: (a, b), lambda a, b: {0: a, 1: b}])
def test_several_things_are_one_part(make: Any) -> None:
    first, second = Part(), Part()
    as_part(make(first, second)).load_state_dict(as_part(make(Part(1), Part(2))).state_dict())
    assert (first.value, second.value) == (1, 2)


def test_things_without_state_are_no_part() -> None:
    assert as_part(print) is None and as_part([print]) is None
    assert Parts({"a": Part(1), "b": print}).state_dict() == {"a": {"value": 1}}


def test_generator_of_ones_own_goes_on_where_it_was() -> None:
    before, after = torch.Generator().manual_seed(3), torch.Generator()
    torch.rand(2, generator=before)
    as_part(after).load_state_dict(as_part(before).state_dict())
    assert torch.equal(torch.rand(2, generator=before), torch.rand(2, generator=after))


class Kind(enum.Enum):
    ONE = 1


class Level(enum.IntEnum):
    ONE = 1


class Image(torch.Tensor):
    """A tensor of its own kind, as torchvision has them."""


@pytest.mark.parametrize(("value", "kind"), [
    (np.zeros(2), "numpy.ndarray"), (np.float64(1), "numpy.float64"), (np.int64(1), "numpy.int64"),
    (Path("x"), "pathlib"), (defaultdict(int), "defaultdict"), (deque([1]), "deque"),
    (Kind.ONE, "Kind"), (Level.ONE, "Level"), ({1, 2}, "set"), (print, "builtin_function"),
    (torch.ones(1).as_subclass(Image), "Image"), (nn.LazyLinear(1).weight, "UninitializedParam"),
    (SimpleNamespace(), "SimpleNamespace"), (slice(1), "slice"), (range(3), "range")],
    ids=lambda value: type(value).__name__)
def test_what_could_not_be_read_back_is_refused_by_its_place(value: Any, kind: str) -> None:
    class Remembers(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"seen": [{"last": value}]}

    trainer = {"model": linear(), "callbacks": CallbackList([Remembers()])}
    with pytest.raises(CheckpointError, match=rf"parts\.callbacks\.Remembers\.seen\.0\.last: a .*"
                                              rf"{kind}.* cannot be saved.*Convert it"):
        make_checkpoint(trainer, config={}, epoch=1, monitor_best=0.0)


def test_key_that_could_not_be_read_back_is_refused() -> None:
    check_plain({1: 1, "a": 1, (1, 2): 1, None: 1})
    with pytest.raises(CheckpointError, match=r"a: the key Kind|a: the key <Kind"):
        check_plain({"a": {Kind.ONE: 1}})


def test_type_that_was_declared_safe_to_torch_is_accepted() -> None:
    with torch.serialization.safe_globals([Image]):
        check_plain({"a": torch.ones(1).as_subclass(Image)})


def test_what_is_accepted_is_read_back() -> None:
    content = {"a": [1, 2.5, "x", b"y", None, True, 1j, (torch.ones(2), torch.float16),
                     nn.Parameter(torch.ones(1))],
               "b": OrderedDict(c=Counter([1, 1])), "d": torch.Size([2]), "e": torch.device("cpu")}
    check_plain(content)
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["b"] == content["b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.complex64])
def test_weights_that_are_not_finite_are_refused(value: float, kind: torch.dtype) -> None:
    weights = torch.zeros(3, 2, dtype=kind)
    check_finite("w", weights)
    weights[1, 1] = value
    with pytest.raises(RunError, match=r"weights are not finite any more \(w\): they are not"):
        check_finite("w", weights)


@pytest.mark.parametrize(("change", "is_checked"), [
    (lambda parts: parts["model"].weight, True), (lambda parts: parts["critic"].weight, True),
    (lambda parts: parts["many"].parts["0"].weight, True),
    (lambda parts: parts["frozen"].weight, False), (lambda parts: parts["model"].mask, False)])
def test_every_trained_parameter_is_to_be_finite_and_nothing_else(change: Any,
                                                                  is_checked: bool) -> None:
    frozen, model = linear().requires_grad_(False), linear()
    model.register_buffer("mask", torch.zeros(2))  # may well hold infinities
    parts = parts_of(SimpleNamespace(model=model, critic=linear(), many=[linear()], frozen=frozen,
                                     part=Part()))
    content, finite = make_checkpoint(parts, config={}, epoch=1, monitor_best=0.0)
    with torch.no_grad():
        change(parts)[0] = float("nan")
    values = []
    for path in finite:
        value: Any = content
        for key in path:
            value = value[key]
        values.append(value)
    assert any(value.isnan().any() for value in values) is is_checked


def test_parameter_that_is_saved_under_another_name_is_checked_at_once() -> None:
    class Renames(nn.Linear):
        def state_dict(self, *args: Any, **options: Any) -> Any:
            return {f"x.{key}": value for key, value in super().state_dict().items()}

    model = Renames(1, 1)
    make_checkpoint({"model": model}, config={}, epoch=1, monitor_best=0.0)
    nn.init.constant_(model.weight, float("inf"))
    with pytest.raises(RunError, match="not finite"):
        make_checkpoint({"model": model}, config={}, epoch=1, monitor_best=0.0)


def test_checkpoint_has_the_classic_keys_and_a_plain_config() -> None:
    optimizer = torch.optim.SGD(linear().parameters(), lr=0.1)
    content, _ = make_checkpoint(
        {"model": linear(), "optimizer": optimizer, "own": Part(1), "random": Part(2)},
        config={"path": Path("x"), "pair": (1, 2)}, epoch=3, monitor_best=np.float64(0.5))
    assert content["config"] == {"path": "x", "pair": [1, 2]}
    assert (content["arch"], content["epoch"], content["monitor_best"]) == ("Linear", 3, 0.5)
    assert type(content["monitor_best"]) is float and content["optimizer"]["param_groups"]
    assert content["parts"] == {"own": {"value": 1}}
    assert content["rank_parts"] == [{"random": {"value": 2}}]


def test_gradients_that_wait_are_restored() -> None:
    before, after = linear(), linear()
    before(torch.ones(1, 2)).sum().backward()
    state = Gradients({"model": before}, is_waiting=True).state_dict()
    assert Gradients({"model": before}, is_waiting=False).state_dict() == {}
    Gradients({"model": after}, is_waiting=False).load_state_dict(state)
    assert torch.equal(after.weight.grad, before.weight.grad)
