"""For optimizers that evaluate the loss several times in one step, as LBFGS does."""

from collections.abc import Callable
from typing import Any

import torch

from utils.metric_tracker import MetricTracker


def loss_again(trainer: Any) -> Callable[[], torch.Tensor]:
    """A function that evaluates loss and gradients: at first those that the trainer's step has
    just computed, then by that step, made again on the same batch without its update and without
    being counted in the metrics."""
    known = [trainer._loss] if trainer._loss is not None else []

    def closure() -> torch.Tensor:
        if known:
            return known.pop()
        batch, batch_idx = trainer._batch
        metrics, trainer.train_metrics = trainer.train_metrics, MetricTracker()
        trainer._is_evaluating_again = True
        try:
            return trainer._train_step(batch, batch_idx)[2]
        finally:
            trainer._is_evaluating_again, trainer.train_metrics = False, metrics

    return closure
