"""How a run goes on: each part gets its state, and what the config has changed takes effect."""

import functools
import logging
from pathlib import Path
from typing import Any

from torch import nn

from base.checkpoint.changes import SCHEDULED, Changes
from base.checkpoint.shards import read_shards
from base.checkpoint.state import (
    RANDOM,
    GeneratorPart,
    Parts,
    check_names,
    give,
    is_of_process,
    restore,
)
from base.checkpoint.weights import load_weights
from base.optimizers import each, learning_rates, missing_state
from base.schedulers import (
    follows_run,
    interval_of,
    make_steps,
    plateau_value,
    section_of,
    takes_value,
)
from utils.devices.processes import num_processes, rank
from utils.devices.sharding import divided_in
from utils.errors import CheckpointError
from utils.runs.checkpoint_file import read_checkpoint

# what a checkpoint need not have, or the run
APART = ("model", "optimizer", "lr_scheduler", "updates", "average", "metric_ftns", RANDOM)
logger = logging.getLogger(__name__)


class Resumed:
    """A checkpoint whose states wait for their parts.

    A trainer has some parts after its constructor, and all when it starts to train: ``give`` is
    called at both times, and whatever is there gets its state once.

    Args:
        checkpoint: its content.
        source: where it was read, for messages.
        config: of the run that goes on.
    """

    def __init__(self, checkpoint: dict[str, Any], source: str, config: Any) -> None:
        self.checkpoint = checkpoint
        self.source = source
        self._ranks = checkpoint.get("rank_parts") or [{}]
        self.changes = Changes(checkpoint.get("config"), config.config,
                               has_schedule="lr_scheduler" in checkpoint.get("parts", {}),
                               follows_run=functools.partial(follows_run, config),
                               is_shared_otherwise=len(self._ranks) != num_processes())
        self.is_complete = "best_monitor" in checkpoint.get("parts", {})
        self._given: dict[str, Any] = {}

    @classmethod
    def read(cls, path: Path, config: Any, model: nn.Module) -> "Resumed":
        """The checkpoint of a file, which the config may have read already.

        Args:
            model: that it is for, perhaps sharded.
        """
        content = config.take_checkpoint(path) or read_checkpoint(path)
        return cls(read_shards(content, path, divided_in(model)), str(path), config)

    def give(self, parts: dict[str, Any]) -> None:
        """Gives each part its state, unless it has it; the random generators wait for ``finish``.

        Raises:
            CheckpointError: a state does not fit its part.
        """
        for name, part in parts.items():
            if name in self._given and _is_same(self._given[name], part):
                continue
            if name == "model":
                load_weights(part, self.checkpoint["state_dict"], self.source)
            elif name == "optimizer":
                self._give_optimizer(part)
            elif name in ("counters", "best_monitor") and not self.is_complete:
                self._give_classic(name, part)
            elif name in self._states() and name not in (RANDOM, "lr_scheduler"):
                give(name, part, self._states()[name])
            elif name == "average":
                logger.warning("%s has no average of the weights: it starts from the weights",
                               self.source)
                part.module.load_state_dict(parts["model"].state_dict())
            else:
                continue
            self._given[name] = part

    def finish(self, parts: dict[str, Any], monitored: str | None) -> None:
        """Gives all parts what is left, the schedules and the random generators last.

        Raises:
            CheckpointError: a part has no state, or a state no part.
        """
        self.give(parts)
        self._check_waiting(parts)
        if not self.is_complete:
            logger.warning("%s is of an older layout: scheduler, random generators and patience "
                           "start anew", self.source)
            return
        states = self._states()
        counters = states["counters"]
        is_inside = counters["batch"] or counters.get("unvalidated") or any(
            own.get("updates", {}).get("groups") for own in self._ranks)
        if self.changes.is_shared_otherwise and is_inside:
            raise CheckpointError(
                f"{self.source}: the run was stopped inside an epoch (or between validations) in "
                f"{len(self._ranks)} process(es), and there are {num_processes()} now. Go on with "
                "as many, or from another checkpoint")
        if self.changes.is_shared_otherwise:
            logger.info("%s was saved by %d process(es), and there are %d now: data_loader.args."
                        "batch_size is that of each", self.source, len(self._ranks),
                        num_processes())
        is_new = rank() >= len(self._ranks)  # a process that the run did not have
        check_names({name: part for name, part in parts.items() if name not in APART
                     and not (is_new and is_of_process(name, part))},
                    {name: state for name, state in states.items() if name not in APART})
        if "average" in states.keys() - parts.keys():
            logger.warning("trainer.ema_decay is off: the average of the weights is left out")
        self._give_schedulers(parts, monitored)
        if RANDOM in states:
            give(RANDOM, parts[RANDOM], states[RANDOM])

    def _check_waiting(self, parts: dict[str, Any]) -> None:
        own = self._ranks[0]
        updates = own.get("updates", {})
        if (updates.get("groups") or "gradients" in own) and (
                updates.get("is_of_all", False) != parts["updates"].reduction.is_of_all):
            raise CheckpointError(
                f"{self.source}: the run was stopped where gradients wait for their step, and the "
                "strategy was changed to or from fsdp2. Go on as before, or from another "
                "checkpoint")

    def _states(self) -> dict[str, Any]:
        own = self._ranks[rank()] if rank() < len(self._ranks) else {}
        return {**self.checkpoint.get("parts", {}), **own}

    def _give_classic(self, name: str, part: Any) -> None:
        """What a checkpoint of the classic template has of a part."""
        if name == "counters":
            part.epoch = part.passes = self.checkpoint.get("epoch", 0)
        elif part.mode != "off":
            part.best = float(self.checkpoint.get("monitor_best", part.best))

    def _give_optimizer(self, part: Any) -> None:
        state = self.checkpoint.get("optimizer")
        if state is None:
            logger.warning("%s has no state of an optimizer: it starts anew", self.source)
            return
        optimizers = getattr(part, "parts", part)
        anew = [name for name, _ in each(optimizers) if self.changes.is_other("optimizer", name)]
        if anew:
            label = f"optimizer {', '.join(anew)}".rstrip()
            logger.warning("the %s is another one than in the checkpoint, or trains other "
                           "parameters: it starts anew", label)
        if anew and not isinstance(part, Parts):
            return
        built = {name: [dict(group) for group in getattr(one, "param_groups", [])]
                 for name, one in each(optimizers)}
        try:
            if not anew:
                give("optimizer", part, state)
            for name, one in part.parts.items() if anew else ():
                if name not in anew and name in state:
                    give(f"optimizer {name}", one, state[name])
        except CheckpointError as error:
            raise CheckpointError(f"{error}; was the model or a freeze changed?") from error
        for name, one in each(optimizers):
            if built[name] and name not in anew:
                self._change_groups(one, built[name], name)

    def _change_groups(self, optimizer: Any, built: list[dict[str, Any]], name: str) -> None:
        """What the config has changed of the optimizer, and all that a changed schedule sets."""
        changed = self.changes.args("optimizer", name)
        is_scheduled = self.changes.touches_schedule(name)
        for group, fresh in zip(optimizer.param_groups, built, strict=True):
            for key in {*group, *fresh} - {"params"}:
                is_of_schedule = key in SCHEDULED or key not in optimizer.defaults
                if key not in changed and not (is_scheduled and is_of_schedule):
                    continue
                if key in fresh:
                    group[key] = fresh[key]
                elif is_of_schedule:
                    del group[key]
        missing = missing_state(optimizer) if changed else set()
        if missing:
            raise CheckpointError(
                f"optimizer.args: with {', '.join(sorted(changed))} changed, "
                f"{type(optimizer).__name__} needs {', '.join(sorted(missing))}, which the "
                "checkpoint does not have. Leave it as it was, or start a new run by --init-from")
        for key in changed:
            if not any(key in group for group in built):
                logger.warning("optimizer.args.%s has no effect on a resumed run", key)

    def _give_schedulers(self, parts: dict[str, Any], monitored: str | None) -> None:
        part, state = parts.get("lr_scheduler"), self._states().get("lr_scheduler")
        if isinstance(part, Parts):
            schedulers, states = part.parts, state or {}
        else:
            schedulers, states = dict(each(part)), {} if state is None else {"": state}
        changed = [name for name in {**schedulers, **states} if self.changes.touches_schedule(name)
                   or (takes_value(schedulers.get(name)) and self.changes.is_set("monitor"))]
        kept, kept_states = ({f"lr_scheduler {name}".strip(): value for name, value in these.items()
                              if name not in changed} for these in (schedulers, states))
        restore(kept, kept_states)
        for name in schedulers.keys() & changed:
            self._remake(schedulers[name], name, states.get(name, {}), parts, monitored)
        if changed:
            rates = learning_rates(getattr(parts["optimizer"], "parts", parts["optimizer"]))
            logger.info("the schedule is what the config makes it now, %d epochs on: %s",
                        parts["counters"].epoch,
                        ", ".join(f"{name} {lr:g}" for name, lr in rates.items()))

    def _remake(self, scheduler: Any, name: str, state: dict[str, Any], parts: dict[str, Any],
                monitored: str | None) -> None:
        """Steps a new scheduler to where it would be if it had always been as it is now."""
        before, after = (section_of(config, "lr_scheduler", name)
                         for config in (self.changes.before, self.changes.after))
        interval = interval_of(scheduler, after)
        num_steps = parts["counters"].step if interval == "step" else parts["counters"].epoch
        if not self.changes.is_other("lr_scheduler", name) and (
                interval_of(scheduler, before) == interval):
            num_steps = state.get("last_epoch", num_steps)  # it need not step each time
        values: list[float] = []
        if takes_value(scheduler):
            values = [row[key] for row in parts["history"].rows()
                      if (key := plateau_value(row, monitored)) in row]
            num_steps = min(state.get("last_epoch", len(values)), len(values))
        make_steps(scheduler, num_steps, values)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Parts) and isinstance(other, Parts):
        return one.parts.keys() == other.parts.keys() and all(
            _is_same(one.parts[key], other.parts[key]) for key in one.parts)
    if isinstance(one, GeneratorPart) and isinstance(other, GeneratorPart):
        return one.generator is other.generator
    return one is other
