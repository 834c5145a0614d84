"""What a resumed run takes from its checkpoint, and how what the config changed takes effect."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from base.checkpoint.resume import Resumed
from base.checkpoint.state import as_part, make_checkpoint
from base.counters import Counters
from base.monitor import Monitor
from base.optimizers import each
from base.schedulers import Schedulers, section_of
from logger.history import History
from tests.framework.tiny_run import same
from utils.errors import CheckpointError
from utils.rng import RandomState

SGD_ARGS = {"lr": 0.1, "momentum": 0.9}
VALUES = [1.0, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]  # the loss of each epoch


def warmup(optimizer: Any, gamma: float = 0.9) -> Any:
    return lr_scheduler.SequentialLR(optimizer, [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
        lr_scheduler.ExponentialLR(optimizer, gamma)], milestones=[3])


def chained(optimizer: Any, gamma: float = 0.9) -> Any:
    return lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(optimizer, 2, gamma),
                                          lr_scheduler.ExponentialLR(optimizer, 0.95)])


def decaying(optimizer: Any) -> Any:
    return lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9 ** epoch)


OWN = {"warmup": warmup, "chained": chained, "decaying": decaying}
ARGS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2, "gamma": 0.5}, "MultiStepLR": {"milestones": [2, 5]},
    "ExponentialLR": {"gamma": 0.9}, "LinearLR": {"start_factor": 0.1, "total_iters": 8},
    "CosineAnnealingLR": {"T_max": 10}, "CosineAnnealingWarmRestarts": {"T_0": 3},
    "PolynomialLR": {"total_iters": 20}, "OneCycleLR": {"max_lr": 0.5, "total_steps": 20},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 3},
    "ReduceLROnPlateau": {"patience": 1, "factor": 0.5}, "warmup": {}, "chained": {},
    "decaying": {}}


def section(kind: str, **args: Any) -> dict[str, Any]:
    return {"type": kind, "args": {**ARGS[kind], **args}}


def of(schedule: dict[str, Any] | None = None, kind: str = "SGD", **args: Any) -> dict[str, Any]:
    """A config's sections of optimizer and schedule."""
    optimizer = {"type": kind, "args": {**(SGD_ARGS if kind == "SGD" else {"lr": 0.1}), **args}}
    return {"optimizer": optimizer, **({"lr_scheduler": schedule} if schedule else {})}


class Run:
    """One step an epoch, without any data; names make it one of several optimizers."""

    def __init__(self, config: dict[str, Any], *names: str, split: bool = False) -> None:
        self.config = copy.deepcopy(config)
        torch.manual_seed(0)
        self.model = nn.ModuleDict({name: nn.Linear(2, 2) for name in names or ("x",)})
        optimizers, schedules = {}, {}
        for name, part in self.model.items():
            of_part = config["optimizer"].get(name, config["optimizer"])
            groups: Any = part.parameters()
            if split:
                groups = [{"params": [part.weight]},
                          {"params": [part.bias], "lr": 0.003, "weight_decay": 0.0}]
            optimizers[name] = getattr(torch.optim, of_part["type"])(groups, **of_part["args"])
            if schedule := section_of(config, "lr_scheduler", name):
                make = OWN.get(schedule["type"]) or getattr(lr_scheduler, schedule["type"])
                schedules[name] = make(optimizers[name], **schedule["args"])
        self.optimizer: Any = optimizers if names else optimizers["x"]
        self.scheduler: Any = schedules if names else schedules.get("x")
        self.schedulers = Schedulers(self.scheduler, config)
        self.counters, self.history = Counters(), History(Path)
        self.monitor = Monitor("min loss")

    @property
    def groups(self) -> list[Any]:
        return [group for _, one in each(self.optimizer) for group in one.param_groups]

    def run(self, epochs: int) -> "Run":
        for _ in range(epochs):
            epoch = self.counters.epoch + 1
            for parameter in self.model.parameters():
                parameter.grad = torch.ones_like(parameter)
            for _, one in each(self.optimizer):
                one.step()
            self.counters.step += 1
            self.schedulers.after_step({name for name, _ in each(self.optimizer)})
            log = {"epoch": epoch, "loss": VALUES[epoch - 1]}
            self.history.append(log, step=0, seconds=0.0)
            self.schedulers.after_epoch()
            self.schedulers.after_validation(log, "loss")
            self.monitor.update(log)
            self.counters.finish_epoch(epoch)
        return self

    def parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": as_part(self.optimizer),
                 "lr_scheduler": as_part(self.scheduler), "counters": self.counters,
                 "history": self.history, "best_monitor": self.monitor, "random": RandomState()}
        return {name: part for name, part in parts.items() if part is not None}

    def checkpoint(self) -> dict[str, Any]:
        return copy.deepcopy(make_checkpoint(
            self.parts(), config=self.config, epoch=self.counters.epoch,
            monitor_best=self.monitor.best)[0])

    def resume(self, checkpoint: dict[str, Any], monitored: str = "loss") -> "Run":
        resumed = Resumed(checkpoint, "file.pth", SimpleNamespace(config=self.config, modules={}))
        resumed.give(self.parts())
        resumed.finish(self.parts(), monitored)
        return self

    def course(self, epochs: int) -> list[Any]:
        """What the schedule sets, from now on."""
        return [[{key: group[key] for key in ("lr", "momentum", "betas") if key in group}
                 for group in self.run(number > 0).groups] for number in range(epochs)]


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")


def assert_goes_on_as_if_always_so(before: dict[str, Any], after: dict[str, Any], *names: str,
                                   split: bool = False) -> None:
    """Three epochs with one config, the rest with the other: the rest is as in a run of that."""
    whole = Run(after, *names, split=split).run(3)
    resumed = Run(after, *names, split=split).resume(
        Run(before, *names, split=split).run(3).checkpoint())
    assert resumed.groups[0].keys() == whole.groups[0].keys()
    for one, other in zip(resumed.course(8), whole.course(8), strict=True):
        # products in another order differ in their last digits
        assert [pytest.approx(group) for group in one] == other


@pytest.mark.parametrize("kind", [None, *ARGS])
def test_without_changes_everything_goes_on(kind: str | None,
                                            caplog: pytest.LogCaptureFixture) -> None:
    config = of(kind and section(kind))
    whole, stopped = Run(config).run(4), Run(config).run(4)
    resumed = Run(config).resume(stopped.checkpoint())
    assert same(resumed.checkpoint(), whole.checkpoint())
    assert resumed.course(8) == whole.course(8) and not caplog.messages
    assert same(resumed.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("kind", [None, *ARGS])
def test_changed_lr_takes_effect_under_every_schedule(kind: str | None) -> None:
    schedule = kind and section(kind)
    assert_goes_on_as_if_always_so(of(schedule), of(schedule, lr=0.4))


def test_changed_lr_takes_effect_under_a_schedule_that_the_config_does_not_name() -> None:
    stopped, resumed = (Run(of(section("decaying"), lr=lr)) for lr in (0.1, 0.4))
    for run in (stopped, resumed):
        del run.config["lr_scheduler"]
    resumed.resume(stopped.run(4).checkpoint()).run(2)
    assert resumed.groups[0]["lr"] == pytest.approx(0.4 * 0.9 ** 6)


@pytest.mark.parametrize(("kind", "args"), [
    ("StepLR", {"gamma": 0.1}), ("StepLR", {"step_size": 3}), ("MultiStepLR", {"milestones": [3]}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}), ("CosineAnnealingWarmRestarts", {"T_mult": 2}),
    ("CyclicLR", {"mode": "triangular2"}), ("CyclicLR", {"step_size_up": 5}),
    ("CyclicLR", {"cycle_momentum": False}), ("OneCycleLR", {"max_lr": 0.9}),
    ("OneCycleLR", {"total_steps": 40, "pct_start": 0.5}), ("OneCycleLR", {"div_factor": 10.0}),
    ("OneCycleLR", {"cycle_momentum": False}), ("ReduceLROnPlateau", {"patience": 2}),
    ("ReduceLROnPlateau", {"factor": 0.1}), ("warmup", {"gamma": 0.5}),
    ("chained", {"gamma": 0.5})], ids=str)
def test_changed_schedule_takes_effect(kind: str, args: dict[str, Any]) -> None:
    assert_goes_on_as_if_always_so(of(section(kind)), of(section(kind, **args)))


@pytest.mark.parametrize("before", [None, "StepLR", "OneCycleLR", "ReduceLROnPlateau", "warmup"])
@pytest.mark.parametrize("after", [None, "CosineAnnealingLR", "OneCycleLR", "ReduceLROnPlateau",
                                   "chained"])
def test_schedule_that_was_added_removed_or_replaced_takes_effect(before: str | None,
                                                                  after: str | None) -> None:
    """Nothing stays of the one before, be it an lr or a momentum."""
    assert_goes_on_as_if_always_so(of(before and section(before)), of(after and section(after)))


def test_changed_interval_takes_effect() -> None:
    """The count of a schedule that stepped each epoch says nothing of steps."""
    by_epoch, by_step = (of({**section("StepLR"), "interval": interval})
                         for interval in ("epoch", "step"))
    stopped = Run(by_epoch).run(2)
    stopped.counters.step = 5
    assert Run(by_step).resume(stopped.checkpoint()).groups[0]["lr"] == 0.1 * 0.5 ** 2
    stopped = Run(by_step).run(5)
    stopped.counters.epoch = 2
    assert Run(by_epoch).resume(stopped.checkpoint()).groups[0]["lr"] == 0.1 * 0.5


def test_schedule_whose_own_count_differs_keeps_it() -> None:
    """As that of one of two optimizers, which does not step each time."""
    config = of({**section("StepLR"), "interval": "step"})
    stopped = Run(config).run(2)
    stopped.counters.step = 9
    changed = of({**section("StepLR", gamma=0.1), "interval": "step"})
    assert Run(changed).resume(stopped.checkpoint()).groups[0]["lr"] == pytest.approx(0.01)


def test_plateau_replays_the_values_of_the_history() -> None:
    config = of(section("ReduceLROnPlateau", patience=0))
    resumed = Run(config).resume(Run(of(section("StepLR"))).run(9).checkpoint())
    assert resumed.scheduler.best == 0.4 and resumed.scheduler.last_epoch == 9
    # six of the nine values were no better than the best before them
    assert resumed.groups[0]["lr"] == pytest.approx(0.1 * 0.5 ** 6)


def test_plateau_on_a_value_that_earlier_epochs_lack_starts_with_it() -> None:
    run = Run(of(section("ReduceLROnPlateau"))).resume(Run(of()).run(9).checkpoint(), "other")
    assert run.scheduler.last_epoch == 0 and run.groups[0]["lr"] == 0.1


def test_what_the_schedule_is_now_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Run(of(section("StepLR", gamma=0.1))).resume(Run(of(section("StepLR"))).run(2).checkpoint())
    assert caplog.messages == ["the schedule is what the config makes it now, 2 epochs on: lr 0.01"]


@pytest.mark.parametrize(("key", "value"), [("momentum", 0.5), ("weight_decay", 0.1),
                                            ("nesterov", True)])
def test_changed_argument_takes_effect(key: str, value: Any,
                                       caplog: pytest.LogCaptureFixture) -> None:
    resumed = Run(of(**{key: value})).resume(Run(of()).run(3).checkpoint())
    assert resumed.groups[0][key] == value and not caplog.messages
    assert resumed.optimizer.state


def test_changed_pair_of_numbers_takes_effect() -> None:
    stopped = Run(of(kind="Adam", betas=[0.9, 0.99])).run(2)
    resumed = Run(of(kind="Adam", betas=[0.8, 0.9])).resume(stopped.checkpoint())
    assert list(resumed.run(1).groups[0]["betas"]) == [0.8, 0.9]


def test_removed_argument_takes_its_default() -> None:
    after = of()
    del after["optimizer"]["args"]["momentum"]
    assert Run(after).resume(Run(of()).run(2).checkpoint()).groups[0]["momentum"] == 0


def test_groups_with_values_of_their_own_keep_them() -> None:
    stopped = Run(of(), split=True).run(2)
    groups = Run(of(lr=0.4, weight_decay=0.1), split=True).resume(stopped.checkpoint()).groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.4, 0.1), (0.003, 0.0)]
    assert_goes_on_as_if_always_so(of(section("StepLR")), of(section("StepLR"), lr=0.4),
                                   split=True)


def test_argument_that_cannot_take_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    before = of()
    after = of()
    after["optimizer"]["args"]["schedule_free"] = 1
    run = Run(before)
    run.config = after
    run.resume(Run(before).run(2).checkpoint())
    assert caplog.messages == ["optimizer.args.schedule_free has no effect on a resumed run"]


@pytest.mark.parametrize("kind", [None, "StepLR"])
def test_another_optimizer_starts_anew(kind: str | None, caplog: pytest.LogCaptureFixture) -> None:
    schedule = kind and section(kind)
    stopped = Run(of(schedule, kind="Adam")).run(3)
    resumed = Run(of(schedule, kind="AdamW")).resume(stopped.checkpoint())
    assert caplog.messages == [
        "the optimizer is another one than in the checkpoint, or trains other parameters: it "
        "starts anew"]
    assert not resumed.optimizer.state
    assert resumed.groups[0]["lr"] == (0.1 if kind is None else 0.05)


def test_changed_lr_of_one_of_two_optimizers_takes_effect() -> None:
    before, after = ({"optimizer": {"g": of(lr=lr)["optimizer"], "d": of()["optimizer"]},
                      "lr_scheduler": section("StepLR")} for lr in (0.2, 0.8))
    assert_goes_on_as_if_always_so(before, after, "g", "d")


@pytest.mark.parametrize("is_there", [(True, False), (False, True)])
def test_schedule_of_one_of_two_optimizers_added_or_removed_takes_effect(
        is_there: tuple[bool, bool]) -> None:
    before, after = ({**of(), "lr_scheduler": {"g": section("OneCycleLR") if is_g else {},
                                               "d": section("StepLR")}} for is_g in is_there)
    assert_goes_on_as_if_always_so(before, after, "g", "d")


def test_changed_section_of_both_optimizers_takes_effect_on_both() -> None:
    assert_goes_on_as_if_always_so(of(section("StepLR")), of(section("StepLR", gamma=0.1), lr=0.3),
                                   "g", "d")


def test_type_of_one_of_two_optimizers_changed_starts_that_one_anew(
        caplog: pytest.LogCaptureFixture) -> None:
    schedule = {"d": section("StepLR", step_size=1)}
    before, after = ({"optimizer": {"g": of(kind=kind)["optimizer"], "d": of()["optimizer"]},
                      "lr_scheduler": schedule} for kind in ("SGD", "Adam"))
    resumed = Run(after, "g", "d").resume(Run(before, "g", "d").run(2).checkpoint())
    assert "the optimizer g is another one" in caplog.text
    assert not resumed.optimizer["g"].state and resumed.optimizer["d"].state
    assert resumed.optimizer["d"].param_groups[0]["lr"] == 0.1 * 0.5 ** 2


def test_state_of_other_parameters_is_refused() -> None:
    run = Run(of())
    run.optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(CheckpointError, match=r"does not fit this run's SGD.*a freeze ch"):
        run.resume(Run(of()).checkpoint())


@pytest.mark.parametrize("state", [[1], "x", {}, {"state": 3}])
def test_state_that_is_none_of_an_optimizer_is_refused(state: Any) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        Run(of()).resume(Run(of()).checkpoint() | {"optimizer": state})


def test_checkpoint_without_optimizer_leaves_it(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(of()).resume(Run(of(lr=3.0)).checkpoint() | {"optimizer": None})
    assert run.groups[0]["lr"] == 0.1 and "has no state of an optimizer" in caplog.text


def test_checkpoint_without_config_changes_nothing() -> None:
    """Classic ones hold an object there."""
    checkpoint = Run(of()).run(1).checkpoint() | {"config": None}
    assert Run(of(lr=3.0)).resume(checkpoint).groups[0]["lr"] == 0.1


def test_schedule_without_state_and_state_without_schedule_are_refused() -> None:
    """Where the config is not what makes them."""
    with_one, without = of(section("StepLR")), of()
    first, second = Run(with_one), Run(without)
    first.config = second.config
    with pytest.raises(CheckpointError, match="missing in the checkpoint: lr_scheduler;"):
        first.resume(Run(without).run(1).checkpoint())
    second.config = with_one
    with pytest.raises(CheckpointError, match="unknown to the run: lr_scheduler\\."):
        second.resume(Run(with_one).run(1).checkpoint())


def test_part_that_is_made_late_gets_its_state_once() -> None:
    class Late:
        loads = 0

        def state_dict(self) -> dict[str, Any]:
            return {"value": 1}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.loads += state["value"]

    run, early, late = Run(of()), Late(), Late()
    checkpoint = run.run(2).checkpoint()
    checkpoint["parts"] |= {"early": {"value": 1}, "late": {"value": 1}}
    resumed = Resumed(checkpoint, "file.pth", SimpleNamespace(config=run.config, modules={}))
    resumed.give(run.parts() | {"early": early})
    resumed.finish(run.parts() | {"early": early, "late": late}, None)
    assert (early.loads, late.loads) == (1, 1)


def test_checkpoint_of_the_classic_template_goes_on_after_its_epoch(
        caplog: pytest.LogCaptureFixture) -> None:
    stopped, run = Run(of()).run(3), Run(of())
    run.resume({"arch": "Net", "epoch": 3, "state_dict": stopped.model.state_dict(),
                "optimizer": stopped.optimizer.state_dict(), "monitor_best": torch.tensor(0.5),
                "config": SimpleNamespace()})
    assert (run.counters.epoch, run.counters.passes, run.monitor.best) == (3, 3, 0.5)
    assert same(run.model.state_dict(), stopped.model.state_dict()) and run.optimizer.state
    assert "of an older layout: scheduler, random generators and patience start" in caplog.text
