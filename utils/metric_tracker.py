"""Means of a pass over the data, weighted by samples, kept on the device."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from utils.device import to_device
from utils.errors import ConfigError

MAX_WAITING = 64
MAX_WAITING_BYTES = 1 << 16


class MetricTracker:
    """Running means of named values, and metrics that are computed over the whole set.

    Nothing here waits for the device before ``avg`` or ``result`` is called, unless there is a
    writer, which gets each value as it comes.

    Args:
        keys: names in the order of the result; others may be updated as well and come after.
        writer: gets ``add_scalar(key, value)`` at each update.
        functions: of (output, target), for ``update_batch``: means over a batch.
        whole_set: objects of torchmetrics' protocol (``update``, ``compute``, ``reset``), for
            ``update_batch``: computed over all batches together.
    """

    def __init__(self, *keys: str, writer: Any = None,
                 functions: dict[str, Callable[..., Any]] | None = None,
                 whole_set: dict[str, Any] | None = None) -> None:
        self.keys = keys
        self.writer = writer
        self.functions = functions or {}
        self.whole_set = whole_set or {}
        self.reset()

    def reset(self) -> None:
        self._totals: dict[str, Any] = {}
        self._waiting: list[tuple[Any, Any, Any, int]] = []
        self._counts: dict[str, float] = dict.fromkeys(self.keys, 0)
        for metric in self.whole_set.values():
            metric.reset()

    def update(self, key: str, value: Any, n: float = 1) -> None:
        """Adds a mean over ``n`` samples: a number or a 0-d tensor, whose graph is not kept."""
        n = float(n)  # numpy's numbers cannot go into a checkpoint
        if self.writer is not None:
            self.writer.add_scalar(key, value)
        total = self._totals.get(key, 0.0)
        if not hasattr(value, "detach"):
            self._totals[key] = total + float(value) * n
        elif value.is_cpu:
            self._totals[key] = total + value.item() * n  # there is no device to wait for
        else:
            self._totals[key] = self._add(total, value.detach(), n)
        self._counts[key] = self._counts.get(key, 0) + n

    def update_batch(self, output: Any, target: Any, loss: Any, n: int) -> None:
        """Adds the loss and all metrics of a batch of ``n`` samples.

        Small outputs wait for some more, each then evaluated by itself: a metric that runs right
        after itself takes less than half of the time that it takes after a training step.
        """
        if not self.functions and not self.whole_set:
            self.update("loss", loss, n)
            return
        is_small = getattr(output, "nbytes", MAX_WAITING_BYTES) < MAX_WAITING_BYTES
        value = loss.item() if getattr(loss, "is_cpu", False) else loss  # no graph is kept
        self._waiting.append((output.detach() if is_small else output, target,
                              value.detach() if hasattr(value, "detach") else value, n))
        if not is_small or self.writer is not None or len(self._waiting) == MAX_WAITING:
            self._evaluate()

    def _evaluate(self) -> None:
        """Adds the batches that wait."""
        if not self._waiting:
            return
        import torch  # at the top it would make every --help take seconds

        waiting, self._waiting = self._waiting, []
        with torch.no_grad():
            for _, _, loss, n in waiting:
                self.update("loss", loss, n)
            for name, function in self.functions.items():
                for output, target, _, n in waiting:
                    self.update(name, function(output, target), n)
            for metric in self.whole_set.values():
                for output, target, _, _ in waiting:
                    metric.update(output, target)

    def avg(self, key: str) -> float:
        """The mean so far; NaN for a key that was never updated. Waits for the device."""
        self._evaluate()
        count = self._counts.get(key, 0)
        return float(self._totals[key]) / count if count else math.nan  # waits for the device

    def result(self) -> dict[str, float]:
        """A fresh dict of the means; what was never updated is absent. Waits for the device."""
        self._evaluate()
        means = {key: self.avg(key) for key, count in self._counts.items() if count}
        return means | self._whole_set_result()

    def is_finite(self, key: str) -> bool:
        """Whether every value of ``key`` so far was finite. Waits for the device."""
        self._evaluate()
        return key not in self._totals or math.isfinite(float(self._totals[key]))

    def state_dict(self) -> dict[str, Any]:
        self._evaluate()
        return {
            "totals": dict(self._totals),
            "counts": dict(self._counts),
            "whole_set": {name: {field: getattr(metric, field) for field in metric._defaults}
                          | {"update_count": metric._update_count}
                          for name, metric in self.whole_set.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self._totals = {key: total.clone() if hasattr(total, "clone") else total
                        for key, total in state["totals"].items()}
        self._counts = dict(state["counts"])
        for name in self.whole_set.keys() & state["whole_set"].keys():
            metric, fields = self.whole_set[name], dict(state["whole_set"][name])
            metric._update_count = fields.pop("update_count")
            for field, value in fields.items():
                setattr(metric, field, to_device(value, metric.device))

    @staticmethod
    def _add(total: Any, value: Any, n: float) -> Any:
        """Adds on ``value``'s device, without waiting for it."""
        if not hasattr(total, "add_"):
            # sums of many float32 lose digits; Apple's GPU has nothing longer
            total = (value.float() if value.device.type == "mps" else value.double()) * 0 + total
        if total.device != value.device:  # restored from a checkpoint
            total = total.to(value.device)
        return total.add_(value, alpha=n)

    def _whole_set_result(self) -> dict[str, float]:
        values = {}
        for name, metric in self.whole_set.items():
            if not metric.update_called:
                continue
            value = metric.compute()
            if getattr(value, "ndim", 0) == 0:
                values[name] = float(value)
            else:  # a value for each class
                values |= {f"{name}_{i}": float(item) for i, item in enumerate(value.flatten())}
        return values


def make_tracker(metrics: Iterable[Any] | None, device: Any) -> MetricTracker:
    """A tracker of the loss and of metrics: functions, and torchmetrics objects, which it copies.

    Raises:
        ConfigError: two metrics have one name.
    """
    metrics = list(metrics or ())
    names = ["loss", *(metric_name(metric) for metric in metrics)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"metrics: {name!r} is the name of two; give one another by "
                              '{"type": ..., "args": {...}, "name": "..."}')
    functions = {metric_name(metric): metric for metric in metrics
                 if not hasattr(metric, "compute")}
    whole_set = {metric_name(metric): copy.deepcopy(metric).to(device) for metric in metrics
                 if hasattr(metric, "compute")}
    return MetricTracker("loss", *functions, functions=functions, whole_set=whole_set)


def metric_name(metric: Any) -> str:
    return getattr(metric, "__name__", type(metric).__name__)
