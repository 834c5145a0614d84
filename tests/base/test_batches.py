import logging

import pytest
import torch
from torch.utils.data import IterableDataset

from base import BaseDataLoader
from base.batches import TrainBatches, placed
from base.progress import Progress
from utils.errors import RunError


class Placed:
    """Four batches, each (pass, number)."""

    start = (0, 0)

    def place(self, epoch, skip_batches=0):
        self.start = (epoch, skip_batches)

    def __len__(self):
        return 4

    def __iter__(self):
        epoch, skip = self.start
        return iter([(epoch, number) for number in range(skip, 4)])


def draw_epoch(batches, epoch, len_epoch, loader=None):
    drawn = []
    for batch in batches.draw(Placed() if loader is None else loader, len_epoch):
        drawn.append(batch)
        batches.progress.finish_batch()
    batches.progress.finish_epoch(epoch)
    return drawn


@pytest.mark.parametrize("len_epoch", [None, 4])
def test_each_epoch_is_a_pass(len_epoch):
    batches = TrainBatches(Progress())
    epochs = [draw_epoch(batches, epoch, len_epoch) for epoch in (1, 2)]
    assert epochs == [[(0, 0), (0, 1), (0, 2), (0, 3)], [(1, 0), (1, 1), (1, 2), (1, 3)]]


@pytest.mark.parametrize("len_epoch", [1, 3, 5, 9])
def test_len_epoch_is_exact_and_the_order_of_data_goes_on(len_epoch):
    """D16"""
    batches = TrainBatches(Progress())
    epochs = [draw_epoch(batches, epoch, len_epoch) for epoch in (1, 2, 3)]
    flat = [batch for epoch in epochs for batch in epoch]
    assert {len(epoch) for epoch in epochs} == {len_epoch}
    assert flat == [(number // 4, number % 4) for number in range(3 * len_epoch)]


@pytest.mark.parametrize("len_epoch", [None, 3, 4, 5])
@pytest.mark.parametrize("stop", range(1, 8))
def test_stopped_and_resumed_anywhere_gives_the_same_batches(len_epoch, stop):
    def epochs(progress, drawn, limit):
        batches = TrainBatches(progress)
        for epoch in range(progress.epoch + 1, 4):
            for batch in batches.draw(Placed(), len_epoch):
                if len(drawn) == limit:
                    return
                drawn.append(batch)
                progress.finish_batch()
            progress.finish_epoch(epoch)

    whole, parts = [], []
    epochs(Progress(), whole, None)
    stopped, resumed = Progress(), Progress()
    epochs(stopped, parts, stop)
    resumed.load_state_dict(stopped.state_dict())
    epochs(resumed, parts, None)
    assert parts == whole


def test_data_without_a_batch_is_an_error():
    """D17"""
    with pytest.raises(RunError, match="no batch"):
        list(TrainBatches(Progress()).draw([], None))


def test_loader_without_length_can_have_a_len_epoch():
    """D53"""
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.arange(3))

    loader = BaseDataLoader(Stream())
    drawn = draw_epoch(TrainBatches(Progress()), 1, 5, loader)
    assert [int(batch) for batch in drawn] == [0, 1, 2, 0, 1]


def test_loader_without_place_is_read_up_to_the_batch(caplog):
    caplog.set_level(logging.INFO)
    assert list(placed([7, 8, 9], 0, 2)) == [9]
    assert "reading 2 batches" in caplog.text
