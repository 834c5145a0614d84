"""Metrics: functions of (output, target) that return the mean over a batch."""

import math

import torch.nn.functional as F
from torch import Tensor


def bits_per_byte(output: Tensor, target: Tensor) -> Tensor:
    """Bits that a byte would cost if the text were packed with the model's predictions.

    Args:
        output: (batch, num_tokens, length) logits.
        target: (batch, length) bytes, int64.
    """
    return F.cross_entropy(output, target) / math.log(2)
