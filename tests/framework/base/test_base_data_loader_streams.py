"""The data loader on iterable data sets."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info

from base import BaseDataLoader


def global_state():
    numpy_state = np.random.get_state()
    return (torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(),
            *numpy_state[2:])


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


class Stream(IterableDataset):
    """Numbers with noise, each worker its share; draws when it starts, too."""

    def __iter__(self):
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        shift = torch.rand(()) + np.random.rand()
        return (torch.tensor([number, shift + torch.rand(()) + np.random.rand() + random.random()])
                for number in range(first, 12, step))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream_is_the_same_in_each_run_and_placed_anywhere(num_workers):
    def make():
        return BaseDataLoader(Stream(), 2, num_workers=num_workers, seed=4)

    loader = make()
    first, second = list(loader), list(loader)
    numbers = sorted(int(number) for batch in first for number in batch[:, 0])
    assert numbers == list(range(12)) and not same(first, second)
    resumed = make()
    resumed.place(1, 4)
    assert same(list(resumed), second[2:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream_leaves_the_global_generators_where_they_were(num_workers):
    before = global_state()
    list(BaseDataLoader(Stream(), 2, num_workers=num_workers))
    assert global_state() == before


@pytest.mark.parametrize("options", [
    {"shuffle": True}, {"validation_split": 0.1}, {"sampler": [1]}, {"indices": [1]},
    {"stratify": [1]}])
def test_stream_refuses_what_only_indexed_data_can(options):
    with pytest.raises(ValueError, match="iterable data set"):
        BaseDataLoader(Stream(), 2, **options)


@pytest.mark.parametrize("options", [{"persistent_workers": True, "num_workers": 1}])
def test_workers_of_a_stream_are_not_kept(options):
    with pytest.raises(ValueError, match="persistent_workers=True"):
        BaseDataLoader(Stream(), 2, **options)


def test_stream_of_whole_batches_needs_no_batch_size():
    class Batches(IterableDataset):
        def __iter__(self):
            return iter([np.ones(3), np.zeros(2)])

    assert [batch.tolist() for batch in BaseDataLoader(Batches(), None)] == [[1, 1, 1], [0, 0]]


def test_data_with_a_length_needs_a_batch_size():
    with pytest.raises(ValueError, match="batch_size must be a number of samples"):
        BaseDataLoader([1, 2], None)
