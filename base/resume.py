"""What a resumed run takes from its checkpoint, and what its config has changed since."""

import logging
from typing import Any

import torch

from base.monitor import Monitor
from base.progress import Progress
from base.stateful import Parts, as_part, restore
from utils.errors import CheckpointError

logger = logging.getLogger(__name__)

# what schedulers keep in the optimizer's groups
SCHEDULED = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
# arguments of OneCycleLR and CyclicLR that are attributes by another name, or become part of one
PHASES = ("total_steps", "_schedule_phases")
ATTRIBUTES = {"max_lr": ("max_lrs",), **dict.fromkeys(
    ("total_steps", "epochs", "steps_per_epoch", "pct_start", "three_phase"), PHASES)}
IN_GROUPS = (*SCHEDULED, "div_factor", "final_div_factor")


def resume_counters(progress: Progress, monitor: Monitor, checkpoint: dict[str, Any],
                    source: str) -> None:
    """Restores how far the run was, and its best value; of the classic template's files as well.

    Raises:
        CheckpointError: counters are missing.
    """
    if "parts" in checkpoint:
        try:
            progress.load_state_dict(checkpoint["parts"]["progress"])
            monitor.load_state_dict(checkpoint["parts"]["monitor"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{source}: its counters are missing ({error}); use another "
                                  "checkpoint") from error
        return
    progress.epoch = progress.data_epoch = checkpoint.get("epoch", 0)
    if "monitor_best" in checkpoint and monitor.mode != "off":
        monitor.best = float(checkpoint["monitor_best"])
    logger.warning("%s is of an older layout: scheduler, random generators and patience start anew",
                   source)


def resume_optimizer(optimizer: Any, checkpoint: dict[str, Any], config: dict[str, Any]) -> None:
    """Restores the optimizer (or a dict or list of them), and what the config has changed of it.

    Of several, each has its section below ``optimizer``, or all share that one.

    Raises:
        CheckpointError: the state is of other parameters.
    """
    part, state = as_part(optimizer), checkpoint.get("optimizer")
    before = _config_of(checkpoint, config)
    if part is None or state is None:
        return
    optimizers = _members(part, "optimizer")
    if any(changed_type(before, config, section) for _, section in optimizers):
        logger.warning("the optimizer is another one than in the checkpoint: it starts anew")
        return
    built = [[dict(group) for group in getattr(one, "param_groups", [])] for one, _ in optimizers]
    try:
        part.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("the checkpoint's optimizer does not fit this run's parameters "
                              f"({error}); was the model or a freeze changed?") from error
    for (one, section), groups in zip(optimizers, built, strict=True):
        changes = changed_args(before, config, section)
        if groups and changes:
            change_optimizer(one, changes, _args(before, section).get("lr"), groups)
        schedule = section.replace("optimizer", "lr_scheduler", 1)
        if changed_type(before, config, schedule):  # begins where the config says
            _take(one, groups, ("lr", *SCHEDULED))
        elif changed_args(before, config, schedule):
            _take(one, groups, SCHEDULED)


def resume_parts(parts: dict[str, Any], checkpoint: dict[str, Any], config: dict[str, Any],
                 optimizer: Any) -> None:
    """Restores all parts but the optimizer, and what the config has changed of the scheduler.

    Raises:
        CheckpointError: other parts than the checkpoint has.
    """
    states, before = dict(checkpoint["parts"]), _config_of(checkpoint, config)
    parts = {name: part for name, part in parts.items() if name != "optimizer"}
    schedulers = _members(parts.get("lr_scheduler"), "lr_scheduler")
    if any(changed_type(before, config, section) for _, section in schedulers):
        logger.warning("lr_scheduler is another one than in the checkpoint: it starts anew")
        parts.pop("lr_scheduler", None)
        states.pop("lr_scheduler", None)
    if parts.get("lr_scheduler") is None:
        schedulers = []
    built = [dict(vars(scheduler)) for scheduler, _ in schedulers]
    restore(parts, states)
    for (scheduler, section), attributes in zip(schedulers, built, strict=True):
        changes = changed_args(before, config, section)
        lr_section = section.replace("lr_scheduler", "optimizer", 1)
        if changes or changed_args(before, config, lr_section):
            change_scheduler(scheduler, attributes, changes,
                             getattr(scheduler, "optimizer", optimizer))


def changed_type(old: dict[str, Any], new: dict[str, Any], section: str) -> bool:
    """Whether the section names another class than before, so that old state is of no use."""
    return _section(old, section).get("type") != _section(new, section).get("type")


def changed_args(old: dict[str, Any], new: dict[str, Any], section: str) -> dict[str, Any]:
    """Arguments of a section that differ, with their new values; None for those that are gone."""
    before, after = _args(old, section), _args(new, section)
    return {key: after.get(key) for key in {**before, **after}
            if key not in before or key not in after or before[key] != after[key]}


def change_optimizer(optimizer: torch.optim.Optimizer, args: dict[str, Any],
                     old_lr: float | None, built: list[dict[str, Any]]) -> None:
    """Lets changed arguments take effect on an optimizer whose state was restored.

    A schedule keeps its place: a group whose lr has fallen to a tenth of the old initial lr gets a
    tenth of the new one.

    Args:
        args: the arguments that have changed.
        old_lr: the config's, before.
        built: the groups as the config built them, before the restoring.
    """
    for key, value in args.items():
        touched = False
        for group, fresh in zip(optimizer.param_groups, built, strict=True):
            if key == "lr":
                new = fresh.get("initial_lr", fresh["lr"])
                old = group.get("initial_lr", (new == value and old_lr) or group["lr"])
                touched |= new != old
                if new != old:  # else set by a schedule or per group, not by this argument
                    group["lr"] = new * (group["lr"] / old) if old else new
                    group.update({"initial_lr": new} if "initial_lr" in group else {})
            elif key in group:
                touched |= group[key] != fresh[key]
                group[key] = fresh[key]
        if not touched:
            logger.warning("optimizer.args.%s=%s has no effect on this resumed run: its value was "
                           "set elsewhere (a schedule, parameter groups)", key, value)


def change_scheduler(scheduler: Any, built: dict[str, Any], args: dict[str, Any],
                     optimizer: torch.optim.Optimizer) -> None:
    """Lets changed arguments take effect on a scheduler whose state was restored.

    Args:
        built: its attributes as the config built them, before the restoring.
        args: the arguments that have changed.
        optimizer: its initial lrs become the scheduler's.
    """
    for key in args:
        names = [name for name in (key, *ATTRIBUTES.get(key, ())) if name in built]
        for name in names:
            setattr(scheduler, name, built[name])
        if not names and not (key in IN_GROUPS and "max_lr" in optimizer.param_groups[0]):
            logger.warning("lr_scheduler.args.%s=%s has no effect on this resumed run: the "
                           "schedule is under way", key, args[key])
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [group.get("initial_lr", group["lr"])
                              for group in optimizer.param_groups]


def _config_of(checkpoint: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
    config = checkpoint.get("config")
    return config if isinstance(config, dict) else otherwise


def _members(part: Any, section: str) -> list[tuple[Any, str]]:
    """Each optimizer or scheduler with the path of its section."""
    if isinstance(part, Parts):
        return [(one, f"{section}.{name}") for name, one in part.parts.items()]
    return [(part, section)]


def _take(optimizer: Any, built: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    for group, fresh in zip(getattr(optimizer, "param_groups", []), built, strict=True):
        group.update((key, fresh[key]) for key in keys if key in fresh)


def _section(config: dict[str, Any], path: str) -> dict[str, Any]:
    """The section at a dotted path, or the first one on the way that is built; else empty."""
    for key in path.split("."):
        config = config.get(key) or {}
        if not isinstance(config, dict):
            return {}
        if "type" in config:
            break
    return config


def _args(config: dict[str, Any], section: str) -> dict[str, Any]:
    args = _section(config, section).get("args")
    return args if isinstance(args, dict) else {}
