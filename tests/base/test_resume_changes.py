import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer, lr_scheduler

from base.resume import changed_args, changed_type, resume_optimizer, resume_parts
from base.stateful import as_part, collect
from utils.errors import CheckpointError

OPTIMIZER = {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}}
STEP = {"type": "StepLR", "args": {"step_size": 2, "gamma": 0.5}}


def section(base: dict[str, Any], **args: Any) -> dict[str, Any]:
    return {**base, "args": {**base["args"], **args}}


class Run:
    """An optimizer and a scheduler as a config describes them; steps are counted from 0."""

    def __init__(self, config: dict[str, Any], *, split: bool = False) -> None:
        torch.manual_seed(0)
        self.config = copy.deepcopy(config)
        model = nn.Linear(2, 2)
        groups: Any = [{"params": [model.weight]},
                       {"params": [model.bias], "lr": 0.003, "weight_decay": 0.0}]
        optimizer = config["optimizer"]
        self.optimizer: Optimizer = getattr(torch.optim, optimizer["type"])(
            groups if split else model.parameters(), **optimizer["args"])
        schedule = config.get("lr_scheduler")
        self.scheduler = schedule and getattr(lr_scheduler, schedule["type"])(
            self.optimizer, **schedule["args"])

    @property
    def lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def parts(self) -> dict[str, Any]:
        return {"optimizer": as_part(self.optimizer), "lr_scheduler": as_part(self.scheduler)}

    def step(self, count: int = 1) -> "Run":
        for _ in range(count):
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            self.optimizer.step()
            if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
                self.scheduler.step(1.0)
            elif self.scheduler:
                self.scheduler.step()
        return self

    def checkpoint(self) -> dict[str, Any]:
        parts = collect(self.parts())
        return copy.deepcopy({"optimizer": parts.pop("optimizer"), "parts": parts,
                              "config": self.config})

    def resume(self, checkpoint: dict[str, Any]) -> "Run":
        resume_optimizer(self.optimizer, checkpoint, self.config)
        resume_parts(self.parts(), checkpoint, self.config, self.optimizer)
        return self


def lrs(run: Run, count: int) -> list[float]:
    return [run.step().lr for _ in range(count)]


def of(optimizer: dict[str, Any] = OPTIMIZER,
       schedule: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"optimizer": optimizer, **({"lr_scheduler": schedule} if schedule else {})}


@pytest.mark.parametrize("schedule", [
    None, STEP, {"type": "ExponentialLR", "args": {"gamma": 0.9}},
    {"type": "CosineAnnealingLR", "args": {"T_max": 10}},
    {"type": "OneCycleLR", "args": {"max_lr": 0.5, "total_steps": 20}},
    {"type": "ReduceLROnPlateau", "args": {"patience": 1, "factor": 0.5}},
    {"type": "MultiStepLR", "args": {"milestones": [2, 5]}},
    {"type": "CyclicLR", "args": {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 3}}],
    ids=lambda schedule: schedule and schedule["type"])
def test_without_changes_the_schedule_goes_on(
        schedule: dict[str, Any] | None, caplog: pytest.LogCaptureFixture) -> None:
    """D22"""
    whole = lrs(Run(of(schedule=schedule)), 10)
    stopped = Run(of(schedule=schedule)).step(4)

    resumed = lrs(Run(of(schedule=schedule)).resume(stopped.checkpoint()), 6)

    assert resumed == whole[4:] and not caplog.messages


def test_state_of_the_optimizer_is_restored() -> None:
    stopped = Run(of()).step(3)

    resumed = Run(of()).resume(stopped.checkpoint())

    assert torch.equal(resumed.optimizer.state_dict()["state"][0]["momentum_buffer"],
                       stopped.optimizer.state_dict()["state"][0]["momentum_buffer"])


def test_changed_lr_takes_effect() -> None:
    """D25"""
    stopped = Run(of()).step(3)

    assert Run(of(section(OPTIMIZER, lr=0.02))).resume(stopped.checkpoint()).lr == 0.02


@pytest.mark.parametrize("schedule", [
    STEP, {"type": "ExponentialLR", "args": {"gamma": 0.9}},
    {"type": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 8}},
    {"type": "CosineAnnealingLR", "args": {"T_max": 10}},
    {"type": "ReduceLROnPlateau", "args": {"patience": 1, "factor": 0.5}},
    {"type": "PolynomialLR", "args": {"total_iters": 20}}],
    ids=lambda schedule: schedule["type"])
def test_changed_lr_keeps_the_schedules_place(schedule: dict[str, Any]) -> None:
    """D25"""
    changed = of(section(OPTIMIZER, lr=0.4), schedule)
    whole = lrs(Run(changed), 10)
    stopped = Run(of(schedule=schedule)).step(4)

    resumed = Run(changed).resume(stopped.checkpoint())

    assert resumed.lr == pytest.approx(whole[3])  # rounding of products in another order
    assert lrs(resumed, 6) == pytest.approx(whole[4:])


@pytest.mark.parametrize(("key", "value"), [("momentum", 0.5), ("weight_decay", 0.1),
                                            ("nesterov", True)])
def test_changed_argument_takes_effect(
        key: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """D25"""
    stopped = Run(of()).step(3)

    resumed = Run(of(section(OPTIMIZER, **{key: value}))).resume(stopped.checkpoint())

    assert resumed.optimizer.param_groups[0][key] == value and not caplog.messages


def test_changed_pair_of_numbers_takes_effect() -> None:
    """D25"""
    adam = {"type": "Adam", "args": {"lr": 0.1, "betas": [0.9, 0.99]}}
    stopped = Run(of(adam)).step(2)

    resumed = Run(of(section(adam, betas=[0.8, 0.9]))).resume(stopped.checkpoint())

    assert list(resumed.step().optimizer.param_groups[0]["betas"]) == [0.8, 0.9]


def test_removed_argument_takes_its_default() -> None:
    """D25"""
    stopped = Run(of()).step(2)

    resumed = Run(of({"type": "SGD", "args": {"lr": 0.1}})).resume(stopped.checkpoint())

    assert resumed.optimizer.param_groups[0]["momentum"] == 0


def test_groups_with_values_of_their_own_keep_them() -> None:
    """D25"""
    stopped = Run(of(), split=True).step(2)
    config = of(section(OPTIMIZER, lr=0.4, weight_decay=0.1))

    groups = Run(config, split=True).resume(stopped.checkpoint()).optimizer.param_groups

    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.4, 0.1), (0.003, 0.0)]


def test_lr_of_zero_can_be_raised() -> None:
    stopped = Run(of(section(OPTIMIZER, lr=0.0))).step(2)

    assert Run(of()).resume(stopped.checkpoint()).lr == 0.1


def test_lr_that_a_schedule_overrules_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """D25"""
    cycle = {"type": "OneCycleLR", "args": {"max_lr": 0.5, "total_steps": 20}}
    stopped = Run(of(schedule=cycle)).step(3)

    Run(of(section(OPTIMIZER, lr=0.7), cycle)).resume(stopped.checkpoint())

    assert any("optimizer.args.lr=0.7 has no effect" in text for text in caplog.messages)


@pytest.mark.parametrize(("args", "expected"), [
    ({"gamma": 0.1}, [0.05, 0.005, 0.005, 0.0005]),
    ({"step_size": 3}, [0.025, 0.025, 0.025, 0.0125])], ids=str)
def test_changed_step_schedule_takes_effect(
        args: dict[str, Any], expected: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """D25"""
    stopped = Run(of(schedule=STEP)).step(2)

    resumed = Run(of(schedule=section(STEP, **args))).resume(stopped.checkpoint())

    assert lrs(resumed, 4) == pytest.approx(expected) and not caplog.messages


@pytest.mark.parametrize("args", [
    {"max_lr": 0.9}, {"total_steps": 40}, {"pct_start": 0.5}, {"div_factor": 10.0},
    {"max_lr": 0.9, "total_steps": 30, "anneal_strategy": "cos"}], ids=str)
def test_changed_cycle_goes_on_as_if_it_had_always_been_so(
        args: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """D25"""
    cycle = {"type": "OneCycleLR", "args": {"max_lr": 0.5, "total_steps": 20,
                                            "anneal_strategy": "cos"}}
    changed = of(schedule=section(cycle, **args))
    whole = lrs(Run(changed), 12)
    stopped = Run(of(schedule=cycle)).step(4)

    resumed = lrs(Run(changed).resume(stopped.checkpoint()), 8)

    assert resumed == pytest.approx(whole[4:]) and not caplog.messages


def test_changed_plateau_takes_effect() -> None:
    """D25"""
    plateau = {"type": "ReduceLROnPlateau", "args": {"patience": 1, "factor": 0.5}}
    stopped = Run(of(schedule=plateau)).step(2)

    resumed = Run(of(schedule=section(plateau, patience=4))).resume(stopped.checkpoint())

    assert lrs(resumed, 5) == [0.1, 0.1, 0.1, 0.05, 0.05]


def test_argument_that_cannot_take_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """D25"""
    cycle = {"type": "CyclicLR", "args": {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 3}}
    stopped = Run(of(schedule=cycle)).step(2)

    Run(of(schedule=section(cycle, step_size_up=5))).resume(stopped.checkpoint())

    assert caplog.messages == ["lr_scheduler.args.step_size_up=5 has no effect on this resumed "
                               "run: the schedule is under way"]


def test_another_optimizer_starts_anew(caplog: pytest.LogCaptureFixture) -> None:
    stopped = Run(of()).step(3)

    resumed = Run(of({"type": "Adam", "args": {"lr": 0.3}})).resume(stopped.checkpoint())

    assert resumed.lr == 0.3 and not resumed.optimizer.state
    assert caplog.messages == [
        "the optimizer is another one than in the checkpoint: it starts anew"]


@pytest.mark.parametrize("schedule", [
    {"type": "ExponentialLR", "args": {"gamma": 0.9}},
    {"type": "OneCycleLR", "args": {"max_lr": 0.5, "total_steps": 20, "cycle_momentum": False}},
    None], ids=lambda schedule: schedule and schedule["type"])
def test_another_schedule_starts_anew(
        schedule: dict[str, Any] | None, caplog: pytest.LogCaptureFixture) -> None:
    stopped = Run(of(schedule=STEP)).step(5)
    whole = lrs(Run(of(schedule=schedule)), 5)

    resumed = Run(of(schedule=schedule)).resume(stopped.checkpoint())

    assert lrs(resumed, 5) == whole
    assert "lr_scheduler is another one than in the checkpoint: it starts anew" in caplog.messages


def test_state_of_other_parameters_is_refused() -> None:
    checkpoint = Run(of()).checkpoint()
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)

    with pytest.raises(CheckpointError, match=r"does not fit this run's parameters.*freeze"):
        resume_optimizer(optimizer, checkpoint, of())


@pytest.mark.parametrize("state", [[1], "x", {}, {"state": 3}])
def test_state_that_is_none_of_an_optimizer_is_refused(state: Any) -> None:
    run = Run(of())

    with pytest.raises(CheckpointError, match="does not fit"):
        resume_optimizer(run.optimizer, run.checkpoint() | {"optimizer": state}, of())


def test_checkpoint_without_optimizer_leaves_it() -> None:
    run = Run(of())

    resume_optimizer(run.optimizer, {"config": of(section(OPTIMIZER, lr=3.0))}, of())

    assert run.lr == 0.1


def test_checkpoint_without_config_changes_nothing() -> None:
    """Classic ones hold an object there."""
    checkpoint = Run(of()).step(1).checkpoint() | {"config": None}

    assert Run(of(section(OPTIMIZER, lr=3.0))).resume(checkpoint).lr == 0.1


class Pair:
    """Two optimizers with a schedule each."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.model = nn.ModuleDict({"g": nn.Linear(1, 1), "d": nn.Linear(1, 1)})
        self.optimizer = {
            key: SGD(part.parameters(), **(config["optimizer"].get(key) or config["optimizer"])[
                "args"]) for key, part in self.model.items()}
        self.scheduler = {key: lr_scheduler.StepLR(one, **config["lr_scheduler"]["args"])
                          for key, one in self.optimizer.items()}

    def step(self) -> "Pair":
        for key in self.optimizer:
            self.optimizer[key].step()
            self.scheduler[key].step()
        return self

    def resume(self, checkpoint: dict[str, Any]) -> list[float]:
        resume_optimizer(self.optimizer, checkpoint, self.config)
        resume_parts({"lr_scheduler": as_part(self.scheduler)}, checkpoint, self.config,
                     self.optimizer)
        return self.lrs()

    def lrs(self) -> list[float]:
        return [one.param_groups[0]["lr"] for one in self.optimizer.values()]

    def checkpoint(self) -> dict[str, Any]:
        return copy.deepcopy({
            "optimizer": as_part(self.optimizer).state_dict(), "config": self.config,
            "parts": {"lr_scheduler": as_part(self.scheduler).state_dict()}})


def pair(lr: float, **args: Any) -> dict[str, Any]:
    return {"optimizer": {"g": section(OPTIMIZER, lr=lr), "d": OPTIMIZER},
            "lr_scheduler": section(STEP, **args)}


def test_two_optimizers_are_restored() -> None:
    checkpoint = Pair(pair(0.2)).step().step().checkpoint()

    assert Pair(pair(0.2)).resume(checkpoint) == [0.1, 0.05]


def test_changed_lr_of_one_of_two_takes_effect() -> None:
    """D25"""
    checkpoint = Pair(pair(0.2)).step().step().checkpoint()
    resumed = Pair(pair(0.8))

    assert resumed.resume(checkpoint) == [0.4, 0.05]
    assert resumed.scheduler["g"].base_lrs == [0.8] and resumed.scheduler["d"].base_lrs == [0.1]


def test_changed_section_of_both_takes_effect_on_both() -> None:
    """D25"""
    shared = {"optimizer": OPTIMIZER, "lr_scheduler": STEP}
    checkpoint = Pair(shared).step().checkpoint()
    changed = {"optimizer": section(OPTIMIZER, lr=0.3), "lr_scheduler": section(STEP, gamma=0.1)}
    resumed = Pair(changed)

    assert resumed.resume(checkpoint) == [0.3, 0.3]
    assert resumed.step().lrs() == pytest.approx([0.03, 0.03])


def test_type_of_one_of_two_changed_starts_both_anew(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Pair(pair(0.2)).step().step().checkpoint()
    config = pair(0.2)
    config["optimizer"]["d"] = {"type": "Adam", "args": {"lr": 0.3}}
    optimizers = {"g": SGD([nn.Parameter(torch.zeros(1))], lr=0.2),
                  "d": Adam([nn.Parameter(torch.zeros(1))], lr=0.3)}

    resume_optimizer(optimizers, checkpoint, config)

    assert optimizers["g"].param_groups[0]["lr"] == 0.2 and len(caplog.messages) == 1


@pytest.mark.parametrize(("old", "new", "expected"), [
    ({"a": 1}, {"a": 1}, {}), ({"a": 1}, {"a": 2}, {"a": 2}), ({}, {"a": 1}, {"a": 1}),
    ({"a": 1}, {}, {"a": None}), ({"a": [1, 2]}, {"a": [1, 2]}, {})])
def test_arguments_that_differ(old: Any, new: Any, expected: Any) -> None:
    configs = [{"optimizer": {"type": "X", "args": args}} for args in (old, new)]

    assert changed_args(*configs, "optimizer") == expected


@pytest.mark.parametrize(("old", "new", "expected"), [
    ({"type": "A"}, {"type": "A"}, False), ({"type": "A"}, {"type": "B"}, True),
    ({"type": "A"}, None, True), (None, None, False), (None, {"type": "A"}, True),
    ("text", [1], False)])
def test_type_that_differs(old: Any, new: Any, expected: bool) -> None:
    assert changed_type({"optimizer": old}, {"optimizer": new}, "optimizer") is expected
