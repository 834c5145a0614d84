"""Losses: functions of (output, target), or classes of such objects."""

import torch.nn.functional as F
from torch import Tensor


def byol_loss(output: Tensor, target: Tensor) -> Tensor:
    """How far predicted directions are from those of the target, from 0 to 4.

    Args:
        output, target: (batch, num_projected).
    """
    return 2 - 2 * F.cosine_similarity(output, target).mean()
