"""Signals that ask a run to stop: noted here, honoured between two steps."""

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from utils.devices.processes import is_main_process

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1")
                if hasattr(signal, name)]


class StopSignals:
    """Context manager that notes SIGINT, SIGTERM and SIGUSR1 instead of dying of them.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread, where Python allows
    no handlers, nothing is changed.

    Attributes:
        received: number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._is_interrupted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.received, self._is_interrupted = None, False
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not set from Python
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._is_interrupted:
                raise KeyboardInterrupt
            self._is_interrupted = True
        if self.received is None:
            self.received = number
            if not is_main_process():
                return
            again = "; Ctrl-C again quits at once" if number == signal.SIGINT else ""
            # not by the log: the signal may have come while that was writing a line
            with contextlib.suppress(OSError):
                os.write(2, f"\n{signal.Signals(number).name}: finishing the step, then "
                            f"saving{again}\n".encode())


def ignore_stop_signals() -> None:
    """For loader workers: the terminal and schedulers signal the whole group, the main decides."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def init_worker(user_init: Callable[[int], None] | None, worker_id: int) -> None:
    """What a loader's worker starts with: stop signals ignored, then a project's own function."""
    ignore_stop_signals()
    if user_init is not None:
        user_init(worker_id)


@functools.cache
def end_workers_at_exit() -> None:
    """For their main process: Python ends with SIGTERM for them, and would wait for ever."""
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would report each as a crash
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
