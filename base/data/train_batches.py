"""The training batches of a run, pass after pass over the data, from any sample on."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset

from base.counters import Counters
from base.data.sampler import has_length
from utils.batches import after_samples, num_samples, shapes
from utils.devices.processes import num_processes
from utils.errors import RunError
from utils.rng import RandomState, preserved

logger = logging.getLogger(__name__)


class TrainBatches:
    """Draws the batches of an epoch; with ``len_epoch`` a pass goes on in the next epoch.

    A loader with ``place(pass, skip_samples)``, as ``BaseDataLoader`` has it, jumps to where a run
    was stopped; one with ``state_dict`` and ``load_state_dict`` goes on from its own state. Any
    other is read anew up to there, with the random generators as they were when its pass began.

    Args:
        counters: say where to draw from; the caller counts each batch there when it is finished.

    Attributes:
        size: that ``count`` gave last. is_own_count: whether it knew of this process's samples only.
        seconds_waited: for the loader, so far. num_drawn: batches that this process trained on.
        num_samples: in them, of all processes; the caller counts them.
    """

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.is_own_count, self.size = False, 0
        self.seconds_waited = 0.0
        self.num_drawn = self.num_samples = 0
        self._iterator: Iterator[Any] | None = None
        self._peeked: Any = None  # a batch that was read already, or self for none
        self._num_left: int | None = None  # batches of the pass, where that is known
        self._setup: dict[str, int] = {}  # on which the order of an iterable data set depends
        # random generators at the start of a pass, for a loader that cannot jump; between two
        # passes those of the loader alone
        self._start_of_pass: dict[str, Any] | None = None
        self._loader: Any = None
        self._loader_state: dict[str, Any] = {}

    def draw(self, loader: Any, len_epoch: int | None) -> Iterator[Any]:
        """Batches until the epoch has ``len_epoch`` finished ones; None: until the pass ends, which
        an epoch before may have begun.

        Raises:
            RunError: the data has no batch, or the place of a stop is not to be found in it.
        """
        while len_epoch is None or self.counters.batch < len_epoch:
            if self._iterator is None:
                self._iterator = self._begin(loader)
            start = time.perf_counter()
            batch, self._peeked = self._peeked, None
            if batch is None:
                batch = next(self._iterator, self)
            self.seconds_waited += time.perf_counter() - start
            if batch is not self:
                self.num_drawn += 1
                self._num_left = None if self._num_left is None else self._num_left - 1
                yield batch
                continue
            if self.counters.samples == 0:
                raise RunError("the training data has no batch; is the batch size larger than the "
                               "data, with drop_last?")
            self.end_pass()
            if len_epoch is None and self.counters.batch:
                return

    def has_more(self, loader: Any) -> bool:
        """Whether the pass has another batch; where nobody knows, it is read."""
        if self._iterator is None:
            self._iterator = self._begin(loader)
        if self._num_left is not None:
            return self._num_left > 0
        if self._peeked is None:
            self._peeked = next(self._iterator, self)
        return self._peeked is not self

    def end_pass(self) -> None:
        """The next batch is the first of a new pass over the data."""
        self._iterator = self._start_of_pass = self._peeked = None
        self.counters.finish_pass()

    def is_last(self, len_epoch: int | None) -> bool:
        """Whether the epoch is known to have no batch after the one that was just finished."""
        return self._num_left == 0 if len_epoch is None else self.counters.batch >= len_epoch

    def is_last_drawn(self, len_epoch: int | None) -> bool:
        """The same of the batch that was drawn and is not finished yet."""
        return self._num_left == 0 if len_epoch is None else self.counters.batch + 1 >= len_epoch

    def num_in_epoch(self, loader: Any, len_epoch: int | None) -> int | None:
        """Batches of the epoch, those that are finished included, or None if nobody knows."""
        if len_epoch is not None:
            return len_epoch
        left = self._count_left(loader) if self._iterator is None else self._num_left
        return None if left is None else self.counters.batch + left

    def count(self, loader: Any, batch: Any) -> int:
        """Samples of a batch, as they are counted to find the place again."""
        size = loader.size_of_batch(self.counters.samples) if (
            hasattr(loader, "size_of_batch")) else None
        self.is_own_count = size is None
        self.size = size or num_samples(batch)
        return self.size

    def tell_miscount(self, loader: Any, batch: Any) -> None:
        """That the first batch of a run is not counted as the loader made it."""
        size = None if self.is_own_count else self.size
        sampler: Any = getattr(loader, "sampler", None)
        if size is None and self.counters.samples == 0 and has_length(sampler):
            size = min(getattr(loader, "batch_size", None) or 0, len(sampler))
        if size and num_processes() == 1 and num_samples(batch) != size:
            logger.warning("a batch that was made of %d samples, %s, is taken for one of %d, and "
                           "the means over batches are weighted by that: say how many a batch has "
                           "by num_samples in trainer/trainer.py", size, shapes(batch),
                           num_samples(batch))

    def state_dict(self) -> dict[str, Any]:
        start, loader = self._start_of_pass, self._loader
        if start is None and loader is not None and not hasattr(loader, "place"):
            start = {"states": states_of(loader)}
        # the state of another's loader at the end of a pass would be an end to stay
        has_state = hasattr(loader, "load_state_dict") and (
            hasattr(loader, "place") or self._iterator is not None)
        return {"setup": self._setup, "start_of_pass": start,
                "loader": loader.state_dict() if has_state else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._setup, self._start_of_pass = state["setup"], state["start_of_pass"]
        self._loader_state = state.get("loader", {})

    def _begin(self, loader: Any) -> Iterator[Any]:
        """An iterator from the place on that the counters say."""
        self._num_left = self._count_left(loader)
        if _is_stream(loader):
            self._check_stream(loader)
        self._loader = loader
        loader_state, self._loader_state = self._loader_state, {}
        if loader_state:
            loader.load_state_dict(loader_state)
        if hasattr(loader, "place"):
            loader.place(self.counters.passes, self.counters.samples)
            return iter(loader)
        start, self._start_of_pass = self._start_of_pass, None
        if start is not None:
            set_states(loader, start["states"])
        if loader_state:
            return iter(loader)
        if self.counters.samples == 0 or start is None or "random" not in start:
            self._start_of_pass = {"random": RandomState().state_dict(),
                                   "states": states_of(loader)}
            return after_samples(iter(loader), self.counters.samples)
        self._start_of_pass = start
        logger.warning("reading %d samples again to get to where the run was stopped: their order "
                       "is as it was%s; a loader derived from BaseDataLoader jumps there and is "
                       "exact", self.counters.samples, " if the data set repeats itself" if (
                           _is_stream(loader)) else ", random augmentation may not be")
        with preserved():
            RandomState().load_state_dict(start["random"])
            batches = after_samples(iter(loader), self.counters.samples)
            first = next(batches, None)
        return iter(()) if first is None else _with_first(first, batches)

    def _count_left(self, loader: Any) -> int | None:
        if hasattr(loader, "num_batches"):
            return loader.num_batches(self.counters.samples)
        count = num_batches(loader)
        done = self.counters.batch if self.counters.samples else 0
        return None if count is None else max(count - done, 0)

    def _check_stream(self, loader: Any) -> None:
        """What holds for an iterable data set: its order is that of its workers' batches.

        Raises:
            RunError: in the middle of a pass another order would repeat samples or leave some out.
        """
        setup = {"num_workers": max(loader.num_workers, 1), "batch_size": loader.batch_size}
        if not self._setup:
            logger.info("iterable data set: its order depends on num_workers (%d here)",
                        loader.num_workers)
        elif self.counters.samples and setup != self._setup and (
                max(setup["num_workers"], self._setup["num_workers"]) > 1):
            raise RunError(f"the run was stopped in the middle of an iterable data set, read with "
                           f"{self._setup}; with {setup} some samples would come twice and others "
                           "not at all. Resume with the former, or from an epoch's checkpoint")
        self._setup = setup


def generators_of(loader: Any) -> list[torch.Generator]:
    """Those that a loader of torch's and its samplers draw from, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = [loader, getattr(loader, "sampler", None), batch_sampler,
              getattr(batch_sampler, "sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def states_of(loader: Any) -> dict[str, Any]:
    """The states of a loader's own random generators, and of its data set, if it has one."""
    dataset: Any = getattr(loader, "dataset", None)
    return {"generators": [generator.get_state() for generator in generators_of(loader)],
            "dataset": dataset.state_dict() if hasattr(dataset, "load_state_dict") else None}


def set_states(loader: Any, states: dict[str, Any]) -> None:
    """Sets them back to where they were."""
    for generator, state in zip(generators_of(loader), states["generators"], strict=False):
        generator.set_state(state)
    if states["dataset"] is not None:
        loader.dataset.load_state_dict(states["dataset"])


def num_batches(loader: Any) -> int | None:
    """How many a pass over a loader's data has; None where that is not known."""
    if hasattr(loader, "num_batches"):
        return loader.num_batches()
    return None if _is_stream(loader) or not has_length(loader) else len(loader)


def _is_stream(loader: Any) -> bool:
    return isinstance(getattr(loader, "dataset", None), IterableDataset)


def _with_first(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others
