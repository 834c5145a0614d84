from collections import Counter, OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from base.checkpoint.host_copy import copy_to_host

TENSORS = {
    "vector": torch.randn(3), "empty": torch.zeros(0), "number": torch.tensor(5),
    "transposed": torch.randn(2, 3).t(), "expanded": torch.ones(1).expand(4),
    "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "bfloat16": torch.randn(3).bfloat16(), "parameter": nn.Parameter(torch.randn(2)),
    "view": torch.randn(9)[2:5], "complex": torch.randn(2, dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_copy_of_a_tensor_is_equal_and_apart(tensor: torch.Tensor) -> None:
    copied = copy_to_host(tensor)
    assert torch.equal(copied, tensor) and copied.dtype == tensor.dtype
    assert not copied.requires_grad
    assert tensor.numel() == 0 or copied.data_ptr() != tensor.data_ptr()


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:torch.quantize")
@pytest.mark.parametrize("make", [
    torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr,
    lambda tensor: torch.quantize_per_tensor(tensor, 0.5, 0, torch.qint8)],
    ids=["coo", "csr", "quantized"])
def test_tensors_of_other_layouts_are_copied_anew(make: Any) -> None:
    tensor = make(torch.eye(3))
    for buffers in (None, make(torch.ones(3, 3)), torch.ones(3, 3)):
        copied = copy_to_host(tensor, buffers)
        dense = copied.dequantize() if copied.is_quantized else copied.to_dense()
        assert torch.equal(dense, torch.eye(3)) and copied.layout == tensor.layout


@pytest.mark.parametrize("buffers", [
    None, {"a": torch.zeros(2)}, {"a": torch.zeros(3, dtype=torch.int64)}, {"a": 3}, [1], {},
    {"a": torch.zeros(3, 2)[:, 0]}])
def test_buffers_that_do_not_fit_are_not_used(buffers: Any) -> None:
    copied = copy_to_host({"a": torch.tensor([1.5, 2.5, 3.5])}, buffers)
    assert torch.equal(copied["a"], torch.tensor([1.5, 2.5, 3.5]))


def test_buffers_that_fit_are_written_over() -> None:
    state = {"a": [torch.ones(2), (torch.ones(3), 1)], "b": torch.zeros(1)}
    buffers = copy_to_host(state)
    state["a"][1][0].fill_(7)
    copied = copy_to_host(state, buffers)
    assert copied["a"][1][0].data_ptr() == buffers["a"][1][0].data_ptr()
    assert copied["a"][1][0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("content", [
    Counter([2, 2, 5]), {"milestones": Counter({3: 1})}, OrderedDict(a=[torch.ones(1)], b=(1, "x")),
    torch.Size([1, 2]), (1, [2, {"a": None}]), {1: 2, (3, 4): "x"}, b"x", torch.float16], ids=str)
def test_containers_keep_their_types_and_counts(content: Any) -> None:
    copied = copy_to_host(content)
    assert copied == content and type(copied) is type(content)


def test_attributes_of_a_state_dict_are_copied() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    assert copy_to_host(state)._metadata == state._metadata
