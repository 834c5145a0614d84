"""Services that follow runs, beside TensorBoard: a class each, in trainer/trackers.py."""

import contextlib
import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Tracker:
    """Gets what a run gives; override what the service has a place for.

    It lives in the main process. What it raises is told once, and the run goes on without it; so
    connect in ``start``, not when it is made. Random numbers that it draws change no training.
    """

    def start(self, config: dict[str, Any], *, name: str, run_id: str, folder: Path) -> None:
        """Before the first step, also of a run that goes on, which has the same ``run_id``.

        Args:
            folder: of the run's log.
        """

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Values of an epoch, or of a validation, by the names of the log (``loss``,
        ``val_loss``, ``lr``); and at log points those of a batch (``batch_loss``).

        Args:
            step: optimizer steps of the run so far.
        """

    def images(self, name: str, images: Any, step: int) -> None:
        """The first input images of an epoch.

        Args:
            images: (n, channels, height, width) float32 in 0 to 1, a tensor on the CPU.
        """

    def close(self, state: str) -> None:
        """The run is over: "finished", "stopped early", "stopped" or "failed"."""


class Trackers:
    """Tells several the same."""

    def __init__(self) -> None:
        self._trackers: list[Any] = []

    def add(self, trackers: Iterable[Any]) -> None:
        self._trackers += trackers

    def start(self, config: dict[str, Any], *, name: str, run_id: str, folder: Path) -> None:
        self._call("start", config, name=name, run_id=run_id, folder=folder)

    def scalars(self, values: dict[str, Any], step: int) -> None:
        """What is no number is left out."""
        if self._trackers:
            self._call("scalars", {name: float(value) for name, value in values.items()
                                   if isinstance(value, (int, float))}, step)

    def images(self, name: str, images: Any, step: int) -> None:
        self._call("images", name, images, step)

    def close(self, state: str) -> None:
        self._call("close", state)
        self._trackers.clear()

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        if not self._trackers:
            return
        from utils.rng import preserved  # needs torch, which takes seconds

        for tracker in list(self._trackers):
            try:
                with preserved():
                    getattr(tracker, method)(*map(copy.copy, args), **kwargs)
            except (Exception, SystemExit) as error:  # no reason to end a training
                self._trackers.remove(tracker)
                with contextlib.suppress(Exception, SystemExit):
                    tracker.close("failed")
                logger.warning("%s failed in %s (%s: %s): the run goes on without it",
                               type(tracker).__name__, method, type(error).__name__, error)
