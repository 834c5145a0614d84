"""Which samples come in which batch: a function of (seed, pass), placed by sample."""

import itertools
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import Sampler

from base.data.seeded_dataset import SeededBatch
from utils.errors import RunError
from utils.rng import mix_seed, seeded


DRAWN_AT_ONCE = 256  # indices of another's sampler, from one seed


class EpochSampler(Sampler[int]):
    """Goes through its samples in an order that follows from (seed, epoch) alone.

    Args:
        indices: of the samples in the data set; may be assigned anew.
        shuffle: whether each epoch has an order of its own.
        seed: of the orders.

    Attributes:
        epoch: the pass over the data that the next ``iter`` gives, from 0.
        skip_samples: how many of its samples the next ``iter`` leaves out.
    """

    def __init__(self, indices: Any, *, shuffle: bool, seed: int) -> None:
        self.indices = indices
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.skip_samples = 0

    @property
    def indices(self) -> torch.Tensor:
        """(samples,) int64."""
        return self._indices

    @indices.setter
    def indices(self, indices: Any) -> None:
        self._indices = torch.as_tensor(indices, dtype=torch.int64)

    def order(self, epoch: int) -> torch.Tensor:
        """(samples,) int64: the data set's indices in the order of that pass."""
        if not self.shuffle:
            return self.indices
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return self.indices[torch.randperm(len(self.indices), generator=generator)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.epoch)[self.skip_samples:].tolist())

    def __len__(self) -> int:
        return len(self.indices)


class SeededBatchSampler(Sampler[list[int]]):
    """Cuts what a sampler gives into batches, each with a seed from (seed, epoch, first sample).

    Args:
        sampler: an ``EpochSampler``, or any other, which then decides on its order alone; it may
            be endless.
        batch_size: samples per batch.
        drop_last: leave out a last batch that is not full.
        seed: of the fetches.
        share: (n, of how many): of several processes, which each get their part of all batches
            that are read at once. A last one with fewer samples than processes is left out.
        keeps_all: it joins the one before, so that each process gets as many batches.

    Attributes:
        epoch, skip_samples: where the next ``iter`` starts.
    """

    def __init__(self, sampler: Any, batch_size: int, *, drop_last: bool, seed: int,
                 share: tuple[int, int] = (0, 1), keeps_all: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.share = share
        self.keeps_all = keeps_all
        self.epoch = 0
        self.skip_samples = 0

    def __iter__(self) -> Iterator[list[int]]:
        # an iterator that is under way goes on undisturbed when another one is made
        epoch, skip_samples = self.epoch, self.skip_samples
        if isinstance(self.sampler, EpochSampler):
            self.sampler.epoch, self.sampler.skip_samples = epoch, skip_samples
            indices = iter(self.sampler)
        else:
            indices = itertools.islice(self._foreign_order(epoch), skip_samples, None)
        return self._cut(indices, epoch, skip_samples)

    def _cut(self, indices: Iterator[int], epoch: int, first: int) -> Iterator[list[int]]:
        number, count = self.share
        start = first
        for batch in self._global_batches(indices):
            begin, end = (len(batch) * part // count for part in (number, number + 1))
            if begin < end:
                yield SeededBatch(batch[begin:end], mix_seed(self.seed, epoch, start + begin))
            start += len(batch)

    def _global_batches(self, indices: Iterator[int]) -> Iterator[list[int]]:
        """Those of all processes together."""
        size, count = self.global_size, self.share[1]
        batches = iter(lambda: list(itertools.islice(indices, size)), [])
        if self.drop_last:
            batches = (batch for batch in batches if len(batch) == size)
        if not self.keeps_all:
            yield from (batch for batch in batches if len(batch) >= count)
            return
        previous: list[int] = []
        for batch in batches:
            if previous and len(batch) >= count:
                yield previous
                previous = []
            previous = previous + batch
        if previous:
            yield previous

    def _foreign_order(self, epoch: int) -> Iterator[int]:
        """What another kind of sampler draws, made to follow from (seed, epoch) as well."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        if isinstance(getattr(self.sampler, "generator", None), torch.Generator):
            self.sampler.generator.manual_seed(mix_seed(self.seed, epoch))
        indices: Any = None
        for part in itertools.count():
            with seeded(mix_seed(self.seed, epoch, part)):
                indices = iter(self.sampler) if indices is None else indices
                drawn = list(itertools.islice(indices, DRAWN_AT_ONCE))
            if not drawn:
                return
            yield from drawn

    @property
    def global_size(self) -> int:
        """Samples of the batches of all processes together."""
        return self.batch_size * self.share[1]

    def num_batches(self, skip_samples: int = 0) -> int:
        """How many are left of a pass after so many of its samples.

        Raises:
            TypeError: the sampler has no length.
        """
        samples, (number, count) = max(len(self.sampler) - skip_samples, 0), self.share
        full, rest = divmod(samples, self.global_size)
        if self.drop_last:
            return full
        if full or not self.keeps_all:
            return full + (rest >= count)
        return int(rest * (number + 1) // count > rest * number // count)

    def __len__(self) -> int:
        return self.num_batches()


def has_length(thing: Any) -> bool:
    """Whether ``len(thing)`` works."""
    try:
        return isinstance(thing, Sized) and len(thing) >= 0
    except (TypeError, NotImplementedError):
        return False


def share_of(batches: Iterator[Any], share: tuple[int, int], *, keeps_all: bool,
             must_be_even: bool = False) -> Iterator[Any]:
    """Of each so many batches as there are processes the n-th. All of them are read before it is
    given, so that their data set is at the same place in each process.

    Args:
        share: (n, of how many).
        keeps_all: of a last group with fewer batches than processes the first of these get one;
            else it is left out. must_be_even: then that is an error.

    Raises:
        RunError: some would get a batch more than others.
    """
    number, count = share
    if count == 1:
        yield from batches
    for first in batches:
        group = [first, *itertools.islice(batches, count - 1)]
        if len(group) < count and keeps_all and must_be_even:
            raise RunError(f"an iterable data set ends with {len(group)} batches for {count} "
                           "processes, and the strategy fsdp2 needs as many in each to validate: "
                           "let its number of batches be a multiple of that")
        if len(group) == count or (keeps_all and number < len(group)):
            yield group[number]
