"""Learning rate schedulers: when each wants its step, with what, and whether it can make it."""

import warnings
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_schedulers

from base.optimizers import each
from utils.config.misspellings import shown
from utils.errors import ConfigError, RunError

EACH_STEP = (torch_schedulers.OneCycleLR, torch_schedulers.CyclicLR)


class Schedulers:
    """Steps the schedulers of a run after their optimizers' steps, or after each epoch.

    Args:
        schedulers: one, or a dict or list of them with the names of their optimizers.
        config: may say when each steps.

    Raises:
        ConfigError: ReduceLROnPlateau is to step at each step, where nothing is monitored.
    """

    def __init__(self, schedulers: Any, config: Any) -> None:
        self.by_step: dict[str, Any] = {}
        self.by_epoch: dict[str, Any] = {}
        for name, one in each(schedulers):
            interval = interval_of(one, section_of(config, "lr_scheduler", name))
            if interval == "step" and takes_value(one):
                raise ConfigError("lr_scheduler.interval: ReduceLROnPlateau wants the monitored "
                                  'value, which is there once an epoch; leave out "step"')
            (self.by_step if interval == "step" else self.by_epoch)[name] = one

    def after_step(self, stepped: set[str]) -> None:
        """The step of those whose optimizers have just made theirs."""
        for name, one in self.by_step.items():
            if name in stepped or (stepped and not name):
                advance(one)

    def after_epoch(self, log: dict[str, Any], monitored: str | None) -> None:
        """The step at the end of an epoch.

        Args:
            log: of the epoch.
            monitored: name in it of the value that ReduceLROnPlateau gets; None takes the
                validation loss, else the loss.

        Raises:
            RunError: the log has no such value.
        """
        name = plateau_value(log, monitored)
        for one in self.by_epoch.values():
            if takes_value(one) and name not in log:
                raise RunError(f"ReduceLROnPlateau wants {name!r}, but the epoch's log has "
                               f"{', '.join(log)}")
            make_steps(one, 1, [log.get(name, 0.0)])

    def check_end(self, num_steps: int | None, num_epochs: int) -> None:
        """Whether each can make all the steps of the run.

        Raises:
            ConfigError: a schedule is shorter than the run.
        """
        for planned, schedulers in ((num_steps, self.by_step), (num_epochs, self.by_epoch)):
            for one in schedulers.values():
                total = getattr(one, "total_steps", None)
                if planned is not None and isinstance(total, int) and total < planned:
                    raise ConfigError(
                        f"lr_scheduler.args: {type(one).__name__} ends after {total} steps, but "
                        f"the run makes {planned}; set total_steps to {planned}, or fewer epochs")


def interval_of(scheduler: Any, section: dict[str, Any]) -> str:
    """"step" or "epoch": as the config says, else by the scheduler's class."""
    return section.get("interval") or ("step" if isinstance(scheduler, EACH_STEP) else "epoch")


def section_of(config: Any, section: str, name: str = "") -> dict[str, Any]:
    """A section of the config, or the one of that name in it; empty if there is none."""
    found = config.get(section) or {}
    if isinstance(found, dict) and "type" not in found and name:
        found = found.get(name) or {}
    return found if isinstance(found, dict) else {}


def takes_value(scheduler: Any) -> bool:
    """Whether ``step`` wants the monitored value: ReduceLROnPlateau."""
    return isinstance(scheduler, torch_schedulers.ReduceLROnPlateau)


def plateau_value(log: dict[str, Any], monitored: str | None) -> str:
    """The name of the value that ReduceLROnPlateau gets."""
    return monitored or ("val_loss" if "val_loss" in log else "loss")


def advance(scheduler: Any, *value: float) -> None:
    """One step.

    Raises:
        RunError: the scheduler refuses it, as OneCycleLR does past its end.
    """
    try:
        scheduler.step(*value)
    except (ValueError, ZeroDivisionError) as error:
        raise RunError(f"lr_scheduler: {type(scheduler).__name__} cannot step on ({error}); let it "
                       "be as long as the run") from error


def build_scheduler(config: Any, optimizer: Any) -> Any:
    """The scheduler that the config names, tried on a stand-in first; None without one.

    Raises:
        ConfigError: it refuses its arguments, or its first steps fail.
    """
    section = config.get("lr_scheduler")
    if not section:
        return None
    if isinstance(optimizer, torch.optim.Optimizer):
        scheduler = config.init_obj("lr_scheduler", None, _StandIn(optimizer))
        num_steps = min(3, getattr(scheduler, "total_steps", 3))
        try:
            make_steps(scheduler, num_steps, [1.0] * num_steps)
        except (RunError, ArithmeticError, TypeError, LookupError) as error:
            raise ConfigError(f"lr_scheduler.args: {section['type']} cannot make its first steps "
                              f"with {shown(section.get('args') or {})}: {error}") from error
    return config.init_obj("lr_scheduler", None, optimizer)


def make_steps(scheduler: Any, num_steps: int, values: list[float]) -> None:
    """Lets a scheduler make steps although its optimizer may have made none in this process.

    Args:
        num_steps: to make.
        values: that ReduceLROnPlateau would have got at each of them.
    """
    with warnings.catch_warnings():  # torch warns of schedulers that step before their optimizer
        warnings.simplefilter("ignore")
        for step in range(num_steps):
            advance(scheduler, *([values[step]] if takes_value(scheduler) else []))


class _StandIn(torch.optim.Optimizer):
    """An optimizer with the groups of another one, over nothing."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__([{**group, "params": [torch.zeros(1, 1, requires_grad=True)]}
                          for group in optimizer.param_groups], optimizer.defaults)
