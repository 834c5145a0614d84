"""Losses: functions of (output, target), or classes of such objects."""

import torch.nn.functional as F
from torch import Tensor


def nll_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood.

    Args:
        output: (batch, classes) log-probabilities.
        target: (batch,) class indices, int64.
    """
    return F.nll_loss(output, target)
