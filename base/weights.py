"""Weights of a model from a checkpoint: all of them, or those that fit."""

import logging
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

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
    _load(model, state, source)


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
    _load(model, fitting, source)
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


def _load(model: nn.Module, state: dict[str, Any], source: str) -> None:
    try:
        model.load_state_dict(state, strict=False)
    except (RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"{source}: its weights cannot be copied into this "
                              f"{type(model).__name__} ({str(error).splitlines()[-1].strip()})"
                              ) from error


def _report(missing: list[str], unexpected: list[str], mismatched: list[str]) -> str:
    def some(keys: list[str]) -> str:
        return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")

    return "; ".join(f"{label}: {some(keys)}" for label, keys in (
        ("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)) if keys)
