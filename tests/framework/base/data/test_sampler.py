import pytest
import torch
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from base.data.sampler import EpochSampler, SeededBatchSampler, has_length, share_of
from utils.errors import RunError


def batches_of(sampler, epoch=0, skip_samples=0, **options):
    batch_sampler = SeededBatchSampler(sampler, 3, **{"drop_last": False, "seed": 5} | options)
    batch_sampler.epoch, batch_sampler.skip_samples = epoch, skip_samples
    return [(list(batch), batch.seed) for batch in batch_sampler]


def test_order_without_shuffle_is_that_of_the_indices():
    assert list(EpochSampler([4, 2, 9], shuffle=False, seed=0)) == [4, 2, 9]


def test_shuffled_order_has_each_index_once():
    assert sorted(EpochSampler(range(50), shuffle=True, seed=0)) == list(range(50))


def test_order_follows_from_seed_and_epoch_alone():
    first, second = (EpochSampler(range(50), shuffle=True, seed=3) for _ in range(2))
    list(first)
    torch.manual_seed(99)
    assert torch.equal(first.order(4), second.order(4))


@pytest.mark.parametrize(("seed", "epoch"), [(3, 5), (4, 4)])
def test_each_seed_and_epoch_has_an_order_of_its_own(seed, epoch):
    order = EpochSampler(range(50), shuffle=True, seed=3).order(4)
    other = EpochSampler(range(50), shuffle=True, seed=seed).order(epoch)
    assert not torch.equal(order, other)


def test_skipped_samples_are_left_out():
    sampler = EpochSampler(range(10), shuffle=True, seed=1)
    whole = list(sampler)
    sampler.skip_samples = 7
    assert list(sampler) == whole[7:]


def test_order_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    list(EpochSampler(range(50), shuffle=True, seed=3))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [3, 3, 3, 1]), (True, [3, 3, 3])])
def test_last_short_batch_is_kept_or_dropped(drop_last, sizes):
    sampler = EpochSampler(range(10), shuffle=False, seed=0)
    batches = batches_of(sampler, drop_last=drop_last)
    assert [len(batch) for batch, _ in batches] == sizes


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("samples", [8, 9, 10])
def test_number_of_batches_is_known(drop_last, samples):
    sampler = EpochSampler(range(samples), shuffle=False, seed=0)
    batch_sampler = SeededBatchSampler(sampler, 3, drop_last=drop_last, seed=0)
    for skip in (0, 3, 4):
        batch_sampler.skip_samples = skip
        assert batch_sampler.num_batches(skip) == len(list(batch_sampler))


def test_place_inside_a_batch_starts_a_batch_there():
    """As after a resume with another batch size."""
    whole = [index for batch, _ in batches_of(EpochSampler(range(13), shuffle=True, seed=1))
             for index in batch]
    batches = batches_of(EpochSampler(range(13), shuffle=True, seed=1), skip_samples=4)
    assert [batch for batch, _ in batches] == [whole[4:7], whole[7:10], whole[10:]]


@pytest.mark.parametrize("skip", range(5))
@pytest.mark.parametrize("make", [
    lambda: EpochSampler(range(13), shuffle=True, seed=1),
    lambda: RandomSampler(range(13)),
    lambda: RandomSampler(range(13), generator=torch.Generator().manual_seed(4)),
    lambda: WeightedRandomSampler([1.0, 2.0, 3.0], 13),
], ids=["ours", "random", "own_generator", "weighted"])
def test_skipping_batches_gives_the_rest_of_the_same_epoch(make, skip):
    assert batches_of(make(), epoch=2, skip_samples=3 * skip) == batches_of(make(), epoch=2)[skip:]


def test_seeds_of_batches_all_differ():
    sampler = EpochSampler(range(30), shuffle=False, seed=0)
    seeds = [seed for epoch in range(3) for _, seed in batches_of(sampler, epoch)]
    assert len(set(seeds)) == 30


def test_sampler_of_the_user_differs_between_epochs():
    first, second = (batches_of(RandomSampler(range(40)), epoch) for epoch in (0, 1))
    assert [batch for batch, _ in first] != [batch for batch, _ in second]


def test_set_epoch_of_a_sampler_is_called():
    class Shifted(Sampler):
        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch] * 3)

    assert batches_of(Shifted(), epoch=6)[0][0] == [6, 6, 6]


def test_sampler_of_the_user_leaves_the_global_generator():
    before = torch.get_rng_state()
    batches_of(WeightedRandomSampler([1.0, 2.0], 9))
    assert torch.equal(before, torch.get_rng_state())


def test_iterator_under_way_is_not_disturbed_by_another():
    sampler = EpochSampler(range(12), shuffle=True, seed=1)
    batch_sampler = SeededBatchSampler(sampler, 3, drop_last=False, seed=5)
    under_way = iter(batch_sampler)
    batch_sampler.epoch, batch_sampler.skip_samples = 7, 2
    iter(batch_sampler)
    assert [(list(batch), batch.seed) for batch in under_way] == batches_of(sampler)


class NoLength(torch.utils.data.Dataset):
    pass


class Refuses:
    def __len__(self):
        raise NotImplementedError


@pytest.mark.parametrize(("thing", "answer"), [
    ([], True), ([1], True), (NoLength(), False), (Refuses(), False), (iter([1]), False)])
def test_has_length_says_whether_len_works(thing, answer):
    assert has_length(thing) is answer


@pytest.mark.parametrize("samples", range(3, 40))
@pytest.mark.parametrize(("keeps_all", "drop_last"), [(False, False), (True, False), (True, True),
                                                      (False, True)])
def test_processes_share_each_batch_and_get_as_many(samples, keeps_all, drop_last):
    shares = [SeededBatchSampler(EpochSampler(range(samples), shuffle=False, seed=0), 4, seed=0,
                                 drop_last=drop_last, share=(number, 3), keeps_all=keeps_all)
              for number in range(3)]
    batches = [list(share) for share in shares]
    assert {len(one) for one in batches} == {len(share) for share in shares}
    assert len({len(one) for one in batches}) == 1 and all(all(one) for one in batches)
    seen = sorted(index for one in batches for batch in one for index in batch)
    rest = samples % 12
    left_out = rest if drop_last or (rest < 3 and not keeps_all) else 0
    assert seen == list(range(samples - left_out))


def test_stream_that_cannot_be_shared_evenly_is_refused_where_it_has_to_be():
    assert [list(share_of(iter("abcde"), (number, 3), keeps_all=True)) for number in range(3)] == [
        ["a", "d"], ["b", "e"], ["c"]]
    for number in range(3):
        with pytest.raises(RunError, match="ends with 2 batches for 3 processes"):
            list(share_of(iter("abcde"), (number, 3), keeps_all=True, must_be_even=True))
        assert len(list(share_of(iter("abcdef"), (number, 3), keeps_all=True, must_be_even=True))) == 2
        assert len(list(share_of(iter("abcde"), (number, 3), keeps_all=False, must_be_even=True))) == 1
