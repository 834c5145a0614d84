"""The seed of random augmentation: each batch is fetched from a seed of its own."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset, Subset
from torch.utils.data.dataloader import default_collate

from utils.rng import seeded


class SeededBatch(list[int]):
    """The indices of a batch, and the seed that fetching it starts from.

    Travels to the loader's workers, which know neither the epoch nor how many batches there were.
    """

    def __init__(self, indices: Sequence[int], seed: int) -> None:
        super().__init__(indices)
        self.seed = seed

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededBatch, (list(self), self.seed)


class SeededDataset(Dataset[Any]):
    """Fetches and collates whole batches; all that draws random numbers starts from their seed.

    Args:
        dataset: with ``__getitems__`` for a whole batch, or ``__getitem__`` for each sample. One
            whose ``is_random`` is false draws no random numbers, and is spared the seeding; one
            with ``fetches_batches`` gives whole batches, which need no collating.
        collate_fn: makes a batch of what was fetched.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any]) -> None:
        is_collated = _whole(dataset, "fetches_batches", False) and collate_fn is default_collate
        self.dataset = dataset
        self.collate_fn = as_fetched if is_collated else collate_fn
        self._is_random = _whole(dataset, "is_random", True) or (
            collate_fn not in (as_fetched, default_collate))

    def __getitems__(self, indices: Any) -> Any:
        if not self._is_random:
            return self._fetch(indices)
        with seeded(indices.seed):
            return self._fetch(indices)

    def _fetch(self, indices: Sequence[int]) -> Any:
        if callable(getattr(self.dataset, "__getitems__", None)):
            return self.collate_fn(self.dataset.__getitems__(indices))
        return self.collate_fn([self.dataset[index] for index in indices])

    def __len__(self) -> int:
        return len(self.dataset)


def _whole(dataset: Any, name: str, default: bool) -> bool:
    """What a data set, or that which it is a ``Subset`` of, says of itself."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return getattr(dataset, name, default)


def as_fetched(batch: Any) -> Any:
    """A ``collate_fn`` for data that comes as whole batches."""
    return batch
