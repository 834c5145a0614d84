"""What is looked at before a run's first step, while nothing is on the disk yet."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from base.checkpoint.state import Parts, check_plain
from base.evaluation import first_batches, named_loaders
from base.monitor import check_name, is_number
from base.optimizers import each, learning_rates, wants_closure, warn_of_untrained
from base.schedulers import planned_steps, takes_value
from base.together import check_shared
from logger.console import VALID, plain_number
from logger.history import BESIDE_LOG
from utils.config.settings import DEFAULTS
from utils.devices.processes import num_processes
from utils.devices.sharding import is_sharded
from utils.errors import ConfigError
from utils.metric_tracker import MetricTracker
from utils.rng import equal_states

AROUND_OUR_LOOP = ("accumulate", "clip_grad_norm", "ema_decay", "max_steps", "precision",
                   "valid_steps")
logger = logging.getLogger(__name__)


def check_start(trainer: Any) -> None:
    """Tries the validation, and checks what would otherwise be found after hours.

    Raises:
        ConfigError: a monitored name that will not come, or a schedule shorter than the run.
    """
    if num_processes() > 1:
        _check_processes(trainer)
    warn_of_untrained(trainer.model, "model", trainer.optimizer)
    warn_of_untrained(trainer.criterion, "loss", trainer.optimizer)
    has_closure = any(wants_closure(one) for _, one in each(trainer.optimizer))
    if has_closure and not trainer.updates.is_plain:
        raise ConfigError("trainer.accumulate, clip_grad_norm, precision fp16 and several processes"
                          " do not go with an optimizer that evaluates the loss several times in "
                          "a step")
    if trainer.settings.ema_decay is not None and trainer.average is None and (
            not trainer.is_classic):
        raise ConfigError("trainer.ema_decay: the strategy fsdp2 needs trainer.average to be made "
                          "before the model is sharded, as build() of train.py does")
    if trainer.settings.sharded_checkpoints and not is_sharded(trainer.model):
        logger.warning("trainer.sharded_checkpoints has no effect without the strategy fsdp2")
    if trainer.early_stop > 0 and trainer.mnt_mode == "off":
        logger.warning("trainer.early_stop has no effect without trainer.monitor")
    if hasattr(trainer.data_loader, "place"):  # for a loop that draws from the loader itself
        trainer.data_loader.place(trainer.counters.passes)
    if trainer.is_classic:  # its loops and logs are its own
        if trainer.epochs is None:
            raise ConfigError("trainer.epochs: is missing; trainer.max_steps alone will do where "
                              "the trainer draws its batches by train_batches()")
        without = [key for key in AROUND_OUR_LOOP
                   if getattr(trainer.settings, key) != DEFAULTS[f"trainer.{key}"]]
        if without:
            logger.warning("trainer.%s: no effect, for the trainer was given no data_loader: its "
                           "loops are its own", ", ".join(without))
        return
    values = _try_validation(trainer)
    valid_names = None if values is None else list(values)
    if trainer.mnt_metric in BESIDE_LOG:
        raise ConfigError(f"trainer.monitor watches {trainer.mnt_metric!r}, which each row of the "
                          f"history has by itself; a value of your own is own_{trainer.mnt_metric}")
    if trainer.mnt_metric is not None:
        sets = [f"{VALID}{prefix}" for prefix, _ in named_loaders(trainer.valid_data_loader)]
        both = [name.removeprefix(prefix) for prefix in sets for name in valid_names or ()
                if name.startswith(prefix)]
        tracker = trainer.train_metrics  # a project's may be of another kind
        tracked = tracker.keys if isinstance(tracker, MetricTracker) else ()
        train_names = dict.fromkeys([*tracked, *both, *learning_rates(trainer.optimizer)])
        if not is_number((values or {}).get(trainer.mnt_metric, 0.0)):
            raise ConfigError(f"trainer.monitor watches {trainer.mnt_metric!r}, which is a table, "
                              "not a number")
        check_name(trainer.mnt_metric, list(train_names), valid_names,
                   may_add=trainer.callbacks.may_add)
    num_steps = planned_steps(trainer.settings, trainer.data_loader, trainer.batches_per_step,
                              trainer.counters, trainer.len_epoch,
                              trainer.updates.num_waiting)
    trainer.schedulers.check_end(num_steps, None if trainer.settings.max_steps else trainer.epochs)
    if trainer.mnt_metric is None and isinstance(trainer.valid_data_loader, dict) and any(
            map(takes_value, trainer.schedulers.each_epoch.values())):
        raise ConfigError("lr_scheduler: with several validation sets ReduceLROnPlateau needs to "
                          "know which value it follows: set trainer.monitor")


def _check_processes(trainer: Any) -> None:
    """Whether several processes can share the work.

    Raises:
        ConfigError: each of them would do all of it.
    """
    if trainer.is_classic:
        raise ConfigError("several processes need a trainer that is given its data_loader and "
                          "draws its batches by self.train_batches()")
    loaders = named_loaders(trainer.valid_data_loader)
    for label, loader in [("data_loader", trainer.data_loader),
                          *((f"valid_data_loader.{name}".rstrip("_."), one)
                            for name, one in loaders)]:
        check_shared(label, loader)
    size = getattr(trainer.data_loader, "batch_size", None)
    if size:
        logger.info("%d processes with batches of %d make batches of %d samples", num_processes(),
                    size, size * num_processes())
    for _, loader in loaders:
        if hasattr(loader, "keeps_all"):
            loader.keeps_all = True


def tell_unknown(trainer: Any, log: dict[str, Any]) -> None:
    """What could not be known before the first epoch: that the monitored value does not come.

    Raises:
        ConfigError: unless the log is that of a classic trainer, which is only warned.
    """
    text = (f"trainer.monitor watches {trainer.mnt_metric!r}, but the epoch's log has "
            f"{', '.join(log)}")
    if not trainer.is_classic:
        raise ConfigError(f"{text}. The epoch is saved: go on with another trainer.monitor")
    logger.warning("%s: neither a best model nor early stopping without it", text)
    trainer.mnt_mode, trainer.mnt_metric = "off", None


@contextlib.contextmanager
def without_trace(trainer: Any) -> Iterator[None]:
    """A trial: nothing is written, no callback called, no warning of a metric on few samples."""
    callbacks, is_writing = trainer.callbacks, trainer.writer.enabled
    trainer.callbacks, trainer.writer.enabled = type(callbacks)(), False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        trainer.callbacks, trainer.writer.enabled = callbacks, is_writing


@contextlib.contextmanager
def _put_back(parts: list[Any]) -> Iterator[None]:
    """Undoes changes of the parts' states, except those of networks' parameters and of torch's
    optimizers, of which no copy is made."""
    before = [copy.deepcopy(_small_state(part)) for part in parts]
    try:
        yield
    finally:
        for part, state in zip(parts, before, strict=True):
            if not equal_states(state, _small_state(part)):
                try:
                    if isinstance(part, nn.Module):
                        part.load_state_dict(state, strict=False)
                    else:
                        part.load_state_dict(state)
                except Exception as error:  # of a buffer that has grown, say
                    cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                    logger.warning("the trial of the validation changed a %s, whose state cannot "
                                   "be put back (%s); trainer.sanity_batches=0 leaves it out",
                                   type(part).__name__, cause)


def _leaves(parts: dict[str, Any]) -> Iterator[Any]:
    for part in parts.values():
        if isinstance(part, Parts):
            yield from _leaves(part.parts)
        else:
            yield part


def _small_state(part: Any) -> dict[str, Any]:
    if isinstance(part, Optimizer):
        return {}
    if not isinstance(part, nn.Module):
        return part.state_dict()
    large = {name for name, _ in part.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in part.state_dict().items() if name not in large}


def _try_validation(trainer: Any) -> dict[str, Any] | None:
    """What the validation gives of its first batches; None if it was not tried."""
    if not trainer.do_validation:
        return {}
    count = trainer.settings.sanity_batches
    if not count:
        return None
    loaders = trainer.valid_data_loader
    try:
        with _put_back([*_leaves(trainer._parts())]), without_trace(trainer):
            trainer.valid_data_loader = first_batches(loaders, count)
            values = {name: plain_number(value) for name, value in trainer.validate().items()}
        if hasattr(trainer.valid_metrics, "state_dict"):  # it is kept at a stop inside an epoch
            check_plain(trainer.valid_metrics.state_dict(), "metrics")
        return values
    finally:
        trainer.valid_data_loader = loaders
