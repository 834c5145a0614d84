"""TensorBoard with the step kept for the caller."""

import importlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

BACKENDS = ("torch.utils.tensorboard", "tensorboardX")
# methods whose tag gets no mode: one parameter or embedding is the same in training and validation
PLAIN_TAGS = ("add_histogram", "add_embedding", "add_hparams", "add_graph")
STEPLESS = ("add_graph", "add_hparams", "add_custom_scalars", "add_custom_scalars_multilinechart",
            "add_custom_scalars_marginchart")


class TensorboardWriter:
    """A ``SummaryWriter`` that knows the step and whether one trains or validates.

    Every method of ``SummaryWriter`` is there, without its step: ``add_scalar(tag, data)``,
    ``add_image(tag, image)``, ... The tag gets the mode: ``loss/train``. Events are opened at
    first use, since importing TensorBoard takes a while. Disabled, everything does nothing.

    Args:
        log_dir: folder of the events, or what gives it once it is needed.
        logger: is told once when no TensorBoard is installed; training goes on without.
        enabled: whether to write at all.

    Attributes:
        step: the step that the next call writes.
        mode: "train", "valid", or what ``set_step`` was given.
        selected_module: the package that writes, once it is open.
    """

    def __init__(self, log_dir: str | Path | Callable[[], Path], logger: logging.Logger,
                 enabled: bool) -> None:
        self.log_dir = log_dir
        self.logger = logger
        self.enabled = enabled
        self.step = 0
        self.mode = ""
        self.timer = time.monotonic()
        self.selected_module = ""
        self._writer: Any = None
        self._purge_step: int | None = None

    @property
    def writer(self) -> Any:
        """The ``SummaryWriter``, or None if disabled or not installed."""
        if self._writer is None and self.enabled:
            module = self._backend()
            if module is None:
                self.enabled = False
                self.logger.warning("TensorBoard is not installed: the run goes on without it. "
                                    "To have it, pip install tensorboard, or set "
                                    "trainer.tensorboard to false")
            else:
                folder = self.log_dir() if callable(self.log_dir) else self.log_dir
                self._writer = module.SummaryWriter(str(folder), purge_step=self._purge_step)
                self._purge_step = None  # a file opened after this one hides nothing of it
        return self._writer

    def set_step(self, step: int, mode: str = "train") -> None:
        """Says what the following calls belong to; writes steps per second since the last call."""
        now = time.monotonic()
        steps, seconds = step - self.step, now - self.timer
        is_new = step == 0 or mode != self.mode
        self.step, self.mode, self.timer = step, mode, now
        if not is_new and steps > 0 and seconds > 0:
            self.add_scalar("steps_per_sec", steps / seconds)

    def add_scalar(self, tag: str, data: Any, *args: Any, **kwargs: Any) -> None:
        self._call("add_scalar", tag, data, *args, **kwargs)

    def add_result(self, settings: dict[str, Any], values: dict[str, float]) -> None:
        """``add_hparams`` for the whole run, into the folder of its other events."""
        if self.enabled and self.writer is not None:
            place = "run_name" if self.selected_module == BACKENDS[0] else "name"
            self._call("add_hparams", settings, values, **{place: "."})

    def flush(self) -> None:
        """Lets readers see everything written so far."""
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Writes what is left; a later call opens a new file of events."""
        if self._writer is not None:
            try:
                self._writer.close()
                self._writer = None
            except OSError as error:
                self._give_up(error)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "mode": self.mode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on at that step: events of later steps, written before, are no longer shown."""
        self.close()
        self.step, self.mode = state["step"], state["mode"]
        self._purge_step = self.step + 1

    def __getattr__(self, name: str) -> Any:
        if name.startswith("add_"):
            return lambda *args, **kwargs: self._call(name, *args, **kwargs)
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it has set_step, flush, "
                             "close and SummaryWriter's add_... methods")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_writer": None}  # files stay with the process that opened them

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        try:
            self._write(name, *args, **kwargs)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.enabled, self._writer = False, None
        self.logger.warning("TensorBoard's events cannot be written (%s): the run goes on without "
                            "them", error.strerror or error)

    def _write(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        if not self.enabled or self.writer is None:
            return
        method = getattr(self.writer, name, None)
        if method is None:
            raise AttributeError(f"TensorBoard's SummaryWriter has no method {name!r}")
        if name in STEPLESS:
            method(*args, **kwargs)
            return
        tag, *rest = (*args, *(kwargs.pop(key) for key in ("tag", "data") if key in kwargs))
        if self.mode and name not in PLAIN_TAGS:
            tag = f"{tag}/{self.mode}"
        kwargs.setdefault("global_step", self.step)
        if name == "add_embedding" and isinstance(tag, str):
            kwargs["tag"], tag, *rest = tag, *rest
        method(tag, *rest, **kwargs)

    def _backend(self) -> ModuleType | None:
        for name in BACKENDS:
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue
            self.selected_module = name
            return module
        return None


WriterTensorboard = TensorboardWriter  # older name
