"""Optimizers and schedules of your own; the config finds those of torch without this file."""

import math
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from utils.errors import ConfigError


class WarmupCosine(LambdaLR):
    """Rises from near 0 to the full lr in a straight line, then falls along half a cosine.

    After SGDR (https://arxiv.org/abs/1608.03983), without restarts.

    Args:
        optimizer: whose lr it sets, after each of its steps.
        warmup_steps: until the full lr is reached; a shorter run ends below it.
        total_steps: at whose end the lr is ``min_factor`` of the full one, and stays there; if that
            is 0, the run must not be longer. If the config does not say, those of the run.
        min_factor: from 0 to 1.
    """

    interval = "step"

    def __init__(self, optimizer: Any, warmup_steps: int, total_steps: int,
                 min_factor: float = 0.0) -> None:
        if warmup_steps < 0:
            raise ConfigError(f"WarmupCosine: warmup_steps must be at least 0, got {warmup_steps}")

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
            return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * progress)) / 2

        if min_factor == 0:  # a run that is longer would go on without learning
            self.total_steps = total_steps
        super().__init__(optimizer, factor)
