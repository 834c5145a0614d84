"""Losses."""

import torch.nn.functional as F
from torch import Tensor


def nll_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(output, target)
