import itertools
import logging

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset, get_worker_info

from base import BaseDataLoader
from base.counters import Counters
from base.data.train_batches import TrainBatches
from utils.errors import RunError

NUMBERS = TensorDataset(torch.arange(8))


def loader_of(dataset=NUMBERS, batch_size=2, **options):
    return BaseDataLoader(dataset, batch_size, **options)


def samples_of(batch):
    return batch[0].tolist() if isinstance(batch, list) else batch.tolist()


def draw(batches, loader, len_epoch=None, epochs=1, limit=None):
    """Lists of samples, as a trainer would draw them; stops after ``limit`` batches."""
    drawn = []
    for epoch in range(batches.counters.epoch + 1, batches.counters.epoch + epochs + 1):
        for batch in batches.draw(loader, len_epoch):
            drawn.append(samples_of(batch))
            batches.counters.finish_batch(batches.count(loader, batch))
            if len(drawn) == limit:
                return drawn
        batches.counters.finish_epoch(epoch)
    return drawn


def resumed(batches):
    """What a new process has of them."""
    counters = Counters()
    counters.load_state_dict(batches.counters.state_dict())
    other = TrainBatches(counters)
    other.load_state_dict(batches.state_dict())
    return other


def numbers(batches):
    return [sample for batch in batches for sample in batch]


def test_without_len_epoch_each_epoch_is_a_pass():
    counters = Counters()
    assert numbers(draw(TrainBatches(counters), loader_of(), epochs=2)) == [*range(8), *range(8)]
    assert (counters.passes, counters.samples, counters.batch) == (2, 0, 0)


@pytest.mark.parametrize("len_epoch", [1, 3, 4, 5, 9])
def test_len_epoch_is_exact_and_the_order_of_data_goes_on(len_epoch):
    batches = TrainBatches(Counters())
    epochs = [draw(batches, loader_of(), len_epoch) for _ in range(3)]
    assert {len(epoch) for epoch in epochs} == {len_epoch}
    whole = itertools.cycle(range(8))
    assert numbers(batch for epoch in epochs for batch in epoch) == list(
        itertools.islice(whole, 6 * len_epoch))


class Endless(Sampler):
    """Draws for ever."""

    def __iter__(self):
        return iter(lambda: int(torch.randint(8, ())), None)


LOADERS = {
    "shuffled": lambda: loader_of(shuffle=True, seed=3),
    "endless sampler": lambda: loader_of(sampler=Endless(), seed=3),
    "plain": lambda: DataLoader(NUMBERS, batch_size=2, shuffle=True,
                                generator=torch.Generator().manual_seed(3)),
    "list": lambda: list(torch.arange(8).split(2)),
}


@pytest.mark.parametrize("stop", range(1, 8))
@pytest.mark.parametrize(("kind", "len_epoch"), [
    ("shuffled", None), ("shuffled", 3), ("shuffled", 5), ("endless sampler", 3), ("plain", None),
    ("plain", 3), ("list", 3)])
def test_stopped_and_resumed_anywhere_gives_the_same_batches(kind, len_epoch, stop):
    make, epochs = LOADERS[kind], 3
    whole = draw(TrainBatches(Counters()), make(), len_epoch, epochs)
    batches = TrainBatches(Counters())
    parts = draw(batches, make(), len_epoch, epochs, limit=stop)
    again = resumed(batches)
    parts += draw(again, make(), len_epoch, epochs - again.counters.epoch)
    assert parts == whole


@pytest.mark.parametrize("len_epoch", [None, 3])
@pytest.mark.parametrize("stop", [0, 1, 2])
@pytest.mark.parametrize("kind", ["shuffled", "plain", "list"])
def test_number_of_batches_and_the_last_one_are_known(kind, stop, len_epoch):
    batches, loader = TrainBatches(Counters()), LOADERS[kind]()
    if stop:
        draw(batches, loader, len_epoch, limit=stop)
        batches, loader = resumed(batches), LOADERS[kind]()
    total = len_epoch or 4
    assert batches.num_in_epoch(loader, len_epoch) == total
    for batch in batches.draw(loader, len_epoch):
        batches.counters.finish_batch(batches.count(loader, batch))
        assert batches.is_last(len_epoch) == (batches.counters.batch == total)
        assert batches.num_in_epoch(loader, len_epoch) == total


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, None), (None, 3)])
def test_len_epoch_changed_in_mid_pass_repeats_and_leaves_out_nothing(before, after):
    batches = TrainBatches(Counters())
    seen = draw(batches, loader_of(), before, limit=1)
    while batches.counters.passes == 0:
        batches = resumed(batches)
        seen += draw(batches, loader_of(), after)
    assert numbers(seen)[:8] == list(range(8))


def test_batches_that_are_dropped_for_their_size_do_not_shift_the_place():
    batches = TrainBatches(Counters())
    draw(batches, loader_of(batch_size=3, drop_last=True), epochs=2)
    assert (batches.counters.passes, batches.counters.samples) == (2, 0)


@pytest.mark.parametrize("loader", [[], loader_of(batch_size=9, drop_last=True)])
def test_data_without_a_batch_is_an_error(loader):
    with pytest.raises(RunError, match="no batch"):
        draw(TrainBatches(Counters()), loader)


class Stream(IterableDataset):
    """Ten numbers, each worker its share."""

    def __iter__(self):
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        return iter(torch.arange(first, 10, step))


class SizedStream(Stream):
    def __len__(self):
        return 10


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("make", [BaseDataLoader, DataLoader])
def test_stream_with_a_length_and_workers_loses_no_batch(make):
    """Two workers give three batches each, the length says five."""
    loader = make(SizedStream(), batch_size=2, num_workers=2)
    batches = TrainBatches(Counters())
    assert sorted(numbers(draw(batches, loader))) == list(range(10))
    assert batches.num_in_epoch(loader, None) is None


def test_stream_can_have_a_len_epoch():
    drawn = draw(TrainBatches(Counters()), loader_of(Stream(), 4), 5)
    assert drawn == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] + [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_that_workers_decide_on_the_run_of_a_stream_is_said_once(caplog):
    caplog.set_level(logging.INFO)
    batches = TrainBatches(Counters())
    draw(batches, loader_of(Stream()), epochs=2)
    draw(resumed(batches), loader_of(Stream()))
    assert [record.getMessage() for record in caplog.records] == [
        "iterable data set: its order depends on num_workers (0 here)"]


@pytest.mark.parametrize(("dataset", "said"), [(Stream(), "if the data set repeats itself"),
                                               (NUMBERS, "random augmentation may not be")])
def test_loader_that_is_read_up_to_its_place_is_said_to_be_inexact(dataset, said, caplog):
    caplog.set_level("WARNING")
    batches = TrainBatches(Counters())
    draw(batches, DataLoader(dataset, batch_size=2), limit=2)
    assert not caplog.messages
    draw(resumed(batches), DataLoader(dataset, batch_size=2))
    assert "reading 4 samples again" in caplog.text and said in caplog.text


def test_reading_again_leaves_the_random_streams_where_they_were():
    batches = TrainBatches(Counters())
    draw(batches, DataLoader(NUMBERS, batch_size=2, shuffle=True), limit=2)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    draw(resumed(batches), DataLoader(NUMBERS, batch_size=2, shuffle=True), limit=1)
    assert torch.equal(torch.get_rng_state(), before)
