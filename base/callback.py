"""Hooks for what does not depend on the task; they may have state of their own."""

from collections.abc import Iterable
from typing import Any

from base.checkpoint.state import collect, restore


class Callback:
    """Override any hook; each gets the trainer. One with state defines the two last methods too."""

    adds_to_log = True  # whether on_epoch_end may put values into the log

    def on_train_start(self, trainer: Any) -> None:
        """Everything is built and, on a resume, restored."""

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        """Before the first batch of ``epoch`` (from 1), or where a resumed run goes on in it."""

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        """After a training batch; must not wait for the device at every batch."""

    def on_valid_start(self, trainer: Any) -> None:
        """Before an evaluation of ``trainer.valid_data_loader``, also by test.py."""

    def on_valid_batch_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        """After a batch of the validation data."""

    def on_valid_end(self, trainer: Any) -> None:
        """After an evaluation, unless it failed."""

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        """After validation; what is put into ``log`` is printed, stored and monitored."""

    def on_train_end(self, trainer: Any) -> None:
        """The run is over, however it ended; the writer is still open."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""


HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


class CallbackList:
    """Calls the hooks that callbacks really override, in their order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks: list[Callback] = []
        self._hooks: dict[str, list[Any]] = {hook: [] for hook in HOOKS}
        for callback in callbacks:
            self.add(callback)

    def add(self, callback: Callback) -> None:
        self.callbacks.append(callback)
        for hook in HOOKS:
            if getattr(type(callback), hook) is not getattr(Callback, hook):
                self._hooks[hook].append(getattr(callback, hook))

    @property
    def may_add(self) -> bool:
        """Whether one of them may put values into an epoch's log."""
        return any(hook.__self__.adds_to_log for hook in self._hooks["on_epoch_end"])

    def call(self, hook: str, trainer: Any, *args: Any) -> None:
        for function in self._hooks[hook]:
            function(trainer, *args)

    def state_dict(self) -> dict[str, Any]:
        return collect(self._named())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self._named(), state)

    def _named(self) -> dict[str, Any]:
        """Callbacks with state by class; a second one of a class gets a number."""
        named: dict[str, Any] = {}
        for callback in self.callbacks:
            if type(callback).state_dict is Callback.state_dict:
                continue
            name = type(callback).__name__
            count = sum(key.split("#")[0] == name for key in named)
            named[f"{name}#{count + 1}" if count else name] = callback
        return named
