"""The validation split of the data loader."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from base import BaseDataLoader

NUMBERS = TensorDataset(torch.arange(40))


def loader_of(count, **options):
    return BaseDataLoader(TensorDataset(torch.arange(count)), 4, **options)


def indices_of(loader):
    return [int(index) for batch, in loader for index in batch]


@pytest.mark.parametrize("options", [{}, {"stratify": [0, 1] * 20}])
def test_split_leaves_the_global_generators_where_they_were(options):
    before = torch.get_rng_state(), np.random.get_state()[1]
    list(BaseDataLoader(NUMBERS, 4, True, 0.25, **options).split_validation())
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize(("split", "num_valid"), [(0.25, 10), (7, 7)])
def test_split_is_that_of_the_classic_template(split, num_valid):
    order = np.arange(40)
    np.random.RandomState(0).shuffle(order)  # what np.random.seed(0) and np.random.shuffle do
    loader = BaseDataLoader(NUMBERS, 4, False, split)
    assert indices_of(loader.split_validation()) == order[:num_valid].tolist()
    assert indices_of(loader) == sorted(order[num_valid:].tolist())


def test_shuffled_training_keeps_off_the_validation_samples():
    loader = BaseDataLoader(NUMBERS, 4, True, 0.25)
    assert sorted(indices_of(loader) + indices_of(loader.split_validation())) == list(range(40))
    assert (loader.n_samples, len(loader), len(loader.valid_sampler)) == (30, 8, 10)


def test_validation_has_the_same_order_in_each_epoch():
    valid = BaseDataLoader(NUMBERS, 4, True, 0.25).split_validation()
    assert indices_of(valid) == indices_of(valid)


def test_validation_batches_may_be_larger():
    loader = BaseDataLoader(NUMBERS, 4, True, 0.25, valid_batch_size=8)
    assert [len(batch[0]) for batch in loader][:2] == [4, 4]
    assert [len(batch[0]) for batch in loader.split_validation()] == [8, 2]
    assert len(next(iter(BaseDataLoader(NUMBERS, 4, True, 0.25).split_validation()))[0]) == 4


def test_no_split_has_no_validation_loader():
    loader = BaseDataLoader(NUMBERS, 4, True)
    assert loader.split_validation() is None and loader.valid_sampler is None


@pytest.mark.parametrize("split", [0.001, 1.0, 40, 41, -0.1, -3, True])
def test_split_that_leaves_a_part_empty_is_refused(split):
    with pytest.raises(ValueError, match="validation_split"):
        BaseDataLoader(NUMBERS, 4, True, split)


def test_split_seed_chooses_other_samples():
    splits = [BaseDataLoader(NUMBERS, 4, True, 0.25, split_seed=seed).valid_sampler.indices.tolist()
              for seed in (0, 1)]
    assert splits[0] != splits[1]


def test_split_does_not_follow_the_seed_of_the_run():
    splits = [BaseDataLoader(NUMBERS, 4, True, 0.25, seed=seed).valid_sampler.indices.tolist()
              for seed in (0, 1)]
    assert splits[0] == splits[1]


def test_stratified_split_keeps_the_shares_of_classes():
    classes = np.array([0] * 20 + [1] * 12 + [2] * 8)
    loader = BaseDataLoader(NUMBERS, 4, True, 10, stratify=classes)
    counts = np.bincount(classes[loader.valid_sampler.indices.numpy()], minlength=3)
    assert counts.tolist() == [5, 3, 2]


def test_stratify_needs_a_class_for_each_sample():
    with pytest.raises(ValueError, match="each of the 40 samples, got 3"):
        BaseDataLoader(NUMBERS, 4, True, 10, stratify=[0, 1, 2])


def test_validation_can_have_transforms_of_its_own():
    negative = TensorDataset(-torch.arange(40))
    loader = BaseDataLoader(NUMBERS, 4, True, 0.25, valid_dataset=negative)
    assert indices_of(loader.split_validation()) == (-loader.valid_sampler.indices).tolist()
    assert min(indices_of(loader)) >= 0


def test_init_kwargs_make_a_plain_loader_of_the_validation_samples():
    loader = BaseDataLoader(NUMBERS, 4, True, 0.25)
    plain = DataLoader(sampler=loader.valid_sampler, **loader.init_kwargs)
    assert indices_of(plain) == loader.valid_sampler.indices.tolist()


def test_groups_stay_together_and_enough_of_them_are_kept():
    groups = [number // 3 for number in range(30)]
    for split in (1, 7, 0.5):
        loader = loader_of(30, validation_split=split, groups=groups)
        valid = loader.valid_sampler.indices.tolist()
        train = loader.sampler.indices.tolist()
        assert sorted([*valid, *train]) == list(range(30))
        assert not {groups[index] for index in valid} & {groups[index] for index in train}
        wanted = split if isinstance(split, int) else 15
        assert wanted <= len(valid) < wanted + 3


@pytest.mark.parametrize(("options", "text"), [
    ({"groups": [0] * 30, "validation_split": 5}, "the 1 groups cannot be split"),
    ({"groups": [0], "validation_split": 5}, "groups needs one for each of the 30 samples, got 1"),
    ({"groups": [0] * 30, "stratify": [0] * 30}, "give stratify or groups, not both")])
def test_groups_that_cannot_be_kept_together_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        loader_of(30, **options)


def test_ratio_is_not_cut_by_the_rounding_of_floats():
    assert [loader_of(100, validation_split=ratio).n_samples for ratio in (0.29, 0.57)] == [71, 43]


@pytest.mark.parametrize("option", ["stratify", "groups"])
@pytest.mark.parametrize(("labels", "text"), [
    ([0.0, float("nan")] * 20, "20 samples have none .*the first is 1; "),
    (["a", float("nan")] * 20, "20 samples have none .*the first is 1; "),
    ([None, "a"] * 20, "20 samples have none .*the first is 0; "),
    (np.array([1, "a"] * 20, dtype=object), "can be sorted, got 20 (int, 20 str|str, 20 int)"),
    (np.zeros((40, 1)), r"for each sample, got the shape \(40, 1\)")])
def test_samples_without_a_class_or_group_are_refused(option, labels, text):
    with pytest.raises(ValueError, match=f"{option}: .*{text}"):
        BaseDataLoader(NUMBERS, 4, True, 10, **{option: labels})


def test_samples_that_are_left_out_need_no_class():
    classes = [float("nan") if index % 2 else index % 4 for index in range(40)]
    loader = BaseDataLoader(NUMBERS, 4, True, 10, stratify=classes, indices=range(0, 40, 2))
    assert sorted(classes[index] for index in loader.valid_sampler.indices) == [0] * 5 + [2] * 5
