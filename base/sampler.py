"""Which samples come in which batch: a function of (seed, epoch), placed by index."""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import Sampler

from utils.rng import mix_seed, seeded


class EpochSampler(Sampler[int]):
    """Goes through its samples in an order that follows from (seed, epoch) alone.

    Args:
        indices: of the samples in the data set.
        shuffle: whether each epoch has an order of its own.
        seed: of the orders.

    Attributes:
        epoch: the pass over the data that the next ``iter`` gives, from 0.
        skip_samples: how many of its samples the next ``iter`` leaves out.
    """

    def __init__(self, indices: Sequence[int], *, shuffle: bool, seed: int) -> None:
        self.indices = torch.as_tensor(indices, dtype=torch.int64)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.skip_samples = 0

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


class SeededBatch(list[int]):
    """The indices of a batch, and the seed that fetching it starts from.

    Travels to the loader's workers, which know neither the epoch nor how many batches there were.
    """

    def __init__(self, indices: Sequence[int], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededBatch, (list(self), self.seed)


class SeededBatchSampler(Sampler[list[int]]):
    """Cuts what a sampler gives into batches, each with a seed from (seed, epoch, batch).

    Args:
        sampler: an ``EpochSampler``, or any other, which then decides on its order alone.
        batch_size: samples per batch.
        drop_last: leave out a last batch that is not full.
        seed: of the fetches.

    Attributes:
        epoch, skip_batches: where the next ``iter`` starts.
    """

    def __init__(self, sampler: Any, batch_size: int, *, drop_last: bool, seed: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self.skip_batches = 0

    def __iter__(self) -> Iterator[list[int]]:
        skip_samples = self.skip_batches * self.batch_size
        if isinstance(self.sampler, EpochSampler):
            self.sampler.epoch, self.sampler.skip_samples = self.epoch, skip_samples
            indices = list(self.sampler)
        else:
            indices = self._foreign_order()[skip_samples:]
        # an iterator that is under way goes on undisturbed when another one is made
        return self._cut(indices, self.epoch, self.skip_batches)

    def _cut(self, indices: list[int], epoch: int, first_batch: int) -> Iterator[list[int]]:
        for start in range(0, len(indices), self.batch_size):
            batch = indices[start:start + self.batch_size]
            if len(batch) < self.batch_size and self.drop_last:
                return
            number = first_batch + start // self.batch_size
            yield SeededBatch(batch, mix_seed(self.seed, epoch, number))

    def _foreign_order(self) -> list[int]:
        """What another kind of sampler draws, made to follow from (seed, epoch) as well."""
        seed = mix_seed(self.seed, self.epoch)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(self.epoch)
        if isinstance(getattr(self.sampler, "generator", None), torch.Generator):
            self.sampler.generator.manual_seed(seed)
        with seeded(seed):
            return list(self.sampler)

    def __len__(self) -> int:
        samples = len(self.sampler)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)


class SeededDataset:
    """Fetches and collates whole batches, random augmentation starting from the batch's seed.

    Args:
        dataset: with ``__getitems__`` for a whole batch, or ``__getitem__`` for each sample. One
            whose ``is_random`` is false draws no random numbers, and is spared the seeding.
        collate_fn: makes a batch of what was fetched.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any]) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn

    def __getitems__(self, indices: SeededBatch) -> Any:
        if not getattr(self.dataset, "is_random", True):
            return self._fetch(indices)
        with seeded(indices.seed):
            return self._fetch(indices)

    def _fetch(self, indices: SeededBatch) -> Any:
        if callable(getattr(self.dataset, "__getitems__", None)):
            return self.collate_fn(self.dataset.__getitems__(indices))
        return self.collate_fn([self.dataset[index] for index in indices])

    def __len__(self) -> int:
        return len(self.dataset)


def as_fetched(batch: Any) -> Any:
    """A ``collate_fn`` for data that comes as whole batches."""
    return batch


def has_length(dataset: Any) -> bool:
    """Whether ``len(dataset)`` works."""
    try:
        return isinstance(dataset, Sized) and len(dataset) >= 0
    except (TypeError, NotImplementedError):
        return False
