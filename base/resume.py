"""What a resumed run takes from its checkpoint, and what its config has changed since."""

import logging
import math
from typing import Any

import torch

from base.stateful import as_part, restore
from utils.errors import CheckpointError

logger = logging.getLogger(__name__)


def resume_optimizer(optimizer: Any, checkpoint: dict[str, Any], config: dict[str, Any]) -> None:
    """Restores the optimizer (or a dict or list of them), and what the config has changed of it.

    Raises:
        CheckpointError: the state is of other parameters.
    """
    part, state = as_part(optimizer), checkpoint.get("optimizer")
    before = _config_of(checkpoint, config)
    if part is None or state is None:
        return
    if changed_type(before, config, "optimizer"):
        logger.warning("the optimizer is another one than in the checkpoint: it starts anew")
        return
    try:
        part.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise CheckpointError("the checkpoint's optimizer does not fit this run's parameters "
                              f"({error}); was the model or a freeze changed?") from error
    changes = changed_args(before, config, "optimizer")
    if changes and isinstance(optimizer, torch.optim.Optimizer):
        change_optimizer(optimizer, changes, _args(before, "optimizer").get("lr"))


def resume_parts(parts: dict[str, Any], checkpoint: dict[str, Any], config: dict[str, Any],
                 optimizer: Any) -> None:
    """Restores all parts but the optimizer, and what the config has changed of the scheduler.

    Raises:
        CheckpointError: other parts than the checkpoint has.
    """
    states, before = dict(checkpoint["parts"]), _config_of(checkpoint, config)
    parts = {name: part for name, part in parts.items() if name != "optimizer"}
    if changed_type(before, config, "lr_scheduler"):
        logger.warning("lr_scheduler is another one than in the checkpoint: it starts anew")
        parts.pop("lr_scheduler", None)
        states.pop("lr_scheduler", None)
    scheduler = parts.get("lr_scheduler")
    built = dict(vars(scheduler)) if scheduler is not None else {}
    restore(parts, states)
    changes = changed_args(before, config, "lr_scheduler")
    if scheduler is not None and (changes or changed_args(before, config, "optimizer")):
        change_scheduler(scheduler, built, changes, optimizer)


def changed_type(old: dict[str, Any], new: dict[str, Any], section: str) -> bool:
    """Whether the section names another class than before, so that old state is of no use."""
    before, after = ((config.get(section) or {}) for config in (old, new))
    return isinstance(before, dict) and isinstance(after, dict) and (
        before.get("type") != after.get("type"))


def changed_args(old: dict[str, Any], new: dict[str, Any], section: str) -> dict[str, Any]:
    """Arguments of a section that differ, with their new values."""
    before, after = _args(old, section), _args(new, section)
    return {key: value for key, value in after.items()
            if key not in before or before[key] != value}


def change_optimizer(optimizer: torch.optim.Optimizer, args: dict[str, Any],
                     old_lr: float | None) -> None:
    """Lets changed arguments take effect on an optimizer whose state was restored.

    A schedule keeps its place: a group whose lr has fallen to a tenth of the old initial lr gets a
    tenth of the new one.
    """
    for key, value in args.items():
        touched = False
        for group in optimizer.param_groups:
            if key not in group:
                continue
            if key == "lr":
                initial = group.get("initial_lr", old_lr)
                if old_lr is None or not math.isclose(initial, old_lr):
                    continue  # set by a schedule or per group, not by this argument
                group["lr"] = value * (group["lr"] / old_lr) if old_lr else value
                if "initial_lr" in group:
                    group["initial_lr"] = value
            else:
                group[key] = tuple(value) if isinstance(value, list) else value
            touched = True
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
        if key in built and key in vars(scheduler):
            setattr(scheduler, key, built[key])
        else:
            logger.warning("lr_scheduler.args.%s=%s has no effect on this resumed run: the "
                           "schedule is under way", key, args[key])
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [group.get("initial_lr", group["lr"])
                              for group in optimizer.param_groups]


def _config_of(checkpoint: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
    config = checkpoint.get("config")
    return config if isinstance(config, dict) else otherwise


def _args(config: dict[str, Any], section: str) -> dict[str, Any]:
    part = config.get(section)
    return (part.get("args") or {}) if isinstance(part, dict) else {}
