"""Whether the losses are finite."""

from typing import Any

from base.callback import Callback
from base.optimizers import learning_rates
from utils.devices.processes import first_problem, num_processes
from utils.errors import RunError


class LossCheck(Callback):
    """Ends a run whose loss is NaN or infinite, before anything of it is saved.

    Looks at each batch on the CPU, where that costs nothing; on a device or in other processes,
    which would have to be waited for, at log points.
    """

    adds_to_log = False

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        is_free = trainer.device.type == "cpu" and num_processes() == 1
        is_due = is_free or batch_idx % trainer.log_step == 0
        if is_due and (name := _not_finite(trainer)):
            raise _error(trainer, name, f"batch {batch_idx}", batch if is_free else None)

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        if name := _not_finite(trainer):
            raise _error(trainer, name, "one of its last batches", None)


def _not_finite(trainer: Any) -> str | None:
    """The name of such a loss, of any process: together, or nobody would know of it."""
    tracker = trainer.train_metrics
    return first_problem(tracker.not_finite() if hasattr(tracker, "not_finite") else None)


def _error(trainer: Any, name: str, where: str, batch: Any) -> RunError:
    indices, counters, loader = None, trainer.counters, trainer.data_loader
    if batch is not None and hasattr(loader, "samples_at"):
        size = trainer.train_data.size
        indices = loader.samples_at(counters.passes, counters.samples - size, size)
    lrs = ", ".join(f"{key} {lr:g}" for key, lr in learning_rates(trainer.optimizer).items())
    samples = "" if indices is None else f" The samples of the batch: {indices}."
    where += " or before" if batch is None else ""
    return RunError(f"the {name} is not finite (epoch {counters.epoch + 1}, {where}, {lrs})."
                    f"{samples} Look at the data, try a lower lr; the last checkpoint is from "
                    "before")
