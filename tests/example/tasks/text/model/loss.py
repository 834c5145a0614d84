"""Losses."""

import torch
import torch.nn.functional as F


def label_loss(output: torch.Tensor, target: list[str]) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(output, as_numbers(target))


def as_numbers(labels: list[str]) -> torch.Tensor:
    return torch.tensor([float(label == "positive") for label in labels])
