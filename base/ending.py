"""How a run ends: by itself, by a signal, by the clock, by an error; said, with what goes on."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from typing import Any

from base.checkpoint.best_models import settle_folder
from base.counters import reached
from base.run_log import tell_finished, write_hparams
from logger.console import go_on_hint
from logger.logger import FILE_ONLY, RESULT
from utils.devices.processes import is_main_process
from utils.errors import RunError
from utils.runs.folder import LATEST, is_finished
from utils.signals import StopSignals

TIME_UP = 1000  # no signal has such a number


class StopRun(Exception):
    """Leaves the training loop between two steps, to save and stop."""


class Stop(StopSignals):
    """Whether a run was asked to stop: by a signal, or because its time is up.

    Args:
        max_seconds: from entering the context on; None is no limit.

    Attributes:
        agreed: the code that several processes have agreed on; None in one process.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        super().__init__()
        self.agreed: int | None = None
        self.max_seconds = math.inf if max_seconds is None else max_seconds
        self._deadline = math.inf

    def __enter__(self) -> "Stop":
        super().__enter__()
        self.agreed = None
        self._deadline = time.monotonic() + self.max_seconds
        return self

    @property
    def code(self) -> int:
        """Why this process was asked: the number of the signal, ``TIME_UP``, or 0."""
        if self.received is not None:
            return self.received
        is_up = self._deadline < math.inf and time.monotonic() >= self._deadline
        return TIME_UP if is_up else 0

    @property
    def is_asked(self) -> bool:
        return bool(self.code if self.agreed is None else self.agreed)

    def reason(self) -> tuple[str, int]:
        """In words, and the exit status: 128 + signal, or as of the command timeout."""
        code = self.code if self.agreed is None else self.agreed
        if code == TIME_UP:
            return "the time is up (trainer.max_seconds)", 124
        return f"stopped by {signal.Signals(code).name}", 128 + code


@contextlib.contextmanager
def ending(trainer: Any) -> Iterator[None]:
    """Around the epochs of a run: saves when it is stopped, closes its parts, tells how it ended.

    Raises:
        SystemExit: stopped by a signal or by the clock, with everything saved.
    """
    state, reason, status, started = "failed", "", 0, time.monotonic()
    try:
        with trainer.stop:
            try:
                yield
            except StopRun:
                trainer._save_latest()
            finally:
                with contextlib.ExitStack() as closing:  # each, whatever happens to another
                    closing.callback(trainer.saver.wait)
                    closing.callback(trainer.writer.close)
                    closing.callback(write_hparams, trainer)
                    closing.callback(trainer.callbacks.call, "on_train_end", trainer)
        if trainer.is_over or not trainer.stop.is_asked:
            state = _state_of_end(trainer)
            tell_finished(trainer, started)
        else:
            reason, status = trainer.stop.reason()
            state = "stopped"
            trainer.logger.log(RESULT, "%s %s; %s", reason, trainer.counters.place(),
                               _go_on_hint(trainer))
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        trainer.logger.error("the run ended by this error:", exc_info=True, extra=FILE_ONLY)
        trainer.logger.warning("the run ended by %s; %s", type(error).__name__,
                               _go_on_hint(trainer))
        raise
    finally:
        trainer.trackers.close(state)
        with contextlib.suppress(RunError):  # the disk is full: then this was said before
            monitor = trainer.best_monitor
            trainer.config.folder.tell(
                state, reason=reason, epoch=trainer.counters.epoch, step=trainer.counters.step,
                best_step=monitor.best_step if monitor.has_best else None)
        trainer.config.folder.release()
    if status:
        raise SystemExit(status)


def tell_nothing_to_do(trainer: Any) -> None:
    """A run that is over, resumed: what would make it go on. One that was killed after its last
    save is brought to its end."""
    monitor, epochs, folder = trainer.best_monitor, trainer.counters.epoch, trainer.config.folder
    is_unfinished = folder.goes_on and trainer.config.resume.name == LATEST and (
        not is_finished(folder.save_dir))
    if is_unfinished and is_main_process():
        trainer.config.make_folder()
        settle_folder(trainer, is_best=False)
        folder.tell(_state_of_end(trainer), reason="", epoch=epochs)
        folder.release()
    if monitor.should_stop:
        trainer.logger.log(RESULT, (
            "nothing to do: the run stopped early %s, for %s did not improve for %d "
            "%s. To go on, give trainer.early_stop=%d or more, or 0"), trainer.counters.place(),
            monitor.metric, monitor.epochs_without_improvement, _unit(trainer),
            monitor.epochs_without_improvement + 1)
    elif reached(trainer.counters.step, trainer.settings.max_steps):
        trainer.logger.log(RESULT, "nothing to do: the run has its %d steps. To go on, give "
                           "trainer.max_steps=%d or more", trainer.counters.step,
                           trainer.counters.step + 1)
    else:
        trainer.logger.log(RESULT, "nothing to do: the run has its %d epochs. To go on, give "
                           "trainer.epochs=%d or more", epochs, epochs + 1)


def _state_of_end(trainer: Any) -> str:
    return "stopped early" if trainer.best_monitor.should_stop else "finished"


def _unit(trainer: Any) -> str:
    return "validations" if trainer.by_steps else "epochs"


def _go_on_hint(trainer: Any) -> str:
    if trainer.config.is_debug:
        return "nothing of a debug run is kept"
    folder = trainer.config.folder
    return go_on_hint(folder.save_dir / LATEST) if folder.is_made else "nothing was written yet"
