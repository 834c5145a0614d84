import inspect
from types import SimpleNamespace

import pytest
import torch
from torch.optim import lr_scheduler

from base import Callback
from base.schedulers import Schedulers, advance, build_scheduler, interval_of
from parse_config import ConfigParser
from tests.framework.tiny_run import STEPS_PER_EPOCH, final_state, train
from utils.errors import ConfigError, RunError

ARGS = {
    "ChainedScheduler": None, "SequentialLR": None,
    "ConstantLR": {}, "CosineAnnealingLR": {"T_max": 5}, "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0}, "ExponentialLR": {"gamma": 0.9},
    "LambdaLR": {"lr_lambda": lambda epoch: 0.5}, "LinearLR": {},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.5}, "MultiStepLR": {"milestones": [2]},
    "OneCycleLR": {"max_lr": 1.0, "total_steps": 10}, "PolynomialLR": {},
    "ReduceLROnPlateau": {"patience": 0}, "StepLR": {"step_size": 2},
}
NAMES = [name for name, kind in vars(lr_scheduler).items()
         if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler)
         and name not in ("LRScheduler", "_LRScheduler")]


def sgd(**options):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, **options)


def make(name, optimizer=None):
    optimizer = optimizer or sgd(momentum=0.9)
    if ARGS[name] is None:
        parts = [lr_scheduler.StepLR(optimizer, 1), lr_scheduler.StepLR(optimizer, 2)]
        if name == "ChainedScheduler":
            return lr_scheduler.ChainedScheduler(parts)
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    return getattr(lr_scheduler, name)(optimizer, **ARGS[name])


def config_of(kind, **args):
    return ConfigParser({"name": "x", "trainer": {"epochs": 1}, "lr_scheduler": {
        "type": kind, "args": args}}, modules={"lr_scheduler": "torch.optim.lr_scheduler"})


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_of_torch_steps_each_epoch_but_for_the_cycles(name):
    optimizer = sgd(momentum=0.9)
    scheduler, calls = make(name, optimizer), []
    scheduler.step = lambda *value, step=scheduler.step: (step(*value), calls.append(value))
    schedulers = Schedulers(scheduler, {})
    optimizer.step()
    schedulers.after_step({""})
    assert len(calls) == (name in ("OneCycleLR", "CyclicLR"))
    schedulers.after_epoch()
    schedulers.after_validation({"loss": 1.0}, None)
    assert calls == [(1.0,) if name == "ReduceLROnPlateau" else ()]


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR"])
def test_interval_in_the_config_decides(name, interval):
    assert interval_of(make(name), {"interval": interval}) == interval


def test_subclass_of_a_cycle_steps_each_batch_too():
    class Mine(lr_scheduler.OneCycleLR):
        pass

    assert interval_of(Mine(sgd(), max_lr=1.0, total_steps=3), {}) == "step"


def test_no_scheduler_takes_no_step():
    schedulers = Schedulers(None, {})
    schedulers.after_step({""})
    schedulers.after_epoch()
    schedulers.after_validation({}, None)
    schedulers.check_end(5, 5)
    assert build_scheduler({}, sgd()) is None


def test_of_several_those_step_whose_optimizers_have():
    both = {name: make("StepLR") for name in ("g", "d")}
    schedulers = Schedulers(both, {"lr_scheduler": {"interval": "step", "type": "StepLR"}})
    both["g"].optimizer.step()
    schedulers.after_step({"g"})
    assert (both["g"].last_epoch, both["d"].last_epoch) == (1, 0)


def test_each_of_several_can_have_an_interval_of_its_own():
    both = {name: make("StepLR") for name in ("g", "d")}
    schedulers = Schedulers(both, {"lr_scheduler": {"g": {"type": "StepLR", "interval": "step"}}})
    assert (list(schedulers.each_step), list(schedulers.each_epoch)) == (["g"], ["d"])


@pytest.mark.parametrize(("log", "monitored", "value"), [
    ({"loss": 3.0, "val_loss": 2.0, "own": 1.0}, "own", 1.0),
    ({"loss": 3.0, "val_loss": 2.0}, None, 2.0), ({"loss": 3.0}, None, 3.0)])
def test_plateau_gets_the_monitored_value_or_the_loss(log, monitored, value):
    scheduler = make("ReduceLROnPlateau")
    Schedulers(scheduler, {}).after_validation(log, monitored)
    assert scheduler.best == value


def test_value_that_plateau_misses_is_one_error():
    with pytest.raises(RunError, match=r"ReduceLROnPlateau wants 'own', but.*log has loss"):
        Schedulers(make("ReduceLROnPlateau"), {}).after_validation({"loss": 1.0}, "own")


class AddsToLog(Callback):
    def on_epoch_end(self, trainer, epoch, log):
        log["own"] = float(epoch)


def test_plateau_follows_a_value_that_a_callback_adds(tmp_path):
    folder = train(tmp_path, schedule="ReduceLROnPlateau", monitor="min own",
                   callbacks=(AddsToLog(),))
    parts = final_state(folder)["parts"]
    assert parts["lr_scheduler"]["last_epoch"] == 2 and parts["best_monitor"]["best"] == 1.0


def test_plateau_at_each_step_is_refused():
    with pytest.raises(ConfigError, match=r"lr_scheduler\.interval: ReduceLROnPlateau.*once an ep"):
        Schedulers(make("ReduceLROnPlateau"), {"lr_scheduler": {
            "type": "ReduceLROnPlateau", "interval": "step"}})


@pytest.mark.parametrize(("kind", "args", "problem"), [
    ("StepLR", {"step_size": 0}, "zero"), ("CosineAnnealingLR", {"T_max": 0}, "zero")])
def test_arguments_that_fail_at_the_first_steps_are_refused_before_them(kind, args, problem):
    with pytest.raises(ConfigError, match=rf"lr_scheduler\.args: {kind} cannot make its first "
                                          f"steps with.*{problem}"):
        build_scheduler(config_of(kind, **args), sgd())


@pytest.mark.parametrize(("kind", "args"), [
    ("StepLR", {"step_size": 1}), ("OneCycleLR", {"max_lr": 1.0, "total_steps": 2}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0}), ("ReduceLROnPlateau", {"patience": 0})])
def test_trial_of_a_schedule_leaves_the_optimizer_as_it_was(kind, args):
    optimizer, untried = sgd(momentum=0.9), sgd(momentum=0.9)
    scheduler = build_scheduler(config_of(kind, **args), optimizer)
    getattr(lr_scheduler, kind)(untried, **args)
    assert scheduler.optimizer is optimizer and scheduler.last_epoch == 0
    assert [group["lr"] for group in optimizer.param_groups] == [
        group["lr"] for group in untried.param_groups]


def test_optimizer_with_arguments_of_its_own_gets_its_schedule():
    class Own(torch.optim.SGD):
        def __init__(self, model, lr):
            super().__init__(model.parameters(), lr=lr)

    optimizer = Own(torch.nn.Linear(1, 1), 0.1)
    assert build_scheduler(config_of("StepLR", step_size=2), optimizer).optimizer is optimizer


@pytest.mark.parametrize(("interval", "num_steps", "num_epochs", "is_long_enough"), [
    ("step", 10, 99, True), ("step", 11, 1, False), ("step", None, 99, True),
    ("epoch", 99, 10, True), ("epoch", 1, 11, False)])
def test_schedule_shorter_than_the_run_is_refused(interval, num_steps, num_epochs, is_long_enough):
    schedulers = Schedulers(make("OneCycleLR"), {"lr_scheduler": {
        "type": "OneCycleLR", "interval": interval}})
    if is_long_enough:
        return schedulers.check_end(num_steps, num_epochs)
    with pytest.raises(ConfigError, match="OneCycleLR ends after 10 steps, but the run makes 11"):
        schedulers.check_end(num_steps, num_epochs)


@pytest.mark.parametrize("goes_on", [False, True])
def test_cycle_shorter_than_the_run_is_refused_at_the_start(tmp_path, goes_on):
    resume = train(tmp_path, schedule="OneCycleLR") / "latest.pth" if goes_on else None
    with pytest.raises(ConfigError, match=f"ends after {2 * STEPS_PER_EPOCH} steps, but the run "
                                          f"makes {3 * STEPS_PER_EPOCH}"):
        train(tmp_path, resume=resume, schedule="OneCycleLR", epochs=3)


def test_step_past_the_end_of_a_cycle_is_one_error():
    scheduler = make("OneCycleLR")
    scheduler.optimizer.step()
    with pytest.raises(RunError, match=r"OneCycleLR cannot step on.*as long as the run"):
        for _ in range(11):
            advance(scheduler)


def test_scheduler_of_ones_own_needs_only_a_step():
    steps = []
    own = SimpleNamespace(step=lambda: steps.append(1))
    Schedulers(own, {}).after_epoch()
    assert steps == [1]
