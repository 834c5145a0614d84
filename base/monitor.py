"""The best epoch so far, and when to stop waiting for a better one (early stopping)."""

import logging
import math
from typing import Any

from utils.config.misspellings import misspelling_of
from utils.errors import ConfigError

logger = logging.getLogger(__name__)


class Monitor:
    """Compares one value of each epoch's log with the best so far.

    Args:
        setting: ``min NAME``, ``max NAME`` or ``off``.
        patience: epochs without improvement after which to stop; 0 or less is never.
        min_delta: by how much a value must be better to count; a tie never does.
        keep: how many of the best are kept as files.
        by_steps: whether the values come by steps rather than epochs, for the names of these files.

    Attributes:
        mode: "min", "max" or "off". metric: the name in the log, or None.
        best: best value so far, an infinity before the first. best_epoch, best_step: when it came,
            0 before.
        epochs_without_improvement: since the best one; validations, if these come by steps.
        new: what the last value is called, if it is among those to be kept.
    """

    def __init__(self, setting: str = "off", *, patience: float = 0, min_delta: float = 0.0,
                 keep: int = 0, by_steps: bool = False) -> None:
        self.mode, _, name = setting.partition(" ")
        self.metric: str | None = name or None
        if self.mode not in ("min", "max") or not name:
            if setting != "off":
                logger.warning("monitor must be 'min NAME', 'max NAME' or 'off', got %r: it is off",
                               setting)
            self.mode, self.metric = "off", None
        self.patience = patience
        self.min_delta = min_delta
        self.keep = keep
        self.by_steps = by_steps
        self.new: str | None = None
        self.start_anew()

    def start_anew(self) -> None:
        """Forgets the best value: the next one is the best."""
        self.best = {"min": math.inf, "max": -math.inf, "off": 0.0}[self.mode]
        self.best_epoch = self.best_step = 0
        self.epochs_without_improvement = 0
        self._ranking: list[tuple[float, str]] = []

    @property
    def kept(self) -> list[str]:
        """What the best values are called that are to be kept: ``epoch7``, or ``step500``."""
        return [label for _, label in self._ranking]

    def forget(self, label: str) -> None:
        """Its file is gone: another may be kept instead."""
        self._ranking = [entry for entry in self._ranking if entry[1] != label]

    @property
    def has_best(self) -> bool:
        return self.mode != "off" and math.isfinite(self.best)

    def update(self, log: dict[str, Any], step: int = 0) -> bool:
        """Takes an epoch's log; whether it is the best so far. NaN is never an improvement."""
        self.new = None
        if self.mode == "off" or self.metric is None or not is_number(log.get(self.metric)):
            return False
        value = float(log[self.metric])
        gain = self.best - value if self.mode == "min" else value - self.best
        is_best = gain > self.min_delta
        if is_best:
            self.best, self.best_epoch, self.best_step = value, log["epoch"], step
        if self.keep and not math.isnan(value):
            label = f"step{step}" if self.by_steps else f"epoch{log['epoch']}"
            ranking = [*self._ranking, (value, label)]  # of equal ones the earlier is the better
            self._ranking = sorted(ranking, key=lambda entry: entry[0] if (
                self.mode == "min") else -entry[0])[:self.keep]
            self.new = label if label in self.kept else None
        self.epochs_without_improvement = 0 if is_best else self.epochs_without_improvement + 1
        return is_best

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.mode != "off" and 0 < self.patience <= self.epochs_without_improvement

    def state_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "metric": self.metric, "best": float(self.best),
                "best_epoch": self.best_epoch, "best_step": self.best_step,
                "ranking": [list(entry) for entry in self._ranking],
                "epochs_without_improvement": self.epochs_without_improvement}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting; a best value of another metric is not taken over."""
        if (state["mode"], state["metric"]) != (self.mode, self.metric):
            logger.warning("the monitor was %s %s and is %s %s now: the best value starts anew",
                           state["mode"], state["metric"] or "", self.mode, self.metric or "")
            return
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_step = state.get("best_step", 0)
        self._ranking = [(value, label) for value, label in state.get("ranking", [])][:self.keep]
        self.epochs_without_improvement = state["epochs_without_improvement"]


def is_number(value: Any) -> bool:
    """Whether a value of the log can be compared: not a table, a vector or nothing."""
    return isinstance(value, (int, float))


def check_name(name: str, train_names: list[str], valid_names: list[str] | None, *,
               may_add: bool) -> None:
    """Refuses a monitored value that will not be in the log, as far as that is known at the start.

    Args:
        train_names: that the log will have of the training; the code may add more.
        valid_names: of the validation, with their ``val_``; None if it was not tried.
        may_add: whether a callback may add values.

    Raises:
        ConfigError: there will be no such value; lists those that will be.
    """
    if name in train_names or name in (valid_names or ()):
        return
    is_settled = name.startswith("val_") and valid_names is not None and not may_add
    known = [*train_names, *(valid_names or ())]
    near = misspelling_of(name, known)
    if is_settled or near is not None:
        raise ConfigError(f"trainer.monitor watches {name!r}, but the epoch's log will have "
                          f"{', '.join(known)}" + (f"; did you mean {near!r}?" if near else ""))
