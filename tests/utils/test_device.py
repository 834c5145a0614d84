from collections import namedtuple

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from utils import device as device_module
from utils.device import can_pin_memory, num_samples, prepare_device, to_device

META = torch.device("meta")
Pair = namedtuple("Pair", "data target")


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs there seem to be."""
    device_module._warn_once.cache_clear()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("wanted", "present", "name", "ids"), [
    (0, 0, "cpu", []), (0, 2, "cpu", []), (1, 0, "cpu", []), (1, 2, "cuda:0", [0]),
    (2, 2, "cuda:0", [0, 1]), (4, 2, "cuda:0", [0, 1])])
def test_first_gpus_are_taken_as_far_as_there_are(gpus, wanted, present, name, ids):
    gpus(present)
    assert prepare_device(wanted) == (torch.device(name), ids)


@pytest.mark.parametrize(("present", "text"), [
    (0, "no usable GPU: training on the CPU"), (2, "only 2: training on those")])
def test_too_few_gpus_are_a_warning_once(gpus, caplog, present, text):
    gpus(present)
    prepare_device(4)
    prepare_device(4)
    assert len(caplog.records) == 1 and text in caplog.text


def test_apples_gpu_serves_without_cuda(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert prepare_device(1) == (torch.device("mps"), [])


def test_every_kind_of_nested_batch_is_moved():
    """D53"""
    tensor = torch.zeros(2)
    batch = {"a": [tensor, (tensor, "text")], "b": Pair(tensor, 3)}
    moved = to_device(batch, META)
    assert moved["a"][0].device == moved["a"][1][0].device == moved["b"].data.device == META
    assert isinstance(moved["b"], Pair) and (moved["a"][1][1], moved["b"].target) == ("text", 3)
    assert tensor.device.type == "cpu"


def test_things_that_move_themselves_do():
    packed = to_device(pack_sequence([torch.zeros(3), torch.zeros(2)]), META)
    assert isinstance(packed, PackedSequence)
    assert packed.data.device == META and packed.batch_sizes.device.type == "cpu"


def test_memory_format_is_for_images_only():
    images, labels = to_device((torch.zeros(2, 3, 4, 4), torch.zeros(2)), torch.device("cpu"),
                               memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last) and labels.ndim == 1


@pytest.mark.parametrize(("batch", "count"), [
    (torch.zeros(5, 2), 5), ([torch.zeros(4), torch.zeros(9)], 4),
    ({"x": (torch.zeros(3),)}, 3), (torch.tensor(1.0), 1), ([], 1), ("text", 1)])
def test_samples_are_counted_in_the_first_tensor(batch, count):
    assert num_samples(batch) == count


@pytest.mark.parametrize("answer", [True, False])
def test_memory_is_pinned_where_there_is_cuda(monkeypatch, answer):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: answer)
    assert can_pin_memory() is answer
