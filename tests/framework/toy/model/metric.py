"""Metrics."""

from torch import Tensor


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(dim=1) == target).float().mean()


def top_k_acc(output: Tensor, target: Tensor, k: int = 2) -> Tensor:
    found = output.topk(k, dim=1).indices == target.unsqueeze(1)
    return found.any(dim=1).float().mean()
