"""Metrics."""

import torch

from model.loss import as_numbers


def right(output: torch.Tensor, target: list[str]) -> torch.Tensor:
    return ((output > 0).float() == as_numbers(target)).float().mean()
