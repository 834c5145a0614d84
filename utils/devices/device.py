"""Which device to train on."""

import functools
import logging
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from utils.devices.processes import local_rank, num_processes
from utils.errors import ConfigError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def choose_device(device: str) -> None:
    """Makes the GPUs named (``2,3``) the only ones, before CUDA starts; or none (cpu, mps).

    Raises:
        ConfigError: it is no device.
    """
    if not re.fullmatch(r"cpu|cuda|mps|\d+(,\d+)*", device):
        raise ConfigError(f"expected GPU numbers like 0 or 2,3, or cpu, cuda, mps, got {device!r}")
    if device != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if device in ("cpu", "mps") else device


def prepare_device(n_gpu_use: int, asked: str | None = None) -> "tuple[torch.device, list[int]]":
    """Chooses the device for ``n_gpu_use`` GPUs; with fewer present, warns and takes those.

    Args:
        n_gpu_use: 0 is the CPU. Without CUDA, 1 or more is Apple's GPU if there is one.
        asked: what ``--device`` names; it has to be there.

    Returns:
        The device to place the model on, and the ids of the GPUs to use: the first ones; of
        several processes on a machine each its own.

    Raises:
        ConfigError: what was asked for is not there; lists what is.
    """
    import torch

    if asked is not None:
        _check_there(asked)
    present = torch.cuda.device_count()
    if num_processes() > 1:  # each has one
        ids = [local_rank()] if n_gpu_use > 0 and present else []
        return torch.device("cuda", local_rank()) if ids else torch.device("cpu"), ids
    if n_gpu_use > 0 and not present and torch.backends.mps.is_available():
        return torch.device("mps"), []
    if n_gpu_use > present:
        _warn_once(n_gpu_use, present)
    ids = list(range(min(n_gpu_use, present)))
    return torch.device("cuda:0" if ids else "cpu"), ids


def can_pin_memory() -> bool:
    """Whether copies from pinned host memory are faster here: there is CUDA."""
    import torch

    return torch.cuda.is_available()


def peak_memory(device: "torch.device") -> int | None:
    """The most bytes that were used at once so far: of a GPU's memory by tensors, else by this
    process; None where that is not known."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _check_there(asked: str) -> None:
    import torch

    count, has_mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    is_there = {"cpu": True, "mps": has_mps, "cuda": count > 0}.get(
        asked, count == len(asked.split(",")))  # of GPUs, --device makes those asked for visible
    if not is_there:
        gpus = [str(number) for number in range(_num_gpus())]
        there = ["cpu", *["mps"] * has_mps, *["cuda"] * bool(gpus), *gpus]
        missing = [name for name in asked.split(",") if name not in there]
        raise ConfigError(f"--device {asked}: this machine has no {'GPU ' * asked[0].isdigit()}"
                          f"{', '.join(missing) or 'such devices'}; it has: {', '.join(there)}")


def _num_gpus() -> int:
    """Of the machine, whichever are visible here; CUDA would not look again in this process."""
    hidden = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", "import torch; print(torch.cuda.device_count())"],
                          env=hidden, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


@functools.cache
def _warn_once(wanted: int, present: int) -> None:
    logger.warning("n_gpu is %d, but this machine has %s: using %s", wanted,
                   f"only {present}" if present else "no usable GPU",
                   "those" if present else "the CPU")
