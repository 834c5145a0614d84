"""Clocks: repeated rounds, and loops that take turns."""

import functools
import io
import itertools
import logging
import sys
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
