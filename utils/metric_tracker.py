"""Means of a pass over the data, weighted by samples, kept on the device."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from utils.devices.processes import gathered, num_processes
from utils.errors import RunError


class MetricTracker:
    """Running means of named values, and metrics that are computed over the whole set.

    Nothing here waits for the device before ``avg`` or ``result`` is called, unless there is a
    writer, which gets each value as it comes.

    Args:
        keys: names in the order of the result; others may be updated as well and come after.
        writer: gets ``add_scalar(key, value)`` at each update.
        functions: of (output, target), for ``update_batch``: means over a batch.
        whole_set: objects of torchmetrics or others with ``update(output, target)``, ``compute``
            and ``reset``, for ``update_batch``: computed over all batches together. With a list
            ``entry_names``, the entries of a vector are named by it.

    Attributes:
        last: the value that each name was last updated with.
        observers: functions of (output, target) that ``update_batch`` calls after the metrics,
            without gradients. Not part of the state.
    """

    def __init__(self, *keys: str, writer: Any = None,
                 functions: dict[str, Callable[..., Any]] | None = None,
                 whole_set: dict[str, Any] | None = None) -> None:
        self.keys = keys
        self.writer = writer
        self.functions = functions or {}
        self.whole_set = whole_set or {}
        self.observers: list[Callable[[Any, Any], None]] = []
        self._stream: Any = None
        if self.functions or self.whole_set:
            from utils.rng import OwnStream  # needs torch, which takes seconds

            self._stream = OwnStream(may_draw_later=bool(self.whole_set))
        self.reset()

    def reset(self) -> None:
        self.last: dict[str, Any] = {}
        self._totals: dict[str, Any] = {}
        self._counts: dict[str, float] = dict.fromkeys(self.keys, 0)
        self._losses: list[str] = []
        if self.whole_set:
            from utils.rng import isolated

            with isolated(0):
                for metric in self.whole_set.values():
                    metric.reset()
        if self._stream is not None:
            self._stream.restart()

    def update(self, key: str, value: Any, n: float = 1) -> None:
        """Adds a mean over ``n`` samples: a number or a 0-d tensor, whose graph is not kept.

        Raises:
            RunError: it is neither.
        """
        n = float(n)  # numpy's numbers cannot go into a checkpoint
        if n == 0:  # a mean over nothing is NaN
            return
        if hasattr(value, "full_tensor"):  # of weights that are divided: by all processes
            value = value.full_tensor()
        if self.writer is not None:
            self.writer.add_scalar(key, value)
        if key not in self._totals and (key == "loss" or key.endswith("_loss")):
            self._losses.append(key)
        total = self._totals.get(key, 0.0)
        try:
            if not hasattr(value, "detach"):
                self.last[key] = float(value)
                self._totals[key] = total + self.last[key] * n
            elif value.is_cpu:
                self.last[key] = value.item()  # there is no device to wait for
                self._totals[key] = total + self.last[key] * n
            else:
                if value.numel() != 1:
                    raise ValueError
                self.last[key] = value.detach()
                self._totals[key] = self._add(total, self.last[key], n)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{key}: expected a number or a tensor with one element, got "
                           f"{_described(value)}") from error
        self._counts[key] = self._counts.get(key, 0) + n

    def update_batch(self, output: Any, target: Any, loss: Any, n: int) -> None:
        """Adds the loss and all metrics of a batch of ``n`` samples, then calls ``observers``.

        Metrics draw random numbers from a stream of their own: they change no training. (Those
        that draw have to do so at the first batch; of the whole set, with torch, at any.)
        """
        self.update("loss", loss, n)
        if self._stream is None and not self.observers:
            return
        import torch  # at the top it would make every --help take seconds

        with torch.no_grad():
            if self._stream is not None:
                with self._stream:
                    for name, function in self.functions.items():
                        self.update(name, function(output, target), n)
                    for metric in self.whole_set.values():
                        metric.update(output, target)
            for observer in self.observers:
                observer(output, target)

    def avg(self, key: str) -> float:
        """The mean so far; NaN for a key that was never updated. Waits for the device."""
        count = self._counts.get(key, 0)
        return float(self._totals[key]) / count if count else math.nan  # waits for the device

    def result(self) -> dict[str, Any]:
        """A fresh dict of the means, of several processes over the samples of all; what was never
        updated is absent. Waits for the device.

        Of a metric of the whole set: a number; a vector as one number for each entry
        (``name_0``, ..., or as ``entry_names`` say), a dict likewise (``name_key``); a table as
        nested lists.

        Raises:
            RunError: it is something else, or a vector of another length than its names.
        """
        totals, counts = self._of_all_processes()
        means: dict[str, Any] = {key: float(totals[key]) / count
                                 for key, count in counts.items() if count}
        if not means or not self.whole_set:
            return means
        from utils.rng import isolated

        with isolated(0), warnings.catch_warnings():  # what it saw before a resume is not counted
            warnings.filterwarnings("ignore", ".*was called before the ``update``.*")
            for name, metric in self.whole_set.items():
                if _is_plain(metric) and num_processes() > 1:
                    raise RunError(f"{name}: {type(metric).__name__} cannot be computed over "
                                   "several processes: derive it from torchmetrics.Metric")
                means |= _flat(name, metric.compute(), getattr(metric, "entry_names", None))
        return means

    def _of_all_processes(self) -> tuple[dict[str, Any], dict[str, float]]:
        if num_processes() == 1:
            return self._totals, self._counts
        totals: dict[str, Any] = {}
        counts: dict[str, float] = {}
        own = {key: (float(self._totals.get(key, 0.0)), count)
               for key, count in self._counts.items()}
        everywhere = gathered(own)
        idle = [number for number, theirs in enumerate(everywhere)
                if not any(count for _, count in theirs.values())]
        if self.whole_set and 0 < len(idle) < len(everywhere):
            raise RunError(f"of {len(everywhere)} processes {idle} had no sample, and cannot take "
                           f"part in {', '.join(self.whole_set)}: start fewer, or take smaller "
                           "batches")
        for theirs in everywhere:
            for key, (total, count) in theirs.items():
                totals[key], counts[key] = totals.get(key, 0.0) + total, counts.get(key, 0) + count
        return totals, counts

    def not_finite(self) -> str | None:
        """The name of a loss (``loss`` or ``..._loss``) of which not every value so far was finite,
        or None. Waits for the device."""
        for key in self._losses:
            if not math.isfinite(self._totals[key]):  # waits for the device
                return key
        return None

    def state_dict(self) -> dict[str, Any]:
        if not any(self._counts.values()):
            return {}
        return {"totals": dict(self._totals), "counts": dict(self._counts), "losses": self._losses,
                "last": dict(self.last), "metrics": [*self.functions, *self.whole_set],
                "stream": None if self._stream is None else self._stream.state_dict(),
                "whole_set": {name: _state_of(metric) for name, metric in self.whole_set.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        if not state:
            return
        self._totals = {key: total.clone() if hasattr(total, "clone") else total
                        for key, total in state["totals"].items()}
        self._counts, self.last = dict(state["counts"]), dict(state["last"])
        self._losses = list(state["losses"])
        if self._stream is not None and state["stream"] is not None:
            self._stream.load_state_dict(state["stream"])
            if state.get("metrics") != [*self.functions, *self.whole_set]:
                self._stream.watch()
        for name, metric in self.whole_set.items():
            if name in state["whole_set"]:
                _load_state(metric, state["whole_set"][name])

    @staticmethod
    def _add(total: Any, value: Any, n: float) -> Any:
        """Adds on ``value``'s device, without waiting for it."""
        if not hasattr(total, "add_"):
            # sums of many float32 lose digits; Apple's GPU has nothing longer
            total = (value.float() if value.device.type == "mps" else value.double()) * 0 + total
        if total.device != value.device:  # restored from a checkpoint
            total = total.to(value.device)
        return total.add_(value, alpha=n)


def make_tracker(metrics: Iterable[Any] | None, device: Any) -> MetricTracker:
    """A tracker of the loss and of metrics: functions, and torchmetrics objects, which it copies.

    Raises:
        ValueError: two metrics have one name.
    """
    named: dict[str, Any] = {"loss": None}
    for metric in metrics or ():
        name = getattr(metric, "__name__", type(metric).__name__)
        if name in named:
            raise ValueError(f"metrics: {name!r} is the name of two; set __name__ of one of them")
        named[name] = metric
    del named["loss"]
    whole_set = {name: _own_copy(metric, device) for name, metric in named.items()
                 if hasattr(metric, "compute")}
    functions = {name: metric for name, metric in named.items() if name not in whole_set}
    return MetricTracker("loss", *functions, functions=functions, whole_set=whole_set)


def _flat(name: str, value: Any, entry_names: list[str] | None = None) -> dict[str, Any]:
    """The result of a metric of the whole set, by names of the log."""
    if isinstance(value, dict):
        return {key: item for part, inner in value.items()
                for key, item in _flat(f"{name}_{part}", inner, entry_names).items()}
    if not hasattr(value, "ndim"):
        if not isinstance(value, (int, float)):
            raise RunError(f"{name}: expected a tensor, a number or a dict of such, got "
                           f"{_described(value)}")
        return {name: float(value)}
    if value.ndim == 0:
        if entry_names:
            raise RunError(f"{name}: gives one value, but its classes are {len(entry_names)}: "
                           f"{', '.join(entry_names)}; average: null gives one for each")
        return {name: float(value)}  # waits for the device
    if value.ndim == 1:
        entries = entry_names or list(map(str, range(len(value))))
        if len(entries) != len(value):
            raise RunError(f"{name}: gives {len(value)} values, but its classes are "
                           f"{len(entries)}: {', '.join(entries)}")
        return {f"{name}_{entry}": item for entry, item in zip(entries, value.tolist(),
                                                               strict=True)}
    return {name: value.tolist()}


def _own_copy(metric: Any, device: Any) -> Any:
    """A copy of a metric of the whole set."""
    own = copy.deepcopy(metric)
    return own.to(device) if hasattr(own, "to") else own


def _is_plain(metric: Any) -> bool:
    """Whether a metric is an object of one's own, whose attributes are its state: what is no data,
    functions say, is not looked at."""
    return not hasattr(metric, "state_dict")


def _state_of(metric: Any) -> dict[str, Any]:
    """What a metric of the whole set has seen."""
    if _is_plain(metric):
        return {key: _state_of(value) if hasattr(value, "state_dict") else copy.deepcopy(value)
                for key, value in vars(metric).items()
                if hasattr(value, "state_dict") or not callable(value)}
    return keep_what_it_saw(metric).state_dict()


def _load_state(metric: Any, state: dict[str, Any]) -> None:
    if _is_plain(metric):
        for key, value in copy.deepcopy(state).items():
            if hasattr(getattr(metric, key, None), "state_dict"):
                _load_state(getattr(metric, key), value)
            else:
                setattr(metric, key, value)
        return
    keep_what_it_saw(metric).load_state_dict(state)
    for module in metric.modules() if hasattr(metric, "modules") else ():
        if hasattr(module, "device"):
            module.to(module.device)


def keep_what_it_saw(thing: Any) -> Any:
    """The thing; a metric of torchmetrics, with what it has seen in its ``state_dict``."""
    if hasattr(thing, "compute") and hasattr(thing, "modules"):
        for module in thing.modules():
            if hasattr(module, "persistent"):
                module.persistent(True)
    return thing


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
