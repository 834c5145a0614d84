"""A loader with a validation split, whose batches follow from (seed, epoch, sample) alone."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import default_collate, default_convert

from base.data.sampler import EpochSampler, SeededBatchSampler, has_length, share_of
from base.data.seeded_dataset import SeededDataset, as_fetched
from base.data.split import check_labels, split_indices
from utils.batches import after_samples
from utils.devices.device import can_pin_memory
from utils.devices.processes import num_processes, rank
from utils.errors import ConfigError
from utils.rng import mix_seed, seeded
from utils.signals import end_workers_at_exit, init_worker


class BaseDataLoader(DataLoader[Any]):
    """Base class of all data loaders.

    The batches, random augmentation included, are the same for any ``num_workers`` (of an iterable
    data set: for the same number), after any resume, and whatever else draws random numbers. Each
    ``iter`` is the next epoch; several may be under way.

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
        groups: (samples,) a group for each sample, like a patient; the split then keeps the samples
            of one together.
        valid_dataset: the same samples with other transforms, for the validation loader.
        valid_batch_size: of the validation loader, which keeps nothing for a backward pass and so
            has room for more; default ``batch_size``.
        options: further options of torch's DataLoader. ``persistent_workers`` is on where there are
            workers (off for an iterable data set), ``pin_memory`` where there is CUDA.

    Attributes:
        keeps_all, must_be_even: how several processes share the samples (base/data/sampler.py).
        n_samples: of training, without those of validation; None where there is no length.
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
                 groups: Sequence[Any] | None = None, valid_dataset: Any = None,
                 valid_batch_size: int | None = None,
                 worker_init_fn: Callable[[int], None] | None = None, **options: Any) -> None:
        if seed is None:
            seed = torch.initial_seed() if generator is None else generator.initial_seed()
        self.shuffle = shuffle
        self.validation_split = validation_split
        self.seed = seed
        self.valid_dataset = dataset if valid_dataset is None else valid_dataset
        self.valid_batch_size = valid_batch_size or batch_size
        self.valid_sampler: Any = None
        self.is_stream = isinstance(dataset, IterableDataset)
        self.keeps_all = self.must_be_even = False
        self._share = rank(), num_processes()
        self._place_of_stream: dict[str, Any] = {}  # of one that has a state
        self._state: dict[str, Any] = {}  # where the next pass over it goes on
        if batch_size is None and not self.is_stream:
            raise ValueError("batch_size must be a number of samples; for data that comes as whole "
                             "batches, see InMemoryDataset")
        if self.is_stream and options.get("persistent_workers"):
            raise ValueError("persistent_workers=True: workers of an iterable data set would go on "
                             "with random numbers that depend on when they were started")
        if batch_size is None and collate_fn is default_collate:
            collate_fn = default_convert
        self._idle: list[DataLoader[Any]] = []
        # kept workers would go on with the random streams of the epoch before
        options.setdefault("persistent_workers", num_workers > 0 and not self.is_stream)
        options.setdefault("pin_memory", can_pin_memory())
        common = {"num_workers": num_workers, "worker_init_fn": functools.partial(
            init_worker, worker_init_fn), **options}

        if self.is_stream:
            self._refuse_for_streams(sampler, indices, stratify, groups)
            self.n_samples = len(dataset) if has_length(dataset) else None
        else:
            self._choice = (indices, split_seed, stratify, groups)
            sampler = self._sampler(dataset, sampler)
            self._fetching = SeededDataset(dataset, collate_fn)
        self.init_kwargs = {
            "dataset": dataset, "batch_size": batch_size, "collate_fn": collate_fn,
            "shuffle": shuffle and self.valid_sampler is None, **common}
        # a generator of its own: without one every iter() draws from the training's random stream
        super().__init__(dataset, batch_size, sampler=sampler, collate_fn=collate_fn,
                         drop_last=drop_last, generator=generator or torch.Generator(), **common)
        self._common = common
        if num_workers:
            end_workers_at_exit()
        self.place(0)

    def place(self, epoch: int, skip_samples: int = 0) -> None:
        """Says where the next ``iter`` starts.

        Args:
            epoch: pass over the data, from 0.
            skip_samples: samples of it to leave out, at the end of a batch. They are not read,
                except from an iterable data set that has no state.
        """
        self._position = (epoch, skip_samples)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, skip_samples = self._position
        self.place(epoch + 1)
        if self.is_stream:
            state, self._state = self._state, {}
            batches = after_samples(self._stream(epoch, state), 0 if state else skip_samples)
            return share_of(batches, self._share, keeps_all=self.keeps_all,
                            must_be_even=self.must_be_even)
        return self._read(epoch, skip_samples)

    def state_dict(self) -> dict[str, Any]:
        """Where the pass over an iterable data set is that has ``state_dict`` and
        ``load_state_dict`` itself, without workers. Empty for others: a place is enough."""
        return dict(self._place_of_stream)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next ``iter`` goes on from there."""
        self._state = state

    def num_batches(self, skip_samples: int = 0) -> int | None:
        """How many a pass has after so many samples of it; None where that is not known."""
        if self.is_stream or not has_length(self.sampler):
            return None
        return self._batch_sampler().num_batches(skip_samples)

    def size_of_batch(self, first_sample: int) -> int | None:
        """Samples of the batch, of all processes together, that begins with a sample of a pass;
        None of an iterable data set, where only the batch itself tells."""
        if self.is_stream or self.batch_size is None:
            return None
        if not has_length(self.sampler):
            return self._batch_sampler().global_size
        left = len(self.sampler) - first_sample  # type: ignore[arg-type]
        return min(self._batch_sampler().global_size, left)

    def split_validation(self) -> "BaseDataLoader | None":
        """The loader of the validation samples, in a fixed order; None without a split."""
        if self.valid_sampler is None:
            return None
        kept = self.valid_sampler
        chosen = {"indices": kept.indices} if isinstance(kept, EpochSampler) else {"sampler": kept}
        return BaseDataLoader(**self.init_kwargs | {
            "dataset": self.valid_dataset, "batch_size": self.valid_batch_size, "shuffle": False,
            "seed": mix_seed(self.seed, -1), **chosen})

    def inputs_of(self, path: Path) -> tuple[Any, list[str]]:
        """Data without targets, for ``test.py --predict PATH``. Define it for your data.

        Returns:
            A data set of what the model gets, prepared as for testing; a name for each sample.
        """
        raise ConfigError(f"--predict: {type(self).__name__} cannot read data without targets: "
                          "define its method inputs_of(path), see docs/watch.md")

    def samples_at(self, epoch: int, first: int, count: int) -> list[int] | None:
        """The data set's indices of samples of a pass (from 0), where they are known."""
        if not isinstance(self.sampler, EpochSampler):
            return None
        return self.sampler.order(epoch)[first:first + count].tolist()

    def _sampler(self, dataset: Any, sampler: Any) -> Any:
        """The sampler that was given, or one of the training samples; sets ``valid_sampler``."""
        indices, _, stratify, groups = self._choice
        if sampler is not None:
            if self.shuffle or self.validation_split or indices is not None:
                raise ValueError("a sampler decides on samples and order by itself: give it "
                                 "without shuffle, validation_split and indices")
            self.n_samples = len(sampler) if has_length(sampler) else None
            return sampler
        if not has_length(dataset):
            raise ValueError(f"{type(dataset).__name__} has no length: define __len__, give a "
                             "sampler, or derive from torch.utils.data.IterableDataset")
        check_labels(len(dataset), stratify, groups)
        mine = np.arange(len(dataset)) if indices is None else np.asarray(indices)
        self.n_samples = len(mine)
        train, self.valid_sampler = self._split_sampler(self.validation_split)
        if train is None:
            return EpochSampler(mine, shuffle=self.shuffle, seed=self.seed)
        self.n_samples = len(train)
        return train

    def _split_sampler(self, split: float) -> tuple[Any, Any]:
        """Samplers of training and of validation; (None, None) without a split. Override it for a
        split of your own: ``n_samples`` is how many there are."""
        indices, seed, stratify, groups = self._choice
        mine = np.arange(self.n_samples or 0) if indices is None else np.asarray(indices)
        train, valid = split_indices(mine, split, seed=seed, stratify=stratify, groups=groups)
        if not len(valid):
            return None, None
        return (EpochSampler(train, shuffle=self.shuffle, seed=self.seed),
                EpochSampler(valid, shuffle=False, seed=self.seed))

    def _refuse_for_streams(self, *given: Any) -> None:
        if self.validation_split or self.shuffle or any(item is not None for item in given):
            raise ValueError("an iterable data set cannot be split, shuffled or sampled here: "
                             "let it do that, and give validation a loader of its own in the "
                             "config's valid_data_loader")

    def _batch_sampler(self) -> SeededBatchSampler:
        assert self.batch_size is not None
        return SeededBatchSampler(self.sampler, self.batch_size, drop_last=self.drop_last,
                                  seed=self.seed, share=self._share, keeps_all=self.keeps_all)

    @contextlib.contextmanager
    def _loader(self, epoch: int) -> Iterator[DataLoader[Any]]:
        """A loader of torch's that no other iterator uses: kept workers serve one at a time."""
        generator = torch.Generator()
        if self._idle:
            loader = self._idle.pop()
        elif self.is_stream:
            loader = DataLoader(self.dataset, self.batch_size, drop_last=self.drop_last,
                                collate_fn=self.collate_fn, generator=generator, **self._common)
        else:
            loader = DataLoader(self._fetching, batch_sampler=self._batch_sampler(),
                                collate_fn=as_fetched, generator=generator, **self._common)
        loader.generator.manual_seed(mix_seed(self.seed, epoch))
        try:
            yield loader
        finally:
            self._idle.append(loader)

    def _read(self, epoch: int, skip_samples: int) -> Iterator[Any]:
        with self._loader(epoch) as loader:
            batch_sampler: Any = loader.batch_sampler
            batch_sampler.epoch, batch_sampler.skip_samples = epoch, skip_samples
            batch_sampler.keeps_all = self.keeps_all
            if self.num_workers or self.pin_memory:
                yield from loader
            else:  # what torch's iterator does as well, without the 30 us that its profiling costs
                yield from map(self._fetching.__getitems__, batch_sampler)

    def _stream(self, epoch: int, state: dict[str, Any]) -> Iterator[Any]:
        dataset: Any = self.dataset
        if state:
            dataset.load_state_dict(state["dataset"])
            self._place_of_stream = state | {"batches": 0, "is_over": False}
            if state["is_over"]:
                return
        # workers have generators of their own, seeded by the loader's
        start_from = contextlib.nullcontext if self.num_workers else seeded
        with self._loader(epoch) as loader:
            with start_from(mix_seed(self.seed, epoch)):
                batches = iter(loader)

            def read(number: int) -> Any:
                with start_from(mix_seed(self.seed, epoch, number)):
                    return next(batches, self)

            first = state.get("batches", 0)
            if hasattr(dataset, "load_state_dict") and not self.num_workers:
                yield from self._noting_places(dataset, read, first)
            else:
                yield from itertools.takewhile(lambda batch: batch is not self,
                                               map(read, itertools.count(first)))

    def _noting_places(self, dataset: Any, read: Callable[[int], Any],
                       first: int) -> Iterator[Any]:
        """Reads one batch ahead: only then it is known whether a pass is over, and what state it
        leaves the data set in."""
        batch = read(first)
        for number in itertools.count(first + 1):
            here = dataset.state_dict()
            if batch is self:
                return
            following = read(number)
            is_over = following is self
            self._place_of_stream = {"dataset": dataset.state_dict() if is_over else here,
                                     "batches": number, "is_over": is_over}
            yield batch
            if is_over:
                self._place_of_stream |= {"batches": 0, "is_over": False}
            batch = following
