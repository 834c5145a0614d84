"""What the trainers of several processes do together."""

from typing import Any

from base.checkpoint.state import networks_in
from utils.devices.parallel import Reduction
from utils.devices.processes import (
    broadcast_state,
    check_equal_weights,
    gathered,
    gathered_by_main,
    num_processes,
    rank,
)
from utils.rng import mix_seed, set_seed


def reduction_of(trainer: Any, settings: Any) -> Reduction | None:
    """How gradients come together: while they are computed, if each batch makes one step of one
    optimizer, else before a step. None in one process."""
    if num_processes() == 1:
        return None
    is_simple = settings.accumulate == 1 and not isinstance(trainer.optimizer, (dict, list, tuple))
    return Reduction(trainer.model, trainer._share, is_on=is_simple)


def take_part(trainer: Any) -> None:
    """The same weights as the main process, and other random numbers."""
    networks = [*networks_in(trainer._parts()).values()]
    for network in networks:
        broadcast_state(network)
    if trainer.updates.reduction is not None:
        trainer.updates.reduction.networks = networks
    if rank() > 0:  # a resume restores them
        set_seed(mix_seed(trainer.config.run.seed, rank(), trainer.counters.step) % 2**32)


def agreed_log(trainer: Any, log: dict[str, Any]) -> dict[str, Any]:
    """The main process's log, by which all go on; and whether all stop."""
    if num_processes() == 1:
        return log
    logs, codes = zip(*gathered((log, trainer.stop.code)), strict=True)
    trainer.stop.agreed = max(codes)
    names = [name for name in logs[0] if len({repr(one.get(name)) for one in logs}) > 1]
    if names:
        trainer.logger.warning(
            "%s: differs between the processes, of which each saw its share of the data; shown is "
            "the main one's. Means of all are logged by self.train_metrics.update(name, value, n) "
            "and self.valid_metrics.update", ", ".join(names))
    return logs[0]


def gather_parts(state: dict[str, Any], networks: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's content with the parts that each process has of its own.

    Raises:
        RunError: the weights of the processes differ.
    """
    check_equal_weights(networks)
    state["rank_parts"] = gathered_by_main(state["rank_parts"][0])
    return state
