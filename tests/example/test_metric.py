import pytest
import torch

from model.metric import accuracy, top_k_acc

SCORES = torch.tensor([[4.0, 3, 2, 1], [1, 2, 3, 4], [2, 4, 1, 3], [3, 1, 4, 2]])


class OnDevice(torch.Tensor):
    """A tensor that lets nobody wait for its value."""

    def item(self):
        raise AssertionError("waits for the device")

    __float__ = __bool__ = __int__ = tolist = cpu = numpy = item


@pytest.mark.parametrize(("target", "share"), [
    ([0, 3, 1, 2], 1.0), ([0, 3, 1, 0], 0.75), ([1, 0, 0, 0], 0.0)])
def test_accuracy_is_the_share_of_highest_scores(target, share):
    assert accuracy(SCORES, torch.tensor(target)) == share


@pytest.mark.parametrize(("k", "share"), [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)])
def test_top_k_counts_the_k_highest_scores(k, share):
    assert top_k_acc(SCORES, torch.tensor([0, 2, 0, 1]), k) == share


def test_top_k_looks_at_three_classes_by_default():
    assert top_k_acc(SCORES, torch.tensor([0, 2, 0, 1])) == 0.75


@pytest.mark.parametrize("metric", [accuracy, top_k_acc])
def test_result_is_a_scalar_that_nobody_has_waited_for(metric):
    """D50"""
    target = torch.tensor([0, 2, 0, 1]).as_subclass(OnDevice)
    result = metric(SCORES.as_subclass(OnDevice), target)
    assert isinstance(result, OnDevice) and (result.ndim, result.dtype) == (0, torch.float32)
