import inspect

import pytest
import torch
from torch.optim import lr_scheduler

from base.schedule import steps_each_batch, takes_value

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


def make(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    if ARGS[name] is None:
        parts = [lr_scheduler.StepLR(optimizer, 1), lr_scheduler.StepLR(optimizer, 2)]
        if name == "ChainedScheduler":
            return lr_scheduler.ChainedScheduler(parts)
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    return getattr(lr_scheduler, name)(optimizer, **ARGS[name])


@pytest.mark.parametrize("name", NAMES)
def test_schedulers_of_torch_step_each_epoch_but_for_the_cycles(name):
    """D40"""
    assert steps_each_batch(make(name)) is (name in ("OneCycleLR", "CyclicLR"))


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_of_torch_takes_the_step_that_it_is_said_to_take(name):
    """D40"""
    scheduler = make(name)
    scheduler.optimizer.step()
    scheduler.step(*([1.0] if takes_value(scheduler) else []))
    assert takes_value(scheduler) is (name == "ReduceLROnPlateau")


def test_subclass_of_a_cycle_steps_each_batch_too():
    class Mine(lr_scheduler.OneCycleLR):
        pass

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert steps_each_batch(Mine(optimizer, max_lr=1.0, total_steps=3))


@pytest.mark.parametrize(("interval", "answer"), [("step", True), ("epoch", False)])
@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR"])
def test_interval_in_the_config_decides(name, interval, answer):
    assert steps_each_batch(make(name), interval) is answer


def test_no_scheduler_takes_no_step():
    """D39"""
    assert not steps_each_batch(None) and not takes_value(None)
