"""The processes that torchrun started as one run."""

import contextlib
from collections.abc import Iterator
from typing import Any

from utils.devices.processes import from_main, joined
from utils.errors import ConfigError


@contextlib.contextmanager
def one_run(config: Any) -> Iterator[None]:
    """Inside, all processes talk to each other and have the main one's folder; one alone is left as
    it is.

    Raises:
        ConfigError: their configs differ.
        RunError: another process ended.
    """
    with joined(on_gpu=bool(config.run.n_gpu)):
        mine = config.config, config.resume
        first, config.folder = from_main((mine, config.folder))
        if first != mine:
            raise ConfigError("the processes read different configs or checkpoints")
        yield
