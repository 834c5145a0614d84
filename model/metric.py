"""Metrics: functions of (output, target) that return the mean over a batch.

Metrics of a whole set (F1, AUROC, ...) are named in the config as classes of torchmetrics.
"""

from torch import Tensor


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of samples whose class has the highest score.

    Args:
        output: (batch, classes) scores; logits or log-probabilities.
        target: (batch,) class indices, int64.

    Returns:
        0-dim float32 in [0, 1], on ``output``'s device. Does not wait for the device.
    """
    return (output.argmax(dim=1) == target).count_nonzero() / len(target)


def top_k_acc(output: Tensor, target: Tensor, k: int = 3) -> Tensor:
    """Share of samples whose class is among the ``k`` highest scores.

    Args:
        output: (batch, classes) scores; logits or log-probabilities.
        target: (batch,) class indices, int64.
        k: at most ``classes``.

    Returns:
        0-dim float32 in [0, 1], on ``output``'s device. Does not wait for the device.
    """
    found = output.topk(k, dim=1, sorted=False).indices == target.unsqueeze(1)  # (batch, k)
    return found.count_nonzero() / len(target)
