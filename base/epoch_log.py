"""What is told of an epoch: bars and log points in it, then its values in log, history, events."""

import textwrap
import time
from typing import Any

from base.callback import Callback
from base.data.train_batches import num_batches
from base.optimizers import learning_rates
from logger.console import VALID, WIDTH, duration, loading_hint, number
from logger.logger import BAR_SHOWS, GOOD
from logger.progress_bar import ProgressBar
from utils.devices.device import peak_memory
from utils.devices.processes import is_main_process

MAX_SHOWN = 2  # losses on the bar and in the line; TensorBoard gets all


class StepLog(Callback):
    """A bar for an epoch's batches, one for those of a validation, and every ``log_step`` batches
    the losses, lr and rate."""

    adds_to_log = False

    def __init__(self) -> None:
        self._bar, self._valid_bar = ProgressBar(), ProgressBar()
        self._step = 0  # of the last batch

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self._total = trainer.train_data.num_in_epoch(trainer.data_loader, trainer.len_epoch)
        self._since, self._done = time.monotonic(), trainer.train_data.num_samples
        if trainer.settings.verbosity < 2 or trainer.is_classic:
            return
        if trainer.by_steps:
            period, step = trainer.settings.valid_steps, trainer.counters.step
            first = step - step % period
            last = min(first + period, trainer.settings.max_steps or first + period)
            self._bar.open(f"to step {last}", last - first, step - first)
        else:
            self._bar.open(f"epoch {epoch}", self._total, trainer.counters.batch)

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if not trainer.by_steps or trainer.counters.step > self._step:
            self._bar.update()
        self._step = trainer.counters.step
        if batch_idx % trainer.log_step == 0 and is_main_process():
            self._tell(trainer, batch_idx, batch)

    def on_valid_start(self, trainer: Any) -> None:
        if trainer.settings.verbosity == 2 and not trainer.is_classic:
            self._bar.refresh()  # it stands still now
            self._valid_bar.open("validation", num_batches(trainer.valid_data_loader))

    def on_valid_batch_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self._valid_bar.update()

    def on_valid_end(self, trainer: Any) -> None:
        self._valid_bar.close()

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        self._bar.close()

    def on_train_end(self, trainer: Any) -> None:
        self._valid_bar.close()
        self._bar.close()

    def _tell(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        losses = _losses(trainer.train_metrics)  # waits for the device
        rates = learning_rates(trainer.optimizer)
        now, done = time.monotonic(), trainer.train_data.num_samples
        per_second = (done - self._done) / max(now - self._since, 1e-9)
        self._since, self._done = now, done
        figures = "  ".join(f"{name} {value:.4f}" for name, value in
                            list(losses.items())[:MAX_SHOWN])
        speed = f"{per_second:.0f} samples/s"
        self._bar.show(*(f"{name} {value:.4f}" for name, value in losses.items()), speed)
        place = f"step {trainer.counters.step}" if trainer.by_steps else (
            f"batch {batch_idx}" + (f"/{self._total}" if self._total else ""))
        trainer.logger.debug(
            "epoch %d  %s  %s  %s  %s", trainer.start_epoch, place, figures,
            "  ".join(f"{name} {lr:.3g}" for name, lr in rates.items()), speed, extra=BAR_SHOWS)
        trainer.writer.step = trainer.counters.step
        for name, value in losses.items():
            trainer.writer.add_scalar(f"batch_{name}", value)
        if trainer.schedulers.each_step:  # else the epoch's value says it all
            for name, lr in rates.items():
                trainer.writer.add_scalar(name, lr)
        trainer.trackers.scalars({f"batch_{name}": value for name, value in losses.items()},
                                 trainer.counters.step)


class Pace:
    """How fast an epoch goes, from its beginning to now."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._start, self._first_step = time.monotonic(), trainer.counters.step
        self._before = self._so_far()

    def _so_far(self) -> tuple[float, float, int]:
        data = self._trainer.train_data
        return data.seconds_waited, self._trainer.seconds_validating, data.num_samples

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def seconds_waited(self) -> float:
        """Of these, for the loader."""
        return self._so_far()[0] - self._before[0]

    def figures(self) -> dict[str, float]:
        """For the history: how fast was trained, and the most memory used so far, in MB of 2**20
        bytes, of the GPU, else of this process."""
        _, validating, samples = (now - before for now, before in zip(
            self._so_far(), self._before, strict=True))
        memory = peak_memory(self._trainer.device)
        figures = {} if memory is None else {"memory_mb": round(memory / 2**20, 1)}
        if samples:
            training = max(self.seconds - validating, 1e-9)
            figures["samples_per_second"] = round(samples / training, 1)
        return figures

    def seconds_left(self, seconds: float | None = None) -> float | None:
        """Of the run, if the rest is as fast; None if its end is not known.

        Args:
            seconds: of the whole epoch, which may have begun before a resume.
        """
        trainer, limit = self._trainer, self._trainer.settings.max_steps
        if trainer.is_over:
            return None
        done = trainer.counters.step - self._first_step
        left = [] if trainer.epochs is None or trainer.by_steps else [
            (trainer.epochs - trainer.counters.epoch) * (seconds or self.seconds)]
        if limit is not None and done:
            left.append((limit - trainer.counters.step) / done * self.seconds)
        return min(left, default=None)


def tell_epoch(trainer: Any, log: dict[str, Any], pace: Pace, *, is_best: bool) -> None:
    """A finished epoch: console, log file, a row of the history.

    Args:
        log: numbers by name; ``epoch`` is one.
    """
    figures, seconds = pace.figures(), trainer.history.end()
    trainer.history.append({**figures, **log}, step=trainer.counters.step, seconds=seconds)
    if not trainer.is_classic:
        write_epoch(trainer.writer, figures, trainer.counters.step)
    trainer.trackers.scalars({**figures, **log}, trainer.counters.step)
    if trainer.config.folder.is_recorded:  # else the file belongs to what was saved before
        trainer.history.write()
    lines = epoch_lines(log, epochs=trainer.epochs, seconds=seconds, is_best=is_best,
                        step=trainer.counters.step if trainer.by_steps else None,
                        left=pace.seconds_left(seconds), patience=_patience(trainer.best_monitor))
    trainer.logger.info(lines[0], extra=GOOD if is_best else {})
    for line in lines[1:]:
        trainer.logger.info(line)
    if hint := loading_hint(pace.seconds_waited, pace.seconds):
        trainer.logger.info(hint)


def _patience(monitor: Any) -> str:
    count = monitor.epochs_without_improvement
    if monitor.mode == "off" or not count or monitor.patience <= 0:
        return ""
    return f"no better for {count} of {monitor.patience:g}"


def epoch_lines(log: dict[str, Any], *, epochs: int | None, seconds: float, is_best: bool,
                step: int | None = None, left: float | None = None,
                patience: str = "") -> list[str]:
    """An epoch's log: a headline, a line of training and one of validation.

    Args:
        log: every entry but ``epoch`` is shown.
        epochs: of the run, if it is that long. seconds: that the epoch took.
        step: of a validation that goes by steps.
        left: seconds of the run, if they are known; a few are not told.
        patience: how long nothing has got better, in words.
    """
    of_all = "" if epochs is None else f"/{epochs}"
    at_step = "" if step is None else f"  step {step}"
    lines = ["  ".join(filter(None, (
        f"epoch {log['epoch']}{of_all}{at_step}", f"{seconds:.1f} s",
        f"{duration(left)} left" if left is not None and left >= 10 else "",
        "best so far" if is_best else patience)))]
    for label, row in by_mode(log).items():
        if row:
            text = "  ".join(f"{key}\0{number(value):<6}" for key, value in row.items())
            wrapped = textwrap.wrap(text, WIDTH, initial_indent=f"  {label}  ",
                                    subsequent_indent=" " * 9, break_on_hyphens=False)
            lines += [line.replace("\0", " ").rstrip() for line in wrapped]
    return lines


def by_mode(log: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of training and of validation, the latter without their prefix."""
    return {"train": {key: value for key, value in log.items()
                      if key != "epoch" and not key.startswith(VALID)},
            "valid": {key.removeprefix(VALID): value for key, value in log.items()
                      if key.startswith(VALID)}}


def write_epoch(writer: Any, log: dict[str, Any], step: int) -> None:
    """An epoch's numbers, the lr among them, to TensorBoard: ``loss/train``, ``loss/valid``."""
    for mode, values in by_mode(log).items():
        writer.step, writer.mode = step, mode
        for name, value in values.items():
            if isinstance(value, (int, float)):
                writer.add_scalar(name, value)


def _losses(tracker: Any) -> dict[str, float]:
    """The losses of the last batch, of what a tracker was updated with; the whole one first."""
    losses = {name: float(value) for name, value in getattr(tracker, "last", {}).items()
              if name == "loss" or name.endswith("_loss")}
    return {name: losses[name] for name in sorted(losses, key=lambda name: name != "loss")}
