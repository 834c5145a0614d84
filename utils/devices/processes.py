"""Several processes of one run, as torchrun starts them."""

import os

from utils.errors import ConfigError


def refuse_several_processes() -> None:
    """Stops before several processes train the same thing into the same folder.

    Raises:
        ConfigError: this is one of several processes.
    """
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size not in ("", "0", "1"):
        raise ConfigError(f"expected one process, got {world_size} (torchrun): training in several "
                          "processes is not supported; start one and set n_gpu in the config")
