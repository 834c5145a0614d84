"""A loader with a validation split, whose batches follow from (seed, epoch, batch) alone."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import default_collate

from base.sampler import EpochSampler, SeededBatchSampler, SeededDataset, as_fetched, has_length
from utils.device import can_pin_memory
from utils.rng import mix_seed, seeded
from utils.signals import end_workers_at_exit, ignore_stop_signals


class BaseDataLoader(DataLoader[Any]):
    """Base class of all data loaders.

    The batches, random augmentation included, are the same for any ``num_workers`` (of an iterable
    data set: the same in each run), after any resume, and whatever else draws random numbers. Each
    ``iter`` is the next epoch.

    Args:
        dataset: one with a length, or an iterable one (no split, no shuffling, no jumps).
        batch_size: samples per batch.
        shuffle: an order of its own in each epoch.
        validation_split: ratio (float, 0.0 to 1.0) or number (int) of samples kept for validation.
        num_workers: processes that load; 0 loads in this one.
        collate_fn: makes a batch of samples.
        drop_last: leave out a last batch that is not full.
        sampler: decides on the order instead of ``shuffle``; not together with a split.
        indices: the samples of ``dataset`` to use; default all.
        seed: of order and augmentation; default the generator's, else torch's at this moment.
        split_seed: of the split, which is the same in every run.
        stratify: (samples,) a class for each sample; the split then keeps the classes' shares.
        valid_dataset: the same samples with other transforms, for the validation loader.
        valid_batch_size: of the validation loader, which keeps nothing for a backward pass and so
            has room for more; default ``batch_size``.
        options: further options of torch's DataLoader. ``persistent_workers`` is on where there are
            workers (off for an iterable data set), ``pin_memory`` where there is CUDA.

    Attributes:
        n_samples: of training, without those of validation.
        valid_sampler: of the validation samples, or None.

    Raises:
        ValueError: a split that leaves training or validation without samples; options that
            exclude each other; a data set without length and sampler.
    """

    def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False,
                 validation_split: float = 0.0, num_workers: int = 0,
                 collate_fn: Callable[[Any], Any] = default_collate, *, drop_last: bool = False,
                 sampler: Any = None, indices: Sequence[int] | None = None,
                 seed: int | None = None, generator: torch.Generator | None = None,
                 split_seed: int = 0, stratify: Sequence[Any] | None = None,
                 valid_dataset: Any = None, valid_batch_size: int | None = None,
                 worker_init_fn: Callable[[int], None] | None = None, **options: Any) -> None:
        if seed is None:
            seed = torch.initial_seed() if generator is None else generator.initial_seed()
        self.shuffle = shuffle
        self.validation_split = validation_split
        self.seed = seed
        self.valid_dataset = dataset if valid_dataset is None else valid_dataset
        self.valid_batch_size = valid_batch_size or batch_size
        self.valid_sampler: EpochSampler | None = None
        is_stream = isinstance(dataset, IterableDataset)
        # kept workers would go on with the random streams of the epoch before
        options.setdefault("persistent_workers", num_workers > 0 and not is_stream)
        options.setdefault("pin_memory", can_pin_memory())
        common = {"num_workers": num_workers, "worker_init_fn": functools.partial(
            _init_worker, worker_init_fn), **options}
        # a generator of its own: without one every iter() draws from the training's random stream
        own = torch.Generator() if generator is None else generator

        if is_stream:
            self._refuse_for_streams(sampler, indices, stratify)
            fetching: dict[str, Any] = {
                "dataset": dataset, "batch_size": batch_size, "drop_last": drop_last,
                "collate_fn": collate_fn}
        else:
            sampler = self._sampler(dataset, sampler, indices, split_seed, stratify)
            fetching = {
                "dataset": SeededDataset(dataset, collate_fn), "collate_fn": as_fetched,
                "batch_sampler": SeededBatchSampler(
                    sampler, batch_size, drop_last=drop_last, seed=seed)}
        counted = dataset if is_stream else sampler
        self.n_samples = len(counted) if has_length(counted) else None
        self.init_kwargs = {
            "dataset": dataset, "batch_size": batch_size, "collate_fn": collate_fn,
            "shuffle": shuffle and self.valid_sampler is None, **common}
        super().__init__(dataset, batch_size, sampler=sampler, collate_fn=collate_fn,
                         drop_last=drop_last, generator=own, **common)
        self._batches: DataLoader[Any] = DataLoader(generator=own, **fetching, **common)
        if num_workers:
            end_workers_at_exit()
        self.place(0)

    def place(self, epoch: int, skip_batches: int = 0) -> None:
        """Says where the next ``iter`` starts.

        Args:
            epoch: pass over the data, from 0.
            skip_batches: batches of it to leave out; none of their samples are read, except from
                an iterable data set, which has to be read up to there.
        """
        self._position = (epoch, skip_batches)

    def __iter__(self) -> Iterator[Any]:
        epoch, skip_batches = self._position
        self.place(epoch + 1)
        self._batches.generator.manual_seed(mix_seed(self.seed, epoch))
        if isinstance(self._batches.batch_sampler, SeededBatchSampler):
            batch_sampler = self._batches.batch_sampler
            batch_sampler.epoch, batch_sampler.skip_batches = epoch, skip_batches
            if self.num_workers or self.pin_memory:
                return iter(self._batches)
            # what torch's iterator does as well, without the 30 us that its profiling costs
            return map(self._batches.dataset.__getitems__, iter(batch_sampler))
        return itertools.islice(self._stream(epoch), skip_batches, None)

    def split_validation(self) -> "BaseDataLoader | None":
        """The loader of the validation samples, in a fixed order; None without a split."""
        if self.valid_sampler is None:
            return None
        return BaseDataLoader(**self.init_kwargs | {
            "dataset": self.valid_dataset, "batch_size": self.valid_batch_size,
            "seed": mix_seed(self.seed, -1), "indices": self.valid_sampler.indices.tolist()})

    def batch_indices(self, epoch: int, batch: int) -> list[int] | None:
        """The data set's indices of a batch of a pass (both from 0), where they are known."""
        if not isinstance(self.sampler, EpochSampler) or self.batch_size is None:
            return None
        order = self.sampler.order(epoch)
        return order[batch * self.batch_size:(batch + 1) * self.batch_size].tolist()

    def _sampler(self, dataset: Any, sampler: Any, indices: Sequence[int] | None, split_seed: int,
                 stratify: Sequence[Any] | None) -> Any:
        """The sampler that was given, or one of the training samples; sets ``valid_sampler``."""
        if sampler is not None:
            if self.shuffle or self.validation_split or indices is not None:
                raise ValueError("a sampler decides on samples and order by itself: give it "
                                 "without shuffle, validation_split and indices")
            return sampler
        if not has_length(dataset):
            raise ValueError(f"{type(dataset).__name__} has no length: define __len__, give a "
                             "sampler, or derive from torch.utils.data.IterableDataset")
        if stratify is not None and len(stratify) != len(dataset):
            raise ValueError(f"stratify needs a class for each of the {len(dataset)} samples, got "
                             f"{len(stratify)}")
        return self._split(len(dataset), indices, split_seed, stratify)

    def _split(self, num_samples: int, indices: Sequence[int] | None, split_seed: int,
               stratify: Sequence[Any] | None) -> EpochSampler:
        """Sets ``valid_sampler``; returns the sampler of the rest."""
        mine = np.arange(num_samples) if indices is None else np.asarray(indices)
        split = self.validation_split
        if isinstance(split, bool) or split < 0:
            raise ValueError("validation_split must be a ratio or a number of samples, got "
                             f"{split}")
        num_valid = split if isinstance(split, int) else int(len(mine) * split)
        if split and not 0 < num_valid < len(mine):
            raise ValueError(f"validation_split={split} of {len(mine)} samples gives {num_valid} "
                             "for validation; both parts need at least one sample")
        if not num_valid:
            return EpochSampler(mine, shuffle=self.shuffle, seed=self.seed)
        # the classic order of samples, so that old and new runs validate on the same ones
        shuffled = np.random.RandomState(split_seed).permutation(mine)
        if stratify is not None:
            shuffled = _spread_classes(shuffled, np.asarray(stratify))
        self.valid_sampler = EpochSampler(shuffled[:num_valid], shuffle=False, seed=self.seed)
        return EpochSampler(np.sort(shuffled[num_valid:]), shuffle=self.shuffle, seed=self.seed)

    def _refuse_for_streams(self, *given: Any) -> None:
        if self.validation_split or self.shuffle or any(item is not None for item in given):
            raise ValueError("an iterable data set cannot be split, shuffled or sampled here: "
                             "let it do that, and give validation a loader of its own")

    def _stream(self, epoch: int) -> Iterator[Any]:
        # workers have generators of their own, seeded by the loader's
        start_from = contextlib.nullcontext if self.num_workers else seeded
        with start_from(mix_seed(self.seed, epoch)):
            batches = iter(self._batches)
        for batch in itertools.count():
            with start_from(mix_seed(self.seed, epoch, batch)):
                item = next(batches, self)
            if item is self:
                return
            yield item


def _init_worker(user_init: Callable[[int], None] | None, worker_id: int) -> None:
    ignore_stop_signals()
    if user_init is not None:
        user_init(worker_id)


def _spread_classes(indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Reorders so that every beginning has each class in about its share of the whole."""
    own = classes[indices]
    place = np.empty(len(own))
    for label in np.unique(own):
        members = np.flatnonzero(own == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return indices[np.argsort(place, kind="stable")]
