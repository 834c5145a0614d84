"""What a batch may be: moved to a device, counted, described."""

import dataclasses
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from utils.batches import after_samples, data_and_target, num_samples, shapes, tensors_in, to_device
from utils.errors import RunError

META = torch.device("meta")
Pair = namedtuple("Pair", "data target")
BOXES = [{"boxes": torch.zeros(count, 4), "labels": torch.zeros(count)} for count in (2, 0, 5)]


@dataclasses.dataclass(frozen=True)
class Sample:
    name: str
    image: Any
    size: int = dataclasses.field(init=False, default=0)


class Graphs:
    """As graph libraries have batches: an object that moves itself and says how many it holds."""

    num_graphs = 4

    def to(self, device: torch.device) -> str:
        return f"on {device}"


def test_every_kind_of_nested_batch_is_moved() -> None:
    tensor = torch.zeros(2)
    batch = {"a": [tensor, (tensor, "text")], "b": Pair(tensor, 3), "c": Sample("x", tensor)}
    moved = to_device(batch, META)
    assert {item.device for item in tensors_in(moved)} == {META}
    assert moved["a"][1][1] == "text" and type(moved["b"]) is Pair and moved["b"].target == 3
    assert moved["c"].name == "x" and tensor.device.type == "cpu"


def test_things_that_move_themselves_do() -> None:
    packed, graphs = to_device((pack_sequence([torch.zeros(3), torch.zeros(2)]), Graphs()), META)
    assert isinstance(packed, PackedSequence) and graphs == "on meta"
    assert packed.data.device == META and packed.batch_sizes.device.type == "cpu"


def test_memory_format_is_for_images_only() -> None:
    images, labels = to_device((torch.zeros(2, 3, 4, 4), torch.zeros(2)), torch.device("cpu"),
                               channels_last=True)
    assert images.is_contiguous(memory_format=torch.channels_last) and labels.ndim == 1


@pytest.mark.parametrize(("batch", "count"), [
    (torch.zeros(5, 2), 5),
    ([torch.zeros(4), torch.zeros(9)], 4),
    ((torch.zeros(4, 2), None), 4),
    ((torch.zeros(3, 2), ["a", "b", "c"]), 3),
    ([["ab", "c", "de"], torch.zeros(3)], 3),
    (["ab", "c"], 2), ({"text": "ab", "id": 7}, 1), ({"text": ["ab", "c"]}, 2),
    ([5, 6, 7], 3),
    (([torch.zeros(1, 8, 8), torch.zeros(1, 9, 9), torch.zeros(1, 7, 7)], BOXES), 3),
    (([torch.zeros(8), torch.zeros(6)], None), 2),
    (([torch.zeros(8, 2), torch.zeros(8, 3)], torch.zeros(8)), 8),
    (([torch.zeros(8, 2), torch.zeros(8, 3)], None), 8),
    ({"epoch": torch.tensor(3), "id": 7, "x": torch.zeros(4, 2)}, 4),
    ({"x": (torch.zeros(3),)}, 3),
    ((({"tokens": torch.zeros(6, 2)}, torch.zeros(6)), "text"), 6),
    (Pair(torch.zeros(2), None), 2),
    (Sample("name", torch.zeros(5, 1)), 5),
    (Graphs(), 4),
    ((Graphs(), torch.zeros(4)), 4),
    (((torch.zeros(3, 8, 8),) * 5, (7,) * 5), 5),
    (([torch.zeros(8), torch.zeros(6)] * 4, [torch.zeros(5), torch.zeros(6)] * 4), 8),
    (([[5, 6], [7]] * 4, [[1, 1], [1]] * 4), 8),
    (((torch.zeros(8, 3), torch.zeros(8)), (torch.zeros(24, 3), torch.zeros(24))), 8),
    (({"x": torch.zeros(8), "max": 5}, {"x": torch.zeros(24), "max": 7}), 8),
    (((torch.zeros(8), None), (torch.zeros(8), None)), 8),
    ({"extra": torch.zeros(0, 4), "data": torch.zeros(8, 6)}, 8),
    ([torch.tensor(7)] * 5, 5), ([np.float32(7)] * 5, 5), ([b"ab"] * 5, 5), ([object()] * 5, 1),
    (({"ids": torch.zeros(6, 2), "mask": torch.zeros(6)},) * 3, 6),
    (((torch.zeros(6, 2), torch.zeros(6)), (torch.zeros(6), torch.zeros(6, 1))), 6),
    (((torch.zeros(6, 2), ["text"] * 6), (torch.zeros(6, 2), ["text"] * 6)), 6),
    (torch.tensor(1.0), 1), ([], 1), ("text", 1), (None, 1)], ids=shapes)
def test_samples_are_counted_whatever_the_batch_is(batch: Any, count: int) -> None:
    assert num_samples(batch) == count


@pytest.mark.parametrize(("skip", "left"), [(0, [3, 3, 2]), (3, [3, 2]), (6, [2]), (8, []),
                                            (99, [])])
def test_batches_up_to_a_sample_are_dropped(skip: int, left: list[int]) -> None:
    batches = iter([torch.zeros(count) for count in (3, 3, 2)])
    assert [len(batch) for batch in after_samples(batches, skip)] == left


def test_sample_at_which_no_batch_ends_is_refused() -> None:
    with pytest.raises(RunError, match=r"no batch ends.*batch_size and num_workers"):
        list(after_samples(iter([torch.zeros(3), torch.zeros(3)]), 4))


@pytest.mark.parametrize(("batch", "text"), [
    (torch.zeros(2, 3, dtype=torch.uint8), "uint8 (2, 3)"), (torch.tensor(1.0), "float32 ()"),
    ({"data": torch.zeros(1), "target": [torch.zeros(2)]},
     "{data: float32 (1,), target: (float32 (2,))}"),
    ([1, 2, 3, 4, 5], "(int, int, int, int, ...)"), ("text", "str"), (None, "NoneType")])
def test_shapes_follow_the_structure(batch: Any, text: str) -> None:
    assert shapes(batch) == text


@dataclasses.dataclass
class Labelled:
    data: torch.Tensor
    target: torch.Tensor


ONE, TWO = torch.zeros(2, 3), torch.ones(2)


@pytest.mark.parametrize("batch", [
    (ONE, TWO), [ONE, TWO], {"data": ONE, "target": TWO, "name": ["a", "b"]}, Labelled(ONE, TWO)])
def test_data_and_target_are_found(batch: Any) -> None:
    data, target = data_and_target(batch)
    assert data is ONE and target is TWO


@pytest.mark.parametrize(("batch", "shown"), [
    ((ONE, TWO, TWO), r"\(float32 \(2, 3\), float32 \(2,\), float32 \(2,\)\)"),
    (ONE, r"float32 \(2, 3\)"), ({"image": ONE}, r"\{image: float32 \(2, 3\)\}")])
def test_batch_without_them_is_shown_with_what_to_override(batch: Any, shown: str) -> None:
    with pytest.raises(RunError, match=f"got {shown}: .*split_batch in trainer/trainer.py"):
        data_and_target(batch)
