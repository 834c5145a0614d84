"""Weights and gradients of several processes: summed, given to all, compared."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from utils.devices.processes import gathered, num_processes
from utils.devices.sharding import is_divided
from utils.errors import ConfigError, RunError

if TYPE_CHECKING:
    import torch

BUCKET = 2**23  # numbers that are sent at once


def sum_gradients(parameters: Sequence["torch.nn.Parameter"], num_samples: int) -> None:
    """Gives all processes the mean gradient over the samples of all.

    Args:
        parameters: the same in each; they may have gradients in some of them only.
        num_samples: of which the gradients here are the mean.

    Raises:
        ConfigError: a gradient is sparse.
    """
    import torch
    from torch import distributed

    with torch.no_grad():
        for bucket in _buckets([one for one in parameters if one.requires_grad]):
            if any(one.grad is not None and one.grad.is_sparse for one in bucket):
                raise ConfigError("several processes cannot share sparse gradients, as those of an "
                                  "Embedding with sparse=True: leave that out")
            exact = torch.promote_types(bucket[0].dtype, torch.float32)
            parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
            # after the gradients: who has one, and the samples
            counts = torch.tensor([*(one.grad is not None for one in bucket), 1.0],
                                  dtype=exact, device=bucket[0].device)
            flat = torch.cat([*(one.flatten().to(exact) for one in parts), counts])
            distributed.all_reduce(flat.mul_(num_samples))
            *summed, counts = flat.split([*_sizes(bucket), len(counts)])
            *has_some, total = counts.split(1)
            for one, part, somewhere in zip(bucket, summed, has_some, strict=True):
                if one.grad is not None or somewhere:  # the latter waits for the device
                    # in the layout of the weight, as optimizers may read memory as it lies
                    one.grad = torch.empty_like(one).copy_(part.div_(total).view_as(one))


def _buckets(tensors: Sequence[Any]) -> Iterator[list[Any]]:
    """Neighbours of one type, as many as are sent at once."""
    bucket: list[Any] = []
    count = 0
    for one in tensors:
        if bucket and (one.dtype != bucket[0].dtype or count > BUCKET):
            yield bucket
            bucket, count = [], 0
        bucket.append(one)
        count += one.numel()
    if bucket:
        yield bucket


def _sizes(tensors: Sequence[Any]) -> list[int]:
    return [one.numel() for one in tensors]


def broadcast_state(module: "torch.nn.Module", *, buffers_only: bool = False) -> None:
    """Gives all processes the main one's weights and buffers of a network."""
    if num_processes() > 1:
        broadcast_tensors([*module.buffers()] if buffers_only else [
            *module.parameters(), *module.buffers()])


def broadcast_tensors(tensors: Sequence["torch.Tensor"]) -> None:
    """Gives all processes what the main one has in them, except where each has a part."""
    import torch
    from torch import distributed

    with torch.no_grad():
        tensors = [one for one in tensors if not is_divided(one)]
        for bucket in _buckets(sorted(tensors, key=lambda one: str(one.dtype))):
            flat = torch.cat([one.flatten() for one in bucket])
            distributed.broadcast(flat, 0)
            for one, part in zip(bucket, flat.split(_sizes(bucket)), strict=True):
                one.copy_(part.view_as(one))


def check_equal_weights(named: dict[str, "torch.Tensor"]) -> None:
    """Whether the processes have the same weights, as they must, except where each has a part.

    Args:
        named: the weights by a name.

    Raises:
        RunError: they went different ways.
    """
    named = {name: one for name, one in named.items() if not is_divided(one)}
    sums = [_sum_of(one.detach()) for one in named.values()]
    everywhere = gathered(list(map(repr, sums)))  # NaN is no number, but the same text
    names = [name for name, *texts in zip(named, *everywhere, strict=True) if len({*texts}) > 1]
    if names:
        raise RunError(f"the weights of the processes differ: {', '.join(names[:5])}. Each "
                       "optimizer has to be stepped by self.step(), each loss to come from the "
                       "same calls in all processes")


def _sum_of(weights: "torch.Tensor") -> float:
    import torch

    weights = torch.view_as_real(weights) if weights.is_complex() else weights
    return float(weights.double().sum())  # waits for the device
