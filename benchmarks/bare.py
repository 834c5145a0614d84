"""The bare loop: what PyTorch itself costs for the example, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_loader.data_loaders import normalise, read_mnist
from model.loss import nll_loss
from model.model import MnistModel
from utils.rng import set_seed

NUM_VALID = 6000


class BareLoop:
    """LeNet on MNIST in memory: shuffle, index, normalise, forward, backward, step; validate.

    Args:
        channels_last: memory format of images and model.
        options: for Adam.
    """

    def __init__(self, data_dir: Path, batch_size: int, *, channels_last: bool,
                 **options: Any) -> None:
        set_seed(123)
        images, labels = read_mnist(data_dir, "train")
        self.train, self.valid = ((images[part], labels[part]) for part in (
            slice(NUM_VALID, None), slice(NUM_VALID)))
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.batch_size = batch_size
        self.model = MnistModel().to(memory_format=self.format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), **options)

    def batches(self, part: tuple[torch.Tensor, torch.Tensor],
                order: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images, labels = part
        for indices in order.split(self.batch_size):
            data = normalise(images.index_select(0, indices))  # faster than images[indices]
            yield data.to(memory_format=self.format), labels[indices]

    def epoch(self) -> None:
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """An epoch, a training step at a time; validation comes with its end."""
        self.model.train()
        for data, target in self.batches(self.train, torch.randperm(len(self.train[0]))):
            self.optimizer.zero_grad(set_to_none=True)
            nll_loss(self.model(data), target).backward()
            self.optimizer.step()
            yield
        self.model.eval()
        with torch.inference_mode():
            for data, target in self.batches(self.valid, torch.arange(NUM_VALID)):
                nll_loss(self.model(data), target)


def tiny_steps(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """One tiny linear layer, batches ready in memory."""
    model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for data, target in batches:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(data), target).backward()
        optimizer.step()
        yield
