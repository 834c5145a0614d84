"""The life of a run: epochs, monitor, checkpoints, stop, resume."""

import contextlib
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from base.batches import TrainBatches
from base.callback import Callback, CallbackList
from base.checkpointer import BEST, LATEST, Checkpointer
from base.monitor import Monitor
from base.progress import Progress
from base.resume import resume_counters, resume_optimizer, resume_parts
from base.stateful import as_part, collect, restore
from base.weights import load_weights
from logger.history import History
from logger.logger import FILE_ONLY, RESULT, log_bytes
from logger.visualization import TensorboardWriter
from utils import report
from utils.checkpoint_file import read_checkpoint
from utils.errors import RunError
from utils.parallel import place_if_unplaced, unwrap_model
from utils.rng import RandomState
from utils.signals import StopSignals


class StopRun(Exception):
    """Leaves the training loop between two steps, to save and stop."""


def _of(part: str, name: str) -> Any:
    """An attribute of the trainer, by its classic name, that lives in one of its parts."""
    return property(lambda self: getattr(getattr(self, part), name),
                    lambda self, value: setattr(getattr(self, part), name, value))


class BaseTrainer(ABC):
    """Base class of all trainers: a subclass defines ``_train_epoch(epoch)``.

    What a resume brings for the model, the optimizer and the counters is there after the
    constructor; the rest (scheduler, callbacks, metrics, random generators) when ``train`` starts,
    since a subclass makes it after ``super().__init__``.

    Args:
        model: moved to ``config``'s device, unless somebody has placed it already.
        criterion, metric_ftns: for the subclass; a criterion with weights is saved as well.
        optimizer: one, or a dict or list of them.
        config: a ``ConfigParser``.
        callbacks: called in their order.
        checkpointer, monitor, writer: parts to use instead of those that the config describes.

    Attributes:
        progress: counts of finished epochs, batches and steps.
        start_epoch: the epoch that ``train`` begins or goes on with.
    """

    mnt_mode = _of("best_monitor", "mode")
    mnt_metric = _of("best_monitor", "metric")
    mnt_best = _of("best_monitor", "best")
    early_stop = _of("best_monitor", "patience")
    checkpoint_dir = _of("checkpointer", "directory")

    def __init__(self, model: nn.Module, criterion: Any, metric_ftns: Any, optimizer: Any,
                 config: Any, *, callbacks: Sequence[Callback] = (),
                 checkpointer: Checkpointer | None = None, monitor: Monitor | None = None,
                 writer: TensorboardWriter | None = None) -> None:
        settings = config.trainer
        self.config = config
        self.settings = settings
        self.logger: logging.Logger = config.get_logger("trainer", settings.verbosity)
        self.device, self.model = place_if_unplaced(model, config.run.n_gpu)
        self.criterion = criterion
        self.metric_ftns = metric_ftns
        self.optimizer = optimizer
        self.lr_scheduler: Any = None
        self.data_loader: Any = None
        self.valid_data_loader: Any = None
        self.len_epoch: int | None = None
        self.train_metrics: Any = None

        self.epochs = settings.epochs
        self.save_period = settings.save_freq
        self.monitor = settings.monitor
        self.progress = Progress()
        self.best_monitor = monitor or Monitor(
            settings.monitor, patience=settings.early_stop, min_delta=settings.min_delta)
        self.checkpointer = checkpointer or Checkpointer(
            config.save_dir, keep_last=settings.keep_last, name=settings.checkpoint_name,
            async_save=settings.async_save)
        self.writer = writer or TensorboardWriter(config.log_dir, self.logger, settings.tensorboard)
        self.history = History(config.log_dir)
        self.callbacks = CallbackList(callbacks)

        self._signals = StopSignals()
        self._deadline = math.inf
        self._batches = TrainBatches(self.progress)
        self._pending: dict[str, Any] | None = None
        if config.resume is not None:
            self._resume_checkpoint(config.resume)

    @property
    def start_epoch(self) -> int:
        return self.progress.epoch + 1

    @start_epoch.setter
    def start_epoch(self, epoch: int) -> None:
        self.progress.epoch = epoch - 1

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch, from 1; returns its log: numbers by name."""

    def _log_names(self) -> list[str] | None:
        """Names that the epoch's log will have, or None if that is known only afterwards."""
        return None

    def state_parts(self) -> dict[str, Any]:
        """What is saved beside the model: parts by name; None is left out."""
        criterion = self.criterion
        has_weights = isinstance(criterion, nn.Module) and bool(criterion.state_dict())
        return {"progress": self.progress, "monitor": self.best_monitor,
                "optimizer": as_part(self.optimizer), "lr_scheduler": as_part(self.lr_scheduler),
                "criterion": criterion if has_weights else None, "callbacks": self.callbacks,
                "writer": self.writer}

    def rank_state_parts(self) -> dict[str, Any]:
        """What is saved for each process on its own; random generators come last."""
        return {"train_metrics": as_part(self.train_metrics), "random": RandomState()}

    def train(self) -> None:
        """Runs the epochs from ``start_epoch`` to ``epochs``.

        Raises:
            SystemExit: stopped by a signal (status 128 + its number) or by ``max_seconds``
                (status 124), with everything saved.
        """
        if self.settings.max_seconds is not None:
            self._deadline = time.monotonic() + self.settings.max_seconds
        status = 0
        with self._signals:
            try:
                self._prepare()
                for epoch in range(self.start_epoch, self.epochs + 1):
                    if not self._run_epoch(epoch):
                        break
            except StopRun:
                self._save_latest()
            except KeyboardInterrupt:
                self.logger.warning("quit at once; %s", self._go_on_hint())
                raise
            except Exception as error:
                self.logger.error("the run ended by this error:", exc_info=True, extra=FILE_ONLY)
                self.logger.warning("the run ended by %s; %s", type(error).__name__,
                                    self._go_on_hint())
                raise
            finally:
                with contextlib.ExitStack() as closing:  # each is done, whatever happens to another
                    closing.callback(self.checkpointer.wait)
                    closing.callback(self.writer.close)
                    closing.callback(self.callbacks.call, "on_train_end", self)
            status = self._tell_end()
        if status:
            raise SystemExit(status)

    def train_batches(self) -> Iterator[tuple[int, Any]]:
        """(batch_idx, batch) of the epoch, from where a resumed run was stopped in it.

        Between two batches, that is after an optimizer step, it saves what is due and honours
        stops. A batch counts as finished when the next one is asked for.
        """
        for batch in self._batches.draw(self.data_loader, self.len_epoch):
            yield self.progress.batch, batch
            self.progress.finish_batch()
            self.callbacks.call("on_step_end", self, self.progress.batch - 1, batch)
            if self.progress.batch != self.len_epoch:  # with all its steps done it is finished
                self._between_steps()

    def _between_steps(self) -> None:
        save_steps = self.settings.save_steps
        if self._should_stop():
            raise StopRun
        if save_steps is not None and self.progress.step % save_steps == 0:
            self._save_latest()

    def _should_stop(self) -> bool:
        return self._signals.received is not None or (
            self._deadline < math.inf and time.monotonic() >= self._deadline)

    def _prepare(self) -> None:
        """Restores what waited for the subclass to be complete, and checks what can be checked."""
        names = self._log_names()
        if names is not None and self.mnt_metric is not None and self.mnt_metric not in names:
            raise RunError(f"trainer.monitor watches {self.mnt_metric!r}, but the epoch log will "
                           f"have {', '.join(names)}. If your trainer adds it, name it in "
                           "extra_log_names")
        if self.early_stop > 0 and self.mnt_mode == "off":
            self.logger.warning("trainer.early_stop has no effect without trainer.monitor")
        if self._pending is not None:
            resume_parts(self.state_parts(), self._pending, self.config.config, self.optimizer)
            self.history.keep_until(self.progress.epoch)
            restore(self.rank_state_parts(), (self._pending.get("rank_parts") or [{}])[0])
            self._pending = None
        for loader in (self.data_loader, self.valid_data_loader):
            if hasattr(loader, "place"):
                loader.place(self.progress.epoch)
        self.callbacks.call("on_train_start", self)

    def _run_epoch(self, epoch: int) -> bool:
        """One epoch and what comes after it; whether the run goes on."""
        start, waited = time.monotonic(), self._batches.seconds_waited
        self.callbacks.call("on_epoch_start", self, epoch)
        log = {"epoch": epoch, **self._train_epoch(epoch)}
        self.callbacks.call("on_epoch_end", self, epoch, log)
        log = {key: report.plain_number(value) for key, value in log.items()}
        is_best = self.best_monitor.update(log)
        self.progress.finish_epoch(epoch)
        self.history.append(log)
        seconds = time.monotonic() - start
        for line in report.epoch_lines(log, epochs=self.epochs, seconds=seconds, is_best=is_best):
            self.logger.info(line)
        if hint := report.loading_hint(self._batches.seconds_waited - waited, seconds):
            self.logger.info(hint)
        is_last = epoch == self.epochs or self.best_monitor.should_stop
        should_stop = not is_last and self._should_stop()
        if is_best or is_last or should_stop or epoch % self.save_period == 0:
            self._save_checkpoint(epoch, save_best=is_best)
        if self.best_monitor.should_stop:
            self.logger.info("no improvement of %s for %d epochs: stopping early", self.mnt_metric,
                             self.best_monitor.epochs_without_improvement)
        return not (is_last or should_stop)

    def _save_checkpoint(self, epoch: int, save_best: bool = False) -> None:
        """Writes the checkpoint of a finished epoch.

        Args:
            epoch: its number.
            save_best: whether it is the best so far.
        """
        is_due = epoch % self.save_period == 0 or epoch == self.epochs or (
            self.best_monitor.should_stop)
        names = [self.checkpointer.epoch_name(epoch)] if is_due else []
        names += [BEST] if save_best else []
        self.checkpointer.save(self._state(), [*names, LATEST], epoch=epoch if is_due else None)
        self.logger.debug("saved %s", Path(self.checkpoint_dir) / (names or [LATEST])[0])

    def _save_latest(self) -> None:
        """Writes ``latest.pth`` between two steps of an epoch."""
        self.checkpointer.save(self._state(), [LATEST])

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds: plain types and tensors only."""
        self.writer.flush()
        model = unwrap_model(self.model)
        parts = collect(self.state_parts())
        return {
            "arch": type(model).__name__,
            "epoch": self.progress.epoch,
            "state_dict": model.state_dict(),
            "optimizer": parts.pop("optimizer", None),
            "monitor_best": float(self.mnt_best),
            "config": json.loads(json.dumps(self.config.config, default=str)),
            "parts": parts,
            "rank_parts": [collect(self.rank_state_parts())],
            "log_bytes": log_bytes(),
        }

    def _resume_checkpoint(self, resume_path: str | Path) -> None:
        """Takes model, optimizer and counters from a checkpoint; the rest waits for ``train``.

        Raises:
            CheckpointError: it cannot be read, or is of another model.
        """
        checkpoint = read_checkpoint(Path(resume_path))
        load_weights(self.model, checkpoint["state_dict"], str(resume_path))
        resume_optimizer(self.optimizer, checkpoint, self.config.config)
        resume_counters(self.progress, self.best_monitor, checkpoint, str(resume_path))
        self._pending = checkpoint if "parts" in checkpoint else None
        self.logger.info("resuming %s, saved %s", resume_path, self.progress.place())

    def _tell_end(self) -> int:
        """Logs how the run ended; returns the exit status."""
        is_done = self.progress.epoch >= self.epochs or self.best_monitor.should_stop
        if is_done or not self._should_stop():
            best = "" if self.mnt_mode == "off" else f", best {self.mnt_metric} {self.mnt_best:.6g}"
            self.logger.log(RESULT, "finished %d epochs%s: %s", self.progress.epoch, best,
                            self.checkpoint_dir)
            return 0
        reason, status = report.stop_reason(self._signals.received)
        self.logger.log(RESULT, "%s %s; %s", reason, self.progress.place(), self._go_on_hint())
        return status

    def _go_on_hint(self) -> str:
        return report.go_on_hint(Path(self.checkpoint_dir) / LATEST)
