"""The best epoch so far, and when to stop waiting for a better one."""

import logging
import math
from typing import Any

logger = logging.getLogger(__name__)


class Monitor:
    """Compares one value of each epoch's log with the best so far.

    Args:
        setting: ``min NAME``, ``max NAME`` or ``off``.
        patience: epochs without improvement after which to stop; 0 or less is never.
        min_delta: by how much a value must be better to count; a tie never does.

    Attributes:
        mode: "min", "max" or "off". metric: the name in the log, or None.
        best: best value so far, an infinity before the first.
        epochs_without_improvement: since the best one.
    """

    def __init__(self, setting: str = "off", *, patience: float = 0,
                 min_delta: float = 0.0) -> None:
        self.mode, _, name = setting.partition(" ")
        self.metric: str | None = name or None
        if self.mode not in ("min", "max") or not name:
            if setting != "off":
                logger.warning("monitor must be 'min NAME', 'max NAME' or 'off', got %r: it is off",
                               setting)
            self.mode, self.metric = "off", None
        self.patience = patience
        self.min_delta = min_delta
        self.best = {"min": math.inf, "max": -math.inf, "off": 0.0}[self.mode]
        self.epochs_without_improvement = 0
        self._is_warned = False

    def update(self, log: dict[str, Any]) -> bool:
        """Takes an epoch's log; whether it is the best so far. NaN is never an improvement."""
        if self.mode == "off":
            return False
        if self.metric not in log:
            if not self._is_warned:
                logger.warning("monitor watches %r, but the epoch log has %s: neither a best model "
                               "nor early stopping without it", self.metric, sorted(log))
            self._is_warned = True
            return False
        value = float(log[self.metric])
        gain = self.best - value if self.mode == "min" else value - self.best
        is_best = gain > self.min_delta
        if is_best:
            self.best = value
        self.epochs_without_improvement = 0 if is_best else self.epochs_without_improvement + 1
        return is_best

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.mode != "off" and 0 < self.patience <= self.epochs_without_improvement

    def state_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "metric": self.metric, "best": float(self.best),
                "epochs_without_improvement": self.epochs_without_improvement}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting; a best value of another metric is not taken over."""
        if (state["mode"], state["metric"]) != (self.mode, self.metric):
            logger.warning("the monitor was %s %s and is %s %s now: the best value starts anew",
                           state["mode"], state["metric"] or "", self.mode, self.metric or "")
            return
        self.best = state["best"]
        self.epochs_without_improvement = state["epochs_without_improvement"]
