"""Learning rate schedulers: when each wants its step, with what, and whether it can make it."""

import warnings
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_schedulers

from base.counters import Counters
from base.data.train_batches import num_batches
from base.optimizers import each
from utils.config.arguments import parameters_of
from utils.config.misspellings import shown
from utils.config.names import resolve_name
from utils.config.type_and_args import named_parts
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
        self.each_step: dict[str, Any] = {}
        self.each_epoch: dict[str, Any] = {}
        for name, one in each(schedulers):
            interval = interval_of(one, section_of(config, "lr_scheduler", name))
            if interval == "step" and takes_value(one):
                raise ConfigError("lr_scheduler.interval: ReduceLROnPlateau wants the monitored "
                                  'value, which is there once an epoch; leave out "step"')
            (self.each_step if interval == "step" else self.each_epoch)[name] = one

    def after_step(self, stepped: set[str]) -> None:
        """The step of those whose optimizers have just made theirs."""
        for name, one in self.each_step.items():
            if name in stepped or (stepped and not name):
                advance(one)

    def after_epoch(self) -> None:
        """The step at the end of an epoch, of those that want no value."""
        for one in self.each_epoch.values():
            if not takes_value(one):
                make_steps(one, 1, [])

    def after_validation(self, log: dict[str, Any], monitored: str | None) -> None:
        """The step of ReduceLROnPlateau.

        Args:
            log: of the epoch.
            monitored: name in it of the value that it gets; None takes the validation loss, else
                the loss.

        Raises:
            RunError: the log has no such value.
        """
        name = plateau_value(log, monitored)
        for one in filter(takes_value, self.each_epoch.values()):
            if name not in log:
                raise RunError(f"ReduceLROnPlateau wants {name!r}, but the epoch's log has "
                               f"{', '.join(log)}")
            advance(one, log[name])

    def check_end(self, num_steps: int | None, num_epochs: int | None) -> None:
        """Whether each can make all the steps of the run.

        Raises:
            ConfigError: a schedule is shorter than the run.
        """
        for planned, schedulers in ((num_steps, self.each_step), (num_epochs, self.each_epoch)):
            for one in schedulers.values():
                total = getattr(one, "total_steps", None)
                if planned is not None and isinstance(total, int) and total < planned:
                    raise ConfigError(
                        f"lr_scheduler.args: {type(one).__name__} ends after {total} steps, but "
                        f"the run makes {planned}; set total_steps to {planned}, or fewer epochs "
                        "(batches_per_step of a trainer that accumulates by itself)")


def interval_of(scheduler: Any, section: dict[str, Any]) -> str:
    """"step" or "epoch": as the config says, else as the scheduler, its class or the function that
    makes it says by an attribute ``interval``, else by its class."""
    kind = scheduler if isinstance(scheduler, type) else type(scheduler)
    return section.get("interval") or getattr(scheduler, "interval", None) or (
        "step" if issubclass(kind, EACH_STEP) else "epoch")


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


def build_scheduler(config: Any, optimizers: Any, num_steps: int | None = None) -> Any:
    """The scheduler that the config names, or those of several optimizers by their names, each
    tried on a stand-in first; None without one.

    Args:
        num_steps: of the run, if they are known: ``total_steps`` of a schedule by step to which the
            config leaves them. One by epoch gets the epochs.

    Raises:
        ConfigError: one refuses its arguments, or its first steps fail.
    """
    sections = named_parts(config.get("lr_scheduler") or {})
    built = {name: _build(config, f"lr_scheduler.{name}".rstrip("."), section,
                          optimizers[name] if name else optimizers, num_steps)
             for name, section in sections.items() if section}
    return built.get("", built or None)


def _build(config: Any, path: str, section: dict[str, Any], optimizer: Any,
           num_steps: int | None) -> Any:
    target = config.init_ftn(path, None, optimizer=_StandIn(optimizer)).func
    parameters = parameters_of(target)
    filled: dict[str, Any] = {}
    if leaves_total_steps(section, parameters):
        is_by_step = interval_of(target, section) == "step"
        filled["total_steps"] = num_steps if is_by_step else config.trainer.epochs
        if filled["total_steps"] is None:
            raise ConfigError(f"{path}.args.total_steps: is missing; {section['type']} needs it, "
                              "and the length of the run is not known: give it here, or " + (
                                  "trainer.max_steps or trainer.len_epoch" if is_by_step
                                  else "trainer.epochs"))

    def make(optimizer: Any) -> Any:
        if "optimizer" in parameters:
            return config.init_obj(path, None, optimizer=optimizer, **filled)
        return config.init_obj(path, None, optimizer, **filled)

    scheduler = make(_StandIn(optimizer))
    first_steps = min(3, getattr(scheduler, "total_steps", 3))
    try:
        make_steps(scheduler, first_steps, [1.0] * first_steps)
    except (RunError, ArithmeticError, TypeError, LookupError) as error:
        raise ConfigError(f"{path}.args: {section['type']} cannot make its first steps "
                          f"with {shown(section.get('args') or {})}: {error}") from error
    return make(optimizer)


def leaves_total_steps(section: dict[str, Any], parameters: Any) -> bool:
    """Whether a schedule takes ``total_steps`` and the config leaves them to the run."""
    given = section.get("args") or {}
    return "total_steps" in parameters and not {"total_steps", "steps_per_epoch"} & given.keys()


def follows_run(config: Any, name: str) -> bool:
    """Whether the schedule of that name gets its ``total_steps`` from the length of the run."""
    section, modules = section_of(config, "lr_scheduler", name), config.modules.get("lr_scheduler")
    return bool(section) and modules is not None and leaves_total_steps(
        section, parameters_of(resolve_name(section["type"], modules)))


def planned_steps(settings: Any, loader: Any, batches_per_step: int = 1,
                  done: Counters | None = None, len_epoch: int | None = None,
                  waiting: int = 0) -> int | None:
    """Optimizer steps of the whole run; None if that is not known.

    Args:
        settings: of the trainer.
        loader: of the training data.
        batches_per_step: of the trainer.
        done: what the run has behind it, perhaps with other settings.
        len_epoch: batches per epoch; default as the settings say, or one pass over the data.
        waiting: batches whose gradients wait for a step.
    """
    done, len_epoch = done or Counters(), len_epoch or settings.len_epoch
    planned = [settings.max_steps] if settings.max_steps else []
    in_epoch = len_epoch or num_batches(loader)
    if in_epoch and settings.epochs:
        left = in_epoch - done.batch
        if len_epoch is None and hasattr(loader, "num_batches"):
            left = loader.num_batches(done.samples)
        others = max(settings.epochs - done.epoch - 1, 0)
        planned.append(done.step + sum(
            -(-count // settings.accumulate) // batches_per_step * epochs
            for count, epochs in ((left + waiting, settings.epochs > done.epoch),
                                  (in_epoch, others))))
    return min(planned, default=None)


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
