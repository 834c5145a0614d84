"""What a run takes from a checkpoint, and what its config has changed since."""

import logging
import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import CheckpointError, ConfigError
from utils.parallel import unwrap_model
from utils.run_folder import find_checkpoint

logger = logging.getLogger(__name__)
WRAPPERS = ("module.", "_orig_mod.")


def start_from(model: nn.Module, config: Any) -> None:
    """Weights for a new run from ``init_from``, and the parameters that ``freeze`` names fixed.

    Raises:
        CheckpointError: ``init_from`` cannot be read, or nothing in it fits.
        ConfigError: a pattern of ``freeze`` names no parameter.
    """
    if config.run.init_from and config.resume is None:
        path, checkpoint = find_checkpoint(Path(config.run.init_from), best_first=True)
        load_partly(model, checkpoint["state_dict"], str(path))
    names = [name for name, _ in model.named_parameters()]
    for pattern in config.run.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"freeze: {pattern!r} names no parameter; there are: "
                              f"{', '.join(names[:20])}")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in config.run.freeze):
            parameter.requires_grad_(False)


def load_weights(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Loads a whole state into the bare model; wrappers' prefixes in the keys do not matter.

    Raises:
        CheckpointError: missing, unexpected or mismatched keys; the model is unchanged.
    """
    model = unwrap_model(model)
    state = bare_keys(state)
    missing, unexpected, mismatched = compare_keys(model, state)
    if missing or unexpected or mismatched:
        raise CheckpointError(f"{source}: is of another model than this "
                              f"{type(model).__name__}: {_report(missing, unexpected, mismatched)}")
    model.load_state_dict(state)


def load_partly(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Loads what fits and reports the rest: the weights that a new run starts from.

    Raises:
        CheckpointError: nothing fits.
    """
    model = unwrap_model(model)
    state = bare_keys(state)
    missing, unexpected, mismatched = compare_keys(model, state)
    fitting = {key: value for key, value in state.items()
               if key not in unexpected and key not in mismatched}
    if not fitting:
        raise CheckpointError(f"{source}: nothing in it fits this {type(model).__name__}: "
                              f"{_report(missing, unexpected, mismatched)}")
    model.load_state_dict(fitting, strict=False)
    logger.info("weights from %s: loaded %d of %d%s", source, len(fitting),
                len(model.state_dict()), "" if len(fitting) == len(state) and not missing
                else f"; {_report(missing, unexpected, mismatched)}")


def compare_keys(model: nn.Module, state: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Keys that are missing in ``state``, unexpected in it, or of another shape."""
    own = model.state_dict()
    mismatched = [key for key, value in own.items() if key in state
                  and getattr(value, "shape", None) != getattr(state[key], "shape", None)]
    return ([key for key in own if key not in state], [key for key in state if key not in own],
            mismatched)


def bare_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Keys as the bare model has them, if all of them carry the prefix of a wrapper."""
    for prefix in WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            return bare_keys({key[len(prefix):]: value for key, value in state.items()})
    return state


def changed_type(old: dict[str, Any], new: dict[str, Any], section: str) -> bool:
    """Whether the section names another class than before, so that old state is of no use."""
    before, after = ((config.get(section) or {}) for config in (old, new))
    return isinstance(before, dict) and isinstance(after, dict) and (
        before.get("type") != after.get("type"))


def changed_args(old: dict[str, Any], new: dict[str, Any], section: str) -> dict[str, Any]:
    """Arguments of a section that differ, with their new values."""
    before, after = (((config.get(section) or {}).get("args") or {}) for config in (old, new))
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
            logger.warning("lr_scheduler.args.%s=%s has no effect on this resumed run: the schedule "
                           "is under way", key, args[key])
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [group.get("initial_lr", group["lr"])
                              for group in optimizer.param_groups]


def _report(missing: list[str], unexpected: list[str], mismatched: list[str]) -> str:
    def some(keys: list[str]) -> str:
        return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")

    return "; ".join(f"{label}: {some(keys)}" for label, keys in (
        ("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)) if keys)
