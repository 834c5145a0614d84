"""What the trainers of several processes do together."""

import time
from typing import Any

from torch import nn
from torch.utils.data.distributed import DistributedSampler

from base.checkpoint.host_copy import copy_to_host
from base.checkpoint.shards import write_shards
from base.checkpoint.state import KeyPath, networks_in
from base.evaluation import Copies
from base.optimizers import each, other_optimizers
from base.updates import parameters_of
from utils.devices.processes import (
    Exchange,
    by_main,
    from_main,
    gathered,
    gathered_by_main,
    is_main_process,
    num_processes,
    rank,
)
from utils.devices.reduction import BeforeStep, Overlapped, Reduction, Sharded
from utils.devices.sharding import check_all_divided, is_sharded, whole_state
from utils.devices.shared_weights import (
    broadcast_state,
    broadcast_tensors,
    check_equal_weights,
)
from utils.errors import ConfigError
from utils.rng import mix_seed, set_seed

TELL_SECONDS = 0.25  # from one question whether to stop to the next


class BatchExchange:
    """What the processes tell each other at a batch, while they compute: whether to stop, and how
    many samples each has, where nobody can know that of the others.

    Only the latter has to be told at each batch; the former is told a few times a second.

    Args:
        stop: gets what they agree on.

    Attributes:
        needs_counts: whether ``share`` will be asked for.
        networks: whose buffers are the main process's at each batch.
    """

    def __init__(self, stop: Any) -> None:
        self.stop = stop
        self.needs_counts = False
        self.networks: list[Any] = []
        self._exchange = Exchange()
        self._every, self._left = 1, 0  # batches from one exchange to the next, and now
        self._since = time.monotonic()
        self._own = self._size = 0
        self._is_own_count = self._is_on = False

    def begin(self, own: int, size: int, *, is_own_count: bool) -> None:
        """A batch comes.

        Args:
            own: samples here. size: those of all processes or, with ``is_own_count``, a count of
                those here by which its place is found again.
        """
        for network in self.networks:
            broadcast_state(network, buffers_only=True)
        self._own, self._size, self._is_own_count = own, size, is_own_count
        self._is_on = is_own_count or self.needs_counts or self._left == 0
        if not self._is_on:
            self._left -= 1
            return
        now = time.monotonic()
        seconds, self._since = (now - self._since) / self._every, now  # of a batch
        every = min(max(int(TELL_SECONDS / max(seconds, 1e-9)), 1), 1000)
        self._exchange.begin(own, size, self.stop.code, every)

    def share(self) -> float:
        """Of the samples that all processes have in this batch, the part that is here."""
        own, total = self.counts()
        return own / total

    def counts(self) -> tuple[int, int]:
        """The samples of this batch here, and in all processes."""
        return self._own, sum(row[0] for row in self._exchange.end())

    def end(self) -> int:
        """The batch is done; its size, of all processes."""
        if self._is_on:
            rows = self._exchange.end()
            self.stop.agreed = max(code for _, _, code, _ in rows)
            if self._is_own_count:
                return sum(size for _, size, _, _ in rows)
            if not self.needs_counts:  # else it is each batch
                self._every = rows[0][3]
                self._left = self._every - 1
        return self._size


def reduction_of(trainer: Any, settings: Any) -> Reduction:
    """How gradients come together. By DistributedDataParallel they do so while they are computed,
    if each batch makes one step of one optimizer, else before a step."""
    if num_processes() == 1:
        return Reduction()
    model, exchange = trainer.model, trainer._exchange

    def parameters() -> list[nn.Parameter]:
        return [one for _, part in each(trainer.optimizer) for one in parameters_of(part)]

    is_simple = settings.accumulate == 1 and not isinstance(trainer.optimizer, (dict, list, tuple))
    is_wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    if is_sharded(model):
        reduction: Reduction = Sharded(model, exchange.counts)
    elif is_wrapped and is_simple:
        reduction = Overlapped(model, exchange.share)
    else:
        reduction = BeforeStep(parameters, *([model.no_sync] if is_wrapped else []))
    exchange.needs_counts = reduction.needs_counts
    return reduction


def check_shared(label: str, loader: Any) -> None:
    """Whether each of several processes gets its share of a loader's data.

    Raises:
        ConfigError: each gets all of it, or a share of a share.
    """
    if num_processes() == 1 or isinstance(loader, (list, Copies)):
        return
    if not hasattr(loader, "keeps_all"):
        raise ConfigError(f"{label}: a {type(loader).__name__} gives each of the several processes "
                          "all of the data; derive it from BaseDataLoader, which gives each its "
                          "share")
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        raise ConfigError(f"{label}: its DistributedSampler gives each process a share, of which "
                          "BaseDataLoader gives it a share again; leave the sampler out")
    count = getattr(loader, "n_samples", None)
    if count is not None and count < num_processes():
        raise ConfigError(f"{label}: has fewer samples ({count}) than there are processes "
                          f"({num_processes()})")


def take_part(trainer: Any) -> None:
    """The same weights as the main process, and other random numbers."""
    if num_processes() == 1:
        return
    networks = networks_in(trainer._parts())
    for network in networks.values():
        broadcast_state(network)
    trained = trained_in(trainer, networks)
    if is_sharded(trainer.model):
        check_all_divided(trained)
    broadcast_tensors([*trained.values()])
    # an average is computed from the weights, in each alike
    trainer._exchange.networks = [one for name, one in networks.items() if name != "average"]
    scaler = trainer.updates.scaler
    # DistributedDataParallel sums gradients that have its scale; else each undoes its own before
    if scaler is not None and isinstance(trainer.updates.reduction, Overlapped):
        scaler.load_state_dict(from_main(scaler.state_dict()))
    if rank() > 0:  # a resume restores them
        set_seed(mix_seed(trainer.config.run.seed, rank(), trainer.counters.step) % 2**32)


def agreed_log(trainer: Any, log: dict[str, Any]) -> dict[str, Any]:
    """The main process's log, by which all go on; and whether all stop."""
    if num_processes() == 1:
        return log
    logs, codes = zip(*gathered((log, trainer.stop.code)), strict=True)
    trainer.stop.agreed = max(codes)
    names = [name for name in logs[0] if len({repr(one.get(name)) for one in logs}) > 1]
    if names and is_main_process():
        trainer.logger.warning(
            "%s: differs between the processes, of which each saw its share of the data; shown is "
            "the main one's. Means of all are logged by self.train_metrics.update(name, value, n) "
            "and self.valid_metrics.update", ", ".join(names))
    return logs[0]


def trained_in(trainer: Any, networks: dict[str, Any]) -> dict[str, Any]:
    """All parameters of networks and of optimizers, each once, by a name."""
    found = {id(one): (f"{name}.{key}", one) for name, network in networks.items()
             for key, one in network.named_parameters()}
    optimizers = [*each(trainer.optimizer),
                  *((f"other {index}", one) for index, one in enumerate(
                      other_optimizers(vars(trainer))))]
    for name, optimizer in optimizers:
        for index, one in enumerate(parameters_of(optimizer)):
            found.setdefault(id(one), (f"optimizer {name}, parameter {index}", one))
    return dict(found.values())


def bring_together(trainer: Any, state: dict[str, Any], parts: dict[str, Any],
                   finite: list[KeyPath]) -> dict[str, Any]:
    """What the main process has to write of a checkpoint: weights that are divided whole, and the
    parts that each process has of its own. With ``sharded_checkpoints`` each writes what it has of
    the former itself, here.

    Args:
        finite: what in ``state`` must be finite to be saved.

    Raises:
        CheckpointError: a process could not write.
        RunError: the weights of the processes differ, or are not finite.
    """
    if num_processes() > 1:
        check_equal_weights(trained_in(trainer, networks_in(parts)))
        if trainer.settings.sharded_checkpoints and is_sharded(trainer.model):
            by_main(trainer.saver.wait)
            state = write_shards(state, trainer.checkpoint_dir, finite)
        else:
            state = whole_state(state)
        state["rank_parts"] = gathered_by_main(copy_to_host(state["rank_parts"][0]))
    return state
