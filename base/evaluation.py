"""Validation: the data, and around it eval mode, no gradients, random streams left as they were."""

import contextlib
import copy
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from typing import Any

import torch
from torch import nn

from base.checkpoint.state import networks_in
from base.data.train_batches import generators_of, set_states, states_of
from utils.batches import num_samples
from utils.devices.parallel import without_processes
from utils.devices.precision import autocast
from utils.devices.processes import gathered
from utils.devices.sharding import is_sharded
from utils.devices.shared_weights import broadcast_state
from utils.rng import preserved


@contextlib.contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Puts the networks into eval mode, and each module back into the one it had."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        # no inference mode: what a model caches there could not be trained with
        with torch.no_grad(), preserved():
            for module, _ in modes:
                module.training = False
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@contextlib.contextmanager
def evaluating_on(trainer: Any, data_loader: Any) -> Iterator[None]:
    """Inside, the trainer has that data for validation, and the model by which it evaluates: the
    average of the weights, where there is one, computing as the config says."""
    if trainer._resumed is not None:  # not to be trained: whatever else the networks have
        trainer._resumed.give(trainer._parts())
    is_shared = hasattr(data_loader, "keeps_all")
    if is_shared:
        kept = data_loader.keeps_all, data_loader.must_be_even
        data_loader.keeps_all, data_loader.must_be_even = True, is_sharded(trainer.model)
    drawn_from = [(one, one.get_state()) for one in generators_of(data_loader)]
    previous, trainer.valid_data_loader = trainer.valid_data_loader, data_loader
    trainer.writer.step, trainer.writer.mode = trainer.counters.step, "valid"
    trained, trainer.model = trainer.model, without_processes(trainer.model) if (
        trainer.average is None) else trainer.average.module
    for network in networks_in(trainer._parts()).values():
        broadcast_state(network, buffers_only=True)
    try:
        with trainer.evaluation(), autocast(trainer.updates.precision, trainer.device):
            yield
    finally:
        trainer.valid_data_loader, trainer.model = previous, trained
        for generator, state in drawn_from:  # the same each time: epochs are compared
            generator.set_state(state)
        if is_shared:
            data_loader.keeps_all, data_loader.must_be_even = kept


def named_loaders(loaders: Any) -> list[tuple[str, Any]]:
    """(prefix of the names of its values, loader) of one data set (""), of several by name, or of
    none."""
    if isinstance(loaders, dict):
        return [(f"{name}_", loader) for name, loader in loaders.items()]
    return [] if loaders is None else [("", loaders)]


def first_batches(loaders: Any, count: int) -> Any:
    """The first batches of a loader, or of each of several by name; None of none. The loader's own
    random generators stay where they were."""
    if isinstance(loaders, dict):
        return {name: first_batches(loader, count) for name, loader in loaders.items()}
    if loaders is None:
        return None
    states = states_of(loaders)
    batches = list(islice(iter(loaders), count))
    set_states(loaders, states)
    return batches


class Copies:
    """Gives the same batches again and again, whatever a model does to them in place.

    Args:
        batches: of several processes, this one's; each has as many.
    """

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches
        sizes = gathered([num_samples(batch) for batch in batches])
        self._ends = [*accumulate(map(sum, zip(*sizes, strict=True)))]  # in samples of all
        self.place(0)

    def place(self, epoch: int, skip_samples: int = 0) -> None:
        """Says how many samples, of all processes, the next ``iter`` leaves out."""
        self._first = bisect_right(self._ends, skip_samples)

    def size_of_batch(self, first_sample: int) -> int:
        """Samples of the batch, of all processes, that begins with a sample."""
        return self._ends[bisect_right(self._ends, first_sample)] - first_sample

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        first = self._first
        self.place(0)
        return map(copy.deepcopy, self.batches[first:])
