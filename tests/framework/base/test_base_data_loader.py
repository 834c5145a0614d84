import copy
import functools
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset, WeightedRandomSampler, get_worker_info

from base import BaseDataLoader

NUMBERS = TensorDataset(torch.arange(40))


class Noisy(Dataset):
    """Samples with random augmentation by torch, numpy and python."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()), np.random.randn(), random.random()])


def noisy_collate(samples):
    return torch.stack(samples) + torch.rand(()) + np.random.rand() + random.gauss(0, 1)


def indices_of(loader):
    return [int(index) for batch, in loader for index in batch]


def global_state():
    numpy_state = np.random.get_state()
    return (torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(),
            *numpy_state[2:])


def noisy_epochs(num_workers, epochs=2, **options):
    loader = BaseDataLoader(Noisy(), 6, True, num_workers=num_workers, collate_fn=noisy_collate,
                            seed=3, **options)
    return [list(loader) for _ in range(epochs)]


@functools.cache
def whole_epochs():
    return noisy_epochs(0, 3)


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_epochs_have_different_orders_and_augmentation():
    first, second, _ = whole_epochs()
    assert not any(map(torch.equal, first, second))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("persistent", [True, False])
def test_batches_do_not_depend_on_the_number_of_workers(num_workers, persistent):
    epochs = noisy_epochs(num_workers, persistent_workers=persistent)
    assert all(map(same, epochs, whole_epochs()))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_placed_at_any_batch_the_loader_gives_the_rest_of_the_epoch(num_workers):
    loader = BaseDataLoader(Noisy(), 6, True, num_workers=num_workers, collate_fn=noisy_collate,
                            seed=3)
    for skip in range(5):
        loader.place(1, 6 * skip)
        assert same(list(loader), whole_epochs()[1][skip:])


def test_after_a_place_the_next_epoch_follows():
    loader = BaseDataLoader(Noisy(), 6, True, collate_fn=noisy_collate, seed=3)
    loader.place(1, 12)
    list(loader)
    assert same(list(loader), whole_epochs()[2])


def test_skipped_samples_are_not_read():
    class Counted(Noisy):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    dataset = Counted()
    loader = BaseDataLoader(dataset, 5)
    loader.place(0, 15)
    assert len(list(loader)) == 1 and dataset.reads == 5


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterating_leaves_the_global_generators_where_they_were(num_workers):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    np.random.randn()
    random.gauss(0, 1)
    before = global_state()
    noisy_epochs(num_workers)
    assert global_state() == before


def test_indices_choose_the_samples():
    assert indices_of(BaseDataLoader(NUMBERS, 2, indices=[5, 3, 8])) == [5, 3, 8]


def test_samples_of_a_batch_are_known():
    loader = BaseDataLoader(NUMBERS, 6, True, seed=3)
    list(loader)
    second = [batch.tolist() for batch, in loader]
    assert [loader.samples_at(1, 6 * number, 6) for number in range(7)] == second
    assert BaseDataLoader(NUMBERS, 6, sampler=[1, 2]).samples_at(0, 0, 2) is None


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("first", [0, 6, 35])
def test_sizes_and_number_of_batches_from_a_sample_on_are_known(first, drop_last):
    loader = BaseDataLoader(NUMBERS, 6, True, drop_last=drop_last)
    loader.place(0, first)
    sizes = [len(batch) for batch, in loader]
    assert loader.num_batches(first) == len(sizes)
    assert [loader.size_of_batch(first + 6 * number) for number in range(len(sizes))] == sizes


def test_user_sampler_decides_on_the_order_the_same_in_each_run():
    weights = [0.0] * 20 + [1.0] * 20
    runs = [indices_of(BaseDataLoader(NUMBERS, 4, sampler=WeightedRandomSampler(weights, 30),
                                      seed=1)) for _ in range(2)]
    assert runs[0] == runs[1] and len(runs[0]) == 30 and min(runs[0]) >= 20


def test_user_sampler_needs_no_length():
    class NoLengthEither(torch.utils.data.Sampler):
        def __iter__(self):
            return iter([3, 1])

    loader = BaseDataLoader(NUMBERS, 2, sampler=NoLengthEither())
    assert indices_of(loader) == [3, 1] and loader.n_samples is None
    assert loader.num_batches() is None and loader.size_of_batch(0) == 2


@pytest.mark.parametrize("options", [
    {"shuffle": True}, {"validation_split": 0.1}, {"indices": [1]}])
def test_sampler_excludes_other_ways_to_choose(options):
    with pytest.raises(ValueError, match="a sampler decides"):
        BaseDataLoader(NUMBERS, 4, sampler=[1, 2], **options)


def test_options_of_the_data_loader_pass_through():
    generator = torch.Generator().manual_seed(5)
    loader = BaseDataLoader(NUMBERS, 7, True, 0.25, 2, pin_memory=False, drop_last=True,
                            persistent_workers=False, generator=generator, prefetch_factor=3,
                            timeout=9)
    with loader._loader(0) as made:
        for one in (loader, made):
            assert one.num_workers == 2 and not one.persistent_workers and not one.pin_memory
            assert (one.prefetch_factor, one.timeout) == (3, 9)
    assert loader.generator is generator and len(list(loader)) == len(loader) == 4


def test_generator_of_the_user_seeds_the_order():
    orders = [indices_of(BaseDataLoader(NUMBERS, 4, True,
                                        generator=torch.Generator().manual_seed(seed)))
              for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


class WorkerTold(Dataset):
    told = 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.told


def tell_worker(worker_id):
    get_worker_info().dataset.dataset.told = 100 + worker_id


def test_worker_init_fn_is_called_in_each_worker():
    loader = BaseDataLoader(WorkerTold(), 1, num_workers=2, worker_init_fn=tell_worker)
    assert [int(told) for told in loader] == [100, 101]


class Dicts(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"data": (index, {"deep": index * 2}), "target": index}


def test_batches_may_be_dicts_and_nested_tuples():
    batch = next(iter(BaseDataLoader(Dicts(), 3)))
    assert batch["data"][1]["deep"].tolist() == [0, 2, 4] and batch["target"].tolist() == [0, 1, 2]


class NoLength(Dataset):
    def __getitem__(self, index):
        return index


def test_data_set_without_length_works_with_a_sampler():
    assert [batch.tolist() for batch in BaseDataLoader(NoLength(), 2, sampler=[8, 9, 7])] == [
        [8, 9], [7]]


def test_data_set_without_length_and_sampler_is_refused():
    with pytest.raises(ValueError, match="NoLength has no length"):
        BaseDataLoader(NoLength(), 2)


def test_subclass_may_set_its_data_set_first():
    class Mine(BaseDataLoader):
        def __init__(self):
            self.dataset = NUMBERS
            super().__init__(self.dataset, 4, True, 0.1, 0)

    assert Mine().n_samples == 36


def test_copy_goes_on_where_the_original_was():
    loader = BaseDataLoader(NUMBERS, 4, True, seed=3)
    list(loader)
    assert indices_of(copy.deepcopy(loader)) == indices_of(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterators_under_way_do_not_disturb_each_other(num_workers):
    """Kept workers serve one at a time, so the second has others."""
    loader = BaseDataLoader(Noisy(), 6, True, num_workers=num_workers, collate_fn=noisy_collate,
                            seed=3)
    list(loader)
    under_way, other = iter(loader), iter(loader)
    first, other_first = next(under_way), next(other)
    assert same([first, *under_way], whole_epochs()[1])
    assert same([other_first, *other], whole_epochs()[2])


class SplitsItself(BaseDataLoader):
    """As classic projects do: the last samples validate."""

    def _split_sampler(self, split):
        train, _ = super()._split_sampler(split)
        order = list(range(self.n_samples))
        train.indices = order[:-5]
        return train, torch.utils.data.SubsetRandomSampler(order[-5:])


def test_subclass_may_split_by_itself():
    loader = SplitsItself(NUMBERS, 4, True, 0.1, seed=3)
    valid = loader.split_validation()
    assert sorted(indices_of(loader)) == list(range(35)) and loader.n_samples == 35
    assert sorted(indices_of(valid)) == list(range(35, 40))


class Pids(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        return os.getpid()


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_workers_leave_stop_signals_to_the_main_process_and_none_is_left_behind():
    loader = BaseDataLoader(Pids(), 1, num_workers=2)
    batches = iter(loader)
    pids = {int(next(batches)) for _ in range(10)}
    for pid in pids:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(pid, number)
    rest = [int(pid) for pid in batches]
    assert len(rest) == 390 and set(rest) == pids and len(pids) == 2
    assert all(map(is_running, pids))
    del batches, loader
    deadline = time.monotonic() + 5
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, pids))


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize(("ending", "status"), [("", 0), ("sys.exit(7)", 7), ("1 / 0", 1)])
def test_process_ends_at_once_while_its_loader_is_open(persistent, ending, status):
    code = ("import sys; from base import BaseDataLoader; loader = BaseDataLoader(range(999), 2, "
            f"num_workers=2, persistent_workers={persistent}); "
            f"batches = iter(loader); next(batches); {ending}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == status and "DataLoader worker" not in done.stderr
