"""Where the time of a training step goes: a trace of some steps, their shares, the operations."""

import bisect
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.profiler import profile, record_function, schedule, supported_activities

from base.callback import Callback
from base.optimizers import each, other_optimizers
from logger.console import shortened
from utils.devices.parallel import unwrap_model
from utils.devices.processes import is_main_process
from utils.files import replaced

TRACE = "trace.json.gz"
SKIPPED, WARMUP = 5, 2  # steps before those that are recorded; with the profiler on, of these
ENGINE = "autograd::engine::"  # before names of its own
TOP, NAME_WIDTH = 10, 44  # operations that are shown; columns for the name of one

# names of ranges in the trace
BEGIN, END = "profile: step begins", "profile: step ends"
FORWARD, STEP, PENDING = "profile: forward", "profile: optimizer", "profile: wait for the backward"
BACKWARD = "autograd::engine::evaluate_function"  # torch's own, in front of the name of a node
NOT_OPERATIONS = ("profile: ", "ProfilerStep", "Optimizer.", "enumerate(DataLoader)")

Span = tuple[float, float]  # from, to; microseconds


def profiling(settings: Any) -> list["Profile"]:
    """The callback that the settings of a trainer ask for, or none."""
    return [Profile(settings.profile_steps)] if settings.profile_steps else []


class Profile(Callback):
    """Records some training steps once in a run, after a warm-up; the main process does.

    Writes ``trace.json.gz`` into the run's log folder, tells how the time of these steps is shared
    and which operations take most. Validation between them does not count. Training is the same
    with it, only slower; a GPU is waited for while it records. A resumed run that has a trace
    already keeps it.

    Args:
        steps: to record, at least 1.
    """

    adds_to_log = False

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"trainer.profile_steps must be at least 1, got {steps}")
        self.steps = steps
        self._profiler: Any = None  # torch's, until it is done
        self._ranges: Ranges | None = None  # while it records
        self._done = self._last = 0  # steps since the start; where the run's counter is
        self._waited = self._waited_before = 0.0  # seconds for data in recorded steps, before this

    def on_train_start(self, trainer: Any) -> None:
        if not is_main_process():
            return
        path = trainer.config.log_dir / TRACE
        if trainer.config.resume is not None and path.exists():
            trainer.logger.info("%s is there already: no profile; delete it to have another", path)
            return
        self._done, self._last, self._waited = 0, trainer.counters.step, 0.0
        self._profiler = profile(activities=supported_activities(), schedule=schedule(
            wait=SKIPPED - WARMUP, warmup=WARMUP, active=self.steps, repeat=1))
        self._profiler.start()

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        if self._ranges is not None:
            self._begin(trainer)

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if self._profiler is None:
            return
        if self._ranges is not None:
            self._ranges.close()
            _mark(END)
            self._waited += trainer.train_data.seconds_waited - self._waited_before
        if trainer.counters.step > self._last:
            self._last = trainer.counters.step
            self._next_step(trainer)
        if self._ranges is not None:
            self._begin(trainer)

    def on_train_end(self, trainer: Any) -> None:
        if self._profiler is None:
            return
        if self._done > SKIPPED:
            self._finish(trainer)
            return
        self._stop()
        trainer.logger.warning("trainer.profile_steps: nothing was profiled, for this takes more "
                               "than %d training steps with batches from self.train_batches(), and "
                               "there were %d", SKIPPED, self._done)

    def _next_step(self, trainer: Any) -> None:
        self._done += 1
        if self._done == SKIPPED + self.steps:
            self._finish(trainer)
            return
        self._profiler.step()
        if self._done == SKIPPED:
            self._ranges = Ranges(trainer)

    def _begin(self, trainer: Any) -> None:
        self._waited_before = trainer.train_data.seconds_waited
        _mark(BEGIN)

    def _stop(self) -> Any:
        """Ends the recording; gives the profiler."""
        if self._ranges is not None:
            self._ranges.remove()
        profiler, self._profiler, self._ranges = self._profiler, None, None
        profiler.stop()
        return profiler

    def _finish(self, trainer: Any) -> None:
        profiler = self._stop()
        events = [one for one in profiler.events() if one.device_type.name == "CPU"]
        for line in report(events, self._last - (self._done - SKIPPED) + 1, self._last,
                           seconds_waited=self._waited):
            trainer.logger.info("%s", line)
        path = trainer.config.log_dir / TRACE
        try:
            with replaced(path) as temporary:
                profiler.export_chrome_trace(str(temporary))
        except (OSError, RuntimeError) as error:
            trainer.logger.warning("the trace cannot be written to %s: %s", path, error)
        else:
            trainer.logger.info("  trace, for ui.perfetto.dev or chrome://tracing:\n  %s", path)


class Ranges:
    """Marks in a trace what a trainer's networks and optimizers do, by hooks on them. Those inside
    a network are not hooked, and what is compiled stays so."""

    def __init__(self, trainer: Any) -> None:
        self._device = trainer.device
        self._open: list[Any] = []
        self._last = ""  # of what was left
        self._handles: list[Any] = []
        for network in _networks(vars(trainer)):
            self._handles += [
                network.register_forward_pre_hook(self._enter(FORWARD)),
                network.register_forward_hook(self._leave(FORWARD), always_call=True)]
        for optimizer in [*(one for _, one in each(trainer.optimizer)),
                          *other_optimizers(vars(trainer))]:
            if hasattr(optimizer, "register_step_post_hook"):
                self._handles += [optimizer.register_step_pre_hook(self._enter(STEP)),
                                  optimizer.register_step_post_hook(self._leave(STEP))]

    def close(self) -> None:
        """The step is over."""
        self._wait()
        while self._open:
            self._open.pop().__exit__(None, None, None)

    def remove(self) -> None:
        self.close()
        for handle in self._handles:
            handle.remove()

    # plain functions as hooks: a copy of the network would copy the owner of a method
    def _enter(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._wait()
            self._open.append(record_function(name))
            self._open[-1].__enter__()

        return enter

    def _leave(self, name: str) -> Callable[..., None]:
        def leave(*_: Any) -> None:
            self._wait()
            self._last = name
            if self._open:
                self._open.pop().__exit__(None, None, None)

        return leave

    def _wait(self) -> None:
        """For a GPU: what it still has to do after a forward is its backward."""
        if self._device.type != "cpu":
            with record_function(PENDING if self._last == FORWARD else "profile: wait"):
                torch.accelerator.synchronize()  # waits for the device
        self._last = ""


def _networks(attributes: dict[str, Any]) -> list[nn.Module]:
    """The networks among a trainer's attributes, each once, with its wrapper if it has one."""
    found = {id(one): one for value in attributes.values() for _, one in each(value)
             if isinstance(one, nn.Module) and not isinstance(one, torch.jit.ScriptModule)}
    inner = {id(unwrap_model(one)) for one in found.values() if unwrap_model(one) is not one}
    return [one for key, one in found.items() if key not in inner]


def report(events: list[Any], first: int, last: int, *, seconds_waited: float) -> list[str]:
    """Lines of at most 80 columns: how the time is shared, and the operations that take most.

    Args:
        events: of torch's profiler on the CPU, with the steps ``first`` to ``last`` in them.
        seconds_waited: for data, in these steps.
    """
    count = last - first + 1
    wall, shares = shares_of(events, seconds_waited)
    lines = [f"profile of steps {first} to {last}: {wall / 1e6:.3g} s, "
             f"{wall / count / 1e3:.3g} ms a step"]
    lines += [f"  {label:<16}{time / count / 1e3:>9.3f} ms {time / max(wall, 1e-9):>7.1%}"
              for label, time in shares.items()]
    on_device = any(one.self_device_time_total for one in events)
    operations = _operations(events, "device" if on_device else "cpu")
    total = sum(time for _, time in operations.values())
    title = "most time of its own on the " + ("device" if on_device else "CPU")
    lines.append(f"  {title:<{NAME_WIDTH}}{'calls':>8}{'ms a step':>12}{'share':>8}")
    for name, (calls, time) in sorted(operations.items(), key=lambda one: -one[1][1])[:TOP]:
        name = shortened(name.removeprefix(ENGINE), NAME_WIDTH - 1)
        lines.append(f"  {name:<{NAME_WIDTH}}{calls / count:>8.4g}"
                     f"{time / count / 1e3:>12.3f}{time / max(total, 1e-9):>8.1%}")
    return lines


def _operations(events: list[Any], device: str) -> dict[str, tuple[int, float]]:
    """(calls, own microseconds on the device) of each operation in the steps, by its name."""
    steps = _steps(events)
    starts = [start for start, _ in steps]
    found: dict[str, tuple[int, float]] = {}
    for one in events:
        step = bisect.bisect(starts, one.time_range.start) - 1
        if step >= 0 and one.time_range.start < steps[step][1] and (
                not one.name.startswith(NOT_OPERATIONS)):
            calls, time = found.get(one.name, (0, 0.0))
            found[one.name] = calls + 1, time + getattr(one, f"self_{device}_time_total")
    return found


def shares_of(events: list[Any], seconds_waited: float) -> tuple[float, dict[str, float]]:
    """(time of the steps, of which each part has so much), in microseconds.

    A forward inside a backward (checkpointing) is backward, both inside of an optimizer's step
    (LBFGS) are themselves.
    """
    steps = _steps(events)
    bounds = [(one.time_range.start, one.time_range.end) for one in events]
    edges = [min(bounds)[0], *(edge for step in steps for edge in step),
             max(end for _, end in bounds)]
    covered = _union(zip(edges[::2], edges[1::2], strict=True))  # what is not in any step
    shares = {"data loading": seconds_waited * 1e6, "forward": 0.0, "backward": 0.0}
    for label, names in (("backward", (BACKWARD, PENDING)), ("forward", (FORWARD,)),
                         ("optimizer", (STEP,))):
        both = _union([*covered, *(span for one, span in zip(events, bounds, strict=True)
                                   if one.name.startswith(names))])
        shares[label] = _length(both) - _length(covered)
        covered = both
    wall = _length(steps)
    return wall, shares | {"everything else": max(wall - sum(shares.values()), 0.0)}


def _steps(events: list[Any]) -> list[Span]:
    """The steps by their marks: each from the last beginning before its end."""
    marks = sorted((one.time_range.start, one.name) for one in events if one.name in (BEGIN, END))
    return [(begin, end) for (begin, first), (end, second) in itertools.pairwise(marks)
            if (first, second) == (BEGIN, END)]


def _union(spans: Iterable[Span]) -> list[Span]:
    """The same time, no two of them overlapping, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _length(spans: Iterable[Span]) -> float:
    return sum(end - start for start, end in spans)


def _mark(name: str) -> None:
    with record_function(name):
        pass
