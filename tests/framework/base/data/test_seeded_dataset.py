import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Subset
from torch.utils.data.dataloader import default_collate

from base import BaseDataLoader, InMemoryDataset
from base.data import seeded_dataset
from base.data.seeded_dataset import SeededBatch, SeededDataset, as_fetched


class Plain:
    """Draws nothing, and says so."""

    is_random = False

    def __getitem__(self, index):
        return torch.tensor([index])


class Noisy:
    def __getitem__(self, index):
        return torch.tensor([torch.rand(()), np.random.rand(), random.random()])


class Whole:
    def __getitems__(self, indices):
        return [10 * index for index in indices]


def mixed_up(samples):
    """As a collate_fn does that mixes images or pads at random."""
    return torch.stack(samples) + torch.rand(()) + np.random.rand() + random.random()


def test_seeded_batch_keeps_its_seed_on_the_way_to_a_worker():
    batch = pickle.loads(pickle.dumps(SeededBatch([1, 2], 77)))
    assert (list(batch), batch.seed) == ([1, 2], 77)


@pytest.mark.parametrize(("dataset", "collate_fn"), [
    (Noisy(), default_collate), (Plain(), mixed_up), (Noisy(), mixed_up)])
def test_whatever_is_drawn_for_a_batch_starts_from_its_seed(dataset, collate_fn):
    fetching = SeededDataset(dataset, collate_fn)
    first = fetching.__getitems__(SeededBatch([0, 1], 3))
    assert torch.equal(first, fetching.__getitems__(SeededBatch([0, 1], 3)))
    assert not torch.equal(first, fetching.__getitems__(SeededBatch([0, 1], 4)))


@pytest.mark.parametrize("collate_fn", [default_collate, as_fetched])
def test_data_that_draws_nothing_is_spared_the_seeding(collate_fn, monkeypatch):
    monkeypatch.delattr(seeded_dataset, "seeded")
    assert len(SeededDataset(Plain(), collate_fn).__getitems__(SeededBatch([4, 5], 0))) == 2


def test_whole_batches_are_fetched_where_the_data_set_can():
    assert SeededDataset(Whole(), as_fetched).__getitems__(SeededBatch([1, 2], 0)) == [10, 20]


def test_part_of_data_that_fetches_batches_fetches_batches_too():
    images, targets = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    subset = Subset(Subset(InMemoryDataset(images, targets), [5, 4, 3, 2]), [0, 2, 3])
    batches = list(BaseDataLoader(subset, 2))
    assert [batch[1].tolist() for batch in batches] == [[5, 3], [2]]
    assert [batch[0].shape for batch in batches] == [(2, 2), (1, 2)]
