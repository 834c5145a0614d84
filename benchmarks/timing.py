"""Clocks: repeated rounds, and loops that take turns."""

import functools
import io
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from base.callback import Callback
from logger.logger import ConsoleHandler
from trainer import Trainer


class Terminal(io.StringIO):
    """A standard error that lets the progress bar work."""

    def isatty(self) -> bool:
        return True


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rounds_of(count: int, works: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Times each piece of work once a round, in turn, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for index in range(count + 1):
        for name, work in works.items():
            taken = seconds(work)
            if index:
                times[name].append(taken)
    return times


class TakingTurns(Callback):
    """After each slice of an epoch, lets other loops do as many steps, each on a clock of its own.

    A shared machine's speed changes within seconds; slices of milliseconds all get their share.
    """

    def __init__(self, slice_steps: int, loops: dict[str, Callable[[], Iterator[None]]]) -> None:
        self.slice_steps = slice_steps
        self.loops = loops

    def time_epoch(self, run: Callable[[], Any]) -> dict[str, float]:
        """Seconds of ``run``, as "template", and of each loop."""
        self.taken = dict.fromkeys(["template", *self.loops], 0.0)
        self.under_way = {name: loop() for name, loop in self.loops.items()}
        self.since = time.perf_counter()
        run()
        self._others(None)
        return self.taken

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if (batch_idx + 1) % self.slice_steps == 0:
            self._others(self.slice_steps)

    def _others(self, num_steps: int | None) -> None:
        self.taken["template"] += time.perf_counter() - self.since
        for name, loop in self.under_way.items():
            start = time.perf_counter()
            for _ in itertools.islice(loop, num_steps):
                pass
            self.taken[name] += time.perf_counter() - start
        self.since = time.perf_counter()


class StepByStep(Callback):
    """Lets a trainer's epoch go on a step at a time, in a thread that waits between them."""

    def __init__(self) -> None:
        self._may_go, self._has_gone = threading.Semaphore(0), threading.Semaphore(0)

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self._has_gone.release()
        self._may_go.acquire()

    def steps(self, run: Callable[[], Any]) -> Iterator[None]:
        """The training steps of ``run``; what comes after the last one, when it ends."""
        errors: list[BaseException | None] = []

        def work() -> None:
            self._may_go.acquire()
            error: BaseException | None = None
            try:
                run()
            except BaseException as caught:
                error = caught
            errors.append(error)
            self._has_gone.release()

        threading.Thread(target=work, daemon=True).start()
        while True:
            self._may_go.release()
            self._has_gone.acquire()
            if errors:
                break
            yield
        if errors[0] is not None:
            raise errors[0]


def epochs_of(trainer: Trainer) -> Callable[[], Iterator[None]]:
    """What gives the steps of one epoch of the trainer after the other."""
    stepping, numbers = StepByStep(), itertools.count(1)
    trainer.callbacks.add(stepping)
    return lambda: stepping.steps(functools.partial(trainer._run_epoch, next(numbers)))


def in_turns(count: int, trainer: Trainer, slice_steps: int,
             loops: dict[str, Callable[[], Iterator[None]]]) -> dict[str, list[float]]:
    """Times ``count`` epochs of the trainer and of the loops, after one that is not counted."""
    turns = TakingTurns(slice_steps, loops)
    trainer.callbacks.add(turns)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ConsoleHandler):
            handler.setStream(io.StringIO())
    stderr, sys.stderr = sys.stderr, Terminal()
    try:
        rounds = [turns.time_epoch(functools.partial(trainer._run_epoch, number))
                  for number in range(1, count + 2)][1:]
    finally:
        sys.stderr = stderr
        trainer.writer.close()
    return {name: [taken[name] for taken in rounds] for name in rounds[0]}


def ratios_of(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def extremes(values: list[float]) -> list[float]:
    return [round(min(values), 3), round(max(values), 3)]


def noise(times: list[float]) -> float:
    """Slowest round over fastest: what the machine alone makes of the same work."""
    return max(times) / min(times)
