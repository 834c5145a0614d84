"""When a learning rate scheduler of torch wants its step, and with what."""

from typing import Any

from torch.optim import lr_scheduler as torch_schedulers

EACH_BATCH = (torch_schedulers.OneCycleLR, torch_schedulers.CyclicLR)


def steps_each_batch(scheduler: Any, interval: str | None = None) -> bool:
    """Whether ``step`` is due after each batch rather than each epoch.

    Args:
        interval: "step" or "epoch" as the config says; None goes by the scheduler's class.
    """
    if scheduler is None:
        return False
    if interval is not None:
        return interval == "step"
    return isinstance(scheduler, EACH_BATCH)


def takes_value(scheduler: Any) -> bool:
    """Whether ``step`` wants the monitored value: ReduceLROnPlateau."""
    return isinstance(scheduler, torch_schedulers.ReduceLROnPlateau)
