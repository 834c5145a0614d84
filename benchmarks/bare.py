"""Bare loops: what PyTorch itself costs, and nothing else; and a trainer to hold against them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from data_loader.data_loaders import normalise, read_mnist
from model.loss import nll_loss
from model.model import MnistModel
from parse_config import ConfigParser
from trainer import Trainer
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


def tiny_steps(batches: list[tuple[torch.Tensor, torch.Tensor]],
               metrics: list[Any]) -> Iterator[None]:
    """One tiny linear layer, batches ready in memory, loss and metrics summed at each step."""
    model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    totals = [torch.zeros((), dtype=torch.float64) for _ in ["loss", *metrics]]
    for data, target in batches:
        optimizer.zero_grad()
        output = model(data)
        loss = nn.functional.cross_entropy(output, target)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            totals[0].add_(loss, alpha=len(target))
            for total, metric in zip(totals[1:], metrics, strict=True):
                total.add_(metric(output, target), alpha=len(target))
        yield


class FolderLoop:
    """A small convolutional network on image files that torch's DataLoader reads one by one."""

    def __init__(self, dataset: Any, batch_size: int, num_workers: int) -> None:
        set_seed(123)
        self.loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers,
                                 persistent_workers=True)
        self.model = small_network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def epoch(self) -> None:
        self.model.train()
        total = torch.zeros((), dtype=torch.float64)
        for data, target in self.loader:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(data), target)
            loss.backward()
            self.optimizer.step()
            total.add_(loss.detach(), alpha=len(target))


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


class TokenLoop:
    """A small Transformer that predicts the next token of blocks out of one array."""

    def __init__(self, blocks: torch.Tensor, batch_size: int) -> None:
        set_seed(123)
        self.blocks, self.batch_size = blocks, batch_size
        self.model = TokenModel()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def steps(self) -> Iterator[None]:
        self.model.train()
        total = torch.zeros((), dtype=torch.float64)
        for indices in torch.randperm(len(self.blocks)).split(self.batch_size):
            tokens = self.blocks.index_select(0, indices).long()
            self.optimizer.zero_grad()
            loss = next_token_loss(self.model(tokens), tokens)
            loss.backward()
            self.optimizer.step()
            total.add_(loss.detach(), alpha=len(indices))
            yield


class GptLoop:
    """The example's GPT on windows of bytes, with clipped gradients."""

    def __init__(self, model: nn.Module, windows: torch.Tensor, batch_size: int,
                 max_norm: float) -> None:
        self.model, self.windows, self.batch_size = model, windows, batch_size
        self.max_norm = max_norm
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def steps(self) -> Iterator[None]:
        self.model.train()
        total, norms = (torch.zeros((), dtype=torch.float64) for _ in range(2))
        for indices in torch.randperm(len(self.windows)).split(self.batch_size):
            tokens = self.windows.index_select(0, indices).long()
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(tokens[:, :-1]), tokens[:, 1:])
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
            self.optimizer.step()
            total.add_(loss.detach(), alpha=len(indices))
            norms.add_(norm, alpha=len(indices))
            yield


class TokenModel(nn.Module):
    def __init__(self, vocabulary: int = 96, width: int = 64, length: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, length) tokens to (batch, length, vocabulary) logits."""
        return self.head(self.layers(self.embedding(tokens), mask=self.mask, is_causal=True))


def next_token_loss(output: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def plain_trainer(folder: str, model: nn.Module, loss: Any, optimizer: Any, loader: Any,
                  metrics: Sequence[Any] = (), kind: Any = Trainer, device: str = "cpu",
                  **settings: Any) -> Trainer:
    """A trainer of anything, without validation, that saves nothing."""
    config = ConfigParser({"name": "plain", "n_gpu": 0, "trainer": {
        "epochs": 10000, "save_freq": 10000, "save_dir": folder, "log_histograms": False,
        "log_images": False, **settings}})
    return kind(model, loss, list(metrics), optimizer, config, torch.device(device), loader)
