"""Makes a checkpoint of the classic template readable.

``python -m base.convert_checkpoint OLD NEW``. Such files hold a pickled ``ConfigParser``, which is
read without executing anything: the few names they contain stand for empty stand-ins here, and any
other name is refused.
"""

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base.weights import bare_keys
from utils.checkpoint_file import write_checkpoint
from utils.errors import CheckpointError, ConfigError, clean_exit


class OldConfig:
    """Stands in for the classic ConfigParser: takes its attributes, has no behaviour."""


def old_path(*parts: str) -> str:
    """Stands in for pathlib's classes."""
    return "/".join(part.rstrip("/") for part in parts)


STAND_INS = [
    (OldConfig, "parse_config.ConfigParser"),
    *((old_path, f"pathlib.{name}") for name in (
        "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")),
    *((old_path, f"pathlib._local.{name}") for name in ("PosixPath", "WindowsPath")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    OrderedDict,
]


def convert(old: Path, new: Path) -> dict[str, Any]:
    """Writes ``new`` with plain types only; ``old`` is left as it is.

    Raises:
        CheckpointError: ``old`` cannot be read, or holds more than a classic checkpoint does.
        ConfigError: ``new`` exists already.
    """
    if new.exists():
        raise ConfigError(f"{new}: exists already; choose another name")
    try:
        with torch.serialization.safe_globals(STAND_INS):
            checkpoint = torch.load(old, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{old}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        name = str(error).split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL " in str(error) else ""
        raise CheckpointError(f"{old}: refused, for it holds more than a classic checkpoint does "
                              f"({name or 'unknown content'}) and could execute code") from error
    except Exception as error:  # a damaged file fails anywhere inside torch's readers
        raise CheckpointError(f"{old}: not a checkpoint, or damaged "
                              f"({str(error).splitlines()[0][:200]})") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{old}: expected a checkpoint with the key 'state_dict'")
    state = {key: plain(value) for key, value in checkpoint.items()}
    state["state_dict"] = bare_keys(state["state_dict"])
    state.pop("format", None)
    new.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(new, state)
    return state


def plain(value: Any) -> Any:
    """Nested content with stand-ins and numpy's numbers as plain types."""
    if isinstance(value, OldConfig):
        # newer classics call it _config, older ones config
        return plain(vars(value).get("_config", vars(value).get("config", {})))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint of the classic template without executing its content.")
    parser.add_argument("old", type=Path, help="checkpoint to read")
    parser.add_argument("new", type=Path, help="checkpoint to write")
    arguments = parser.parse_args()
    with clean_exit():
        convert(arguments.old, arguments.new)
        print(f"written: {arguments.new}")
