"""Weights of a model from a checkpoint: all of them, or those that fit; and frozen ones."""

import logging
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from base.checkpoint.shards import read_shards
from utils.devices.parallel import unwrap_model
from utils.devices.sharding import class_name, placed_state
from utils.errors import CheckpointError, ConfigError
from utils.runs.find_checkpoint import find_checkpoint, newest_run

logger = logging.getLogger(__name__)
WRAPPERS = ("module.", "_orig_mod.")


def start_from(model: nn.Module, config: Any) -> None:
    """Weights for a new run from ``init_from``, and the parameters that ``freeze`` names fixed.

    Raises:
        CheckpointError: ``init_from`` cannot be read, or nothing in it fits.
        ConfigError: a pattern of ``freeze`` names no parameter.
    """
    source = config.run.init_from
    if source and config.resume is None:
        path = newest_run(Path(config.trainer.save_dir), config.run.name) if (
            source == "latest") else Path(source)
        path, checkpoint = find_checkpoint(path, best_first=True)
        kept = {key: value for key, value in checkpoint.items() if key in ("state_dict", "shards")}
        load_partly(model, read_shards(kept, path)["state_dict"], str(path))
    names = [name for name, _ in model.named_parameters()]
    for pattern in config.run.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"freeze: {pattern!r} names no parameter; there are: "
                              f"{', '.join(names[:20])}")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in config.run.freeze):
            parameter.requires_grad_(False)


def load_weights(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Loads a whole state into the bare model, as torch does; wrappers' prefixes do not matter.

    Raises:
        CheckpointError: it is of another model.
    """
    model = unwrap_model(model)
    try:
        model.load_state_dict(placed_state(bare_keys(state, model.state_dict()), model))
    except (RuntimeError, NotImplementedError, KeyError) as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:4]) or str(error)
        raise CheckpointError(
            f"{source}: is of another model than this {class_name(model)}: {reasons[:500]}. "
            "To start a run from the weights that fit, use --init-from instead of --resume"
        ) from error


def load_partly(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Loads what fits by name and shape, and reports the rest.

    Raises:
        CheckpointError: nothing fits.
    """
    model = unwrap_model(model)
    own = model.state_dict()
    state = bare_keys(state, own)
    fitting = {key: value for key, value in state.items() if key in own
               and getattr(value, "shape", None) == getattr(own[key], "shape", None)}
    rest = "; ".join(f"{label}: {_some(keys)}" for label, keys in (
        ("missing", [key for key in own if key not in state]),
        ("unexpected", [key for key in state if key not in own]),
        ("of another shape", [key for key in state if key in own and key not in fitting])) if keys)
    if not fitting:
        raise CheckpointError(f"{source}: nothing in it fits this {type(model).__name__}: {rest}")
    try:
        model.load_state_dict(fitting, strict=False)
    except (RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"{source}: its weights cannot be copied into this "
                              f"{type(model).__name__} ({str(error).splitlines()[-1].strip()})"
                              ) from error
    logger.info("weights from %s: loaded %d of %d%s", source, len(fitting), len(own),
                f"; {rest}" if rest else "")


def bare_keys(state: dict[str, Any], own: dict[str, Any] | None = None) -> dict[str, Any]:
    """Keys as the bare model has them, if all of them carry the prefix of a wrapper.

    Args:
        own: the model's keys; a prefix that these have as well is a name, not a wrapper's.
    """
    for prefix in WRAPPERS:
        is_name = any(key.startswith(prefix) for key in own or ())
        if state and not is_name and all(key.startswith(prefix) for key in state):
            return bare_keys({key[len(prefix):]: value for key, value in state.items()}, own)
    return state


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
