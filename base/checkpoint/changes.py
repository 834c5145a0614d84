"""What a resumed run's config has changed of its optimizers and schedules."""

from collections.abc import Callable
from typing import Any

from base.counters import Counters
from base.schedulers import planned_steps, section_of
from base.updates import num_waiting
from utils.devices.processes import num_processes

SCHEDULED = ("lr", "momentum", "betas")  # what schedules change in an optimizer's groups


class Changes:
    """What differs between the config of a checkpoint and the one that goes on with it.

    Args:
        has_schedule: whether the run had one, be it that the config does not name it.
        follows_run: whether the schedule of a name is as long as the run.
        is_shared_otherwise: whether another number of processes goes on.
    """

    def __init__(self, before: Any, after: dict[str, Any], *, has_schedule: bool = False,
                 follows_run: Callable[[str], bool] = lambda _: False,
                 is_shared_otherwise: bool = False) -> None:
        self.before = before if isinstance(before, dict) else after
        self.after = after
        self.is_shared_otherwise = is_shared_otherwise
        self.has_schedule = has_schedule
        self.follows_run = follows_run

    def is_other(self, section: str, name: str) -> bool:
        """Whether another class is named, so that old state is of no use; of an optimizer, also
        whether it trains other parameters."""
        before, after = (section_of(config, section, name) for config in (self.before, self.after))
        is_frozen_otherwise = self.before.get("freeze", []) != self.after.get("freeze", [])
        return _identity(before) != _identity(after) or (
            section == "optimizer" and is_frozen_otherwise)

    def is_set(self, *keys: str) -> bool:
        """Whether any of these keys of ``trainer`` differ."""
        before, after = (config.get("trainer") for config in (self.before, self.after))
        return isinstance(before, dict) and isinstance(after, dict) and any(
            before.get(key) != after.get(key) for key in keys)

    @property
    def is_other_length(self) -> bool:
        """Whether the run has another length in steps."""
        keys = ("epochs", "max_steps", "len_epoch", "accumulate", "overfit_batches")
        return self.is_shared_otherwise or self.is_set(*keys) or (
            _without_workers(self.before) != _without_workers(self.after))

    def args(self, section: str, name: str) -> set[str]:
        """Names of arguments that differ."""
        before, after = (section_of(config, section, name).get("args") or {}
                         for config in (self.before, self.after))
        changed = {key for key in {**before, **after}
                   if key not in before or key not in after or before[key] != after[key]}
        groups = [section_of(config, section, name).get("groups") or []
                  for config in (self.before, self.after)]
        if groups[0] != groups[1]:
            changed |= {key for group in (*groups[0], *groups[1]) for key in group} - {"params"}
        return changed

    def touches_schedule(self, name: str) -> bool:
        """Whether lr and the like of an optimizer would have gone another way."""
        return (self.has_schedule or bool(section_of(self.after, "lr_scheduler", name))) and (
            section_of(self.before, "lr_scheduler", name)
            != section_of(self.after, "lr_scheduler", name)
            or bool(self.args("optimizer", name) & set(SCHEDULED))
            or self.is_other("optimizer", name)
            or (self.is_other_length and self.follows_run(name)))


def _identity(section: dict[str, Any]) -> tuple[Any, ...]:
    """Class and parameters of a section."""
    return (section.get("type"), section.get("params"),
            [group.get("params") for group in section.get("groups") or ()])


def _without_workers(config: dict[str, Any]) -> dict[str, Any]:
    """What of the training data's section may change its length."""
    section = section_of(config, "data_loader")
    args = {key: value for key, value in (section.get("args") or {}).items()
            if key != "num_workers"}
    return {**section, "args": args}


def steps_of_run(config: Any, loader: Any, batches_per_step: int = 1) -> int | None:
    """Optimizer steps of the whole run, for schedules that are as long; None if not known. A run
    that goes on has as many as it had, unless its length was changed: then as many as are left.
    """
    checkpoint, done = config.checkpoint or {}, Counters()
    done.load_state_dict(checkpoint.get("parts", {}).get("counters", {}))
    ranks = checkpoint.get("rank_parts") or [{}]
    changes = Changes(checkpoint.get("config"), config.config,
                      is_shared_otherwise=len(ranks) != num_processes())
    if done.planned is not None and not changes.is_other_length:
        return done.planned
    updates = ranks[0].get("updates", {})
    return planned_steps(config.trainer, loader, batches_per_step, done,
                         waiting=num_waiting(updates.get("groups", {})))
