"""The life of a run: epochs, validation, monitor, checkpoints, stop, resume."""

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base.callback import Callback, CallbackList
from base.checkpoint.resume import Resumed, best_model, settle_folder
from base.checkpoint.saver import Saver
from base.checkpoint.state import Gradients, make_checkpoint, networks_in, parts_of
from base.counters import Counters
from base.data.train_batches import TrainBatches
from base.ending import Stop, StopRun, ending, tell_nothing_to_do
from base.epoch_log import StepLog, tell_epoch, write_epoch
from base.evaluation import evaluating
from base.finite_loss import LossCheck
from base.monitor import Monitor
from base.optimizers import StepWatch, learning_rates
from base.schedulers import Schedulers
from base.start_checks import check_start, tell_unknown
from logger.console import VALID, plain_number
from logger.history import History
from logger.visualization import TensorboardWriter
from utils.batches import num_samples, to_device
from utils.devices.parallel import place_if_unplaced
from utils.errors import RunError
from utils.rng import RandomState
from utils.runs.checkpoint_file import read_checkpoint


def _of(part: str, name: str) -> Any:
    """An attribute of the trainer, by its classic name, that lives in one of its parts."""
    return property(lambda self: getattr(getattr(self, part), name),
                    lambda self, value: setattr(getattr(self, part), name, value))


class BaseTrainer(ABC):
    """Base class of all trainers: a subclass defines ``_train_epoch(epoch)``.

    Whatever attribute has ``state_dict`` and ``load_state_dict`` (or is a dict or list of such, or
    a ``torch.Generator``) is saved under its name and restored: a second network, an EMA, ... What
    a resume brings for the parts made here is there after the constructor, the rest when ``train``
    starts, since a subclass makes it after ``super().__init__``.

    Args:
        model: moved to ``config``'s device, unless ``device`` is given or it was placed already.
        criterion, metric_ftns: for the subclass.
        optimizer: one, or a dict or list of them.
        config: a ``ConfigParser``.
        device: where the model is.
        data_loader, valid_data_loader: any iterables of batches. A classic subclass brings them
            later; its loops, schedules and log are its own then.
        lr_scheduler: one that is stepped here.
        len_epoch: batches per epoch; None is as the config says, or one pass over the data.
        callbacks: called in their order.

    Attributes:
        counters: of finished epochs, batches and steps.
        start_epoch: the epoch that ``train`` begins or goes on with.
        num_evaluated: samples of the last evaluation.
        without_state: names of attributes that are not to be saved.
    """

    mnt_mode = _of("best_monitor", "mode")
    mnt_metric = _of("best_monitor", "metric")
    mnt_best = _of("best_monitor", "best")
    early_stop = _of("best_monitor", "patience")
    checkpoint_dir = _of("saver", "directory")
    save_period = _of("saver", "save_freq")
    without_state: tuple[str, ...] = ()
    num_samples = staticmethod(num_samples)  # override it where a batch does not tell

    def __init__(self, model: nn.Module, criterion: Any, metric_ftns: Any, optimizer: Any,
                 config: Any, *, device: torch.device | None = None, data_loader: Any = None,
                 valid_data_loader: Any = None, lr_scheduler: Any = None,
                 len_epoch: int | None = None, callbacks: Sequence[Callback] = ()) -> None:
        self.config = config
        self.settings = settings = config.trainer
        self.logger: logging.Logger = config.get_logger("trainer", settings.verbosity)
        if device is None:
            device, model = place_if_unplaced(model, config.run.n_gpu)
        self.device, self.model = device, model
        self.criterion = criterion.to(device) if isinstance(criterion, nn.Module) else criterion
        self.metric_ftns = metric_ftns
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.data_loader = data_loader
        self.valid_data_loader = valid_data_loader
        self.do_validation = valid_data_loader is not None
        self.is_classic = data_loader is None
        self.len_epoch = len_epoch or settings.len_epoch
        self.log_step = settings.log_steps
        self.train_metrics: Any = None
        self.valid_metrics: Any = None

        self.epochs = settings.epochs
        self.monitor = settings.monitor
        self.counters = Counters()
        self.train_data = TrainBatches(self.counters)
        self.best_monitor = Monitor(settings.monitor, patience=settings.early_stop,
                                    min_delta=settings.min_delta)
        self.saver = Saver(lambda: config.save_dir, save_freq=settings.save_freq,
                           keep_last=settings.keep_last, name=settings.checkpoint_name,
                           async_save=settings.async_save)
        self.writer = TensorboardWriter(lambda: config.log_dir, self.logger, settings.tensorboard)
        self.history = History(lambda: config.log_dir)
        self.callbacks = CallbackList([LossCheck(), *callbacks, StepLog()])
        self.schedulers = Schedulers(lr_scheduler, config)
        self.stop = Stop(settings.max_seconds)
        self._step_watch = StepWatch(None)
        self._resumed: Resumed | None = None
        self._best_file: Path | None = None
        if config.resume is not None:
            self._resume_checkpoint(config.resume)

    @property
    def start_epoch(self) -> int:
        return self.counters.epoch + 1

    @start_epoch.setter
    def start_epoch(self, epoch: int) -> None:
        self.counters.epoch = epoch - 1

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end by itself."""
        return self.counters.epoch >= self.epochs or self.best_monitor.should_stop

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch, from 1; returns its log: numbers by name."""

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluates ``valid_data_loader``; returns numbers by name."""
        raise RunError(f"{type(self).__name__} has no _valid_epoch(epoch) to evaluate data with")

    def train(self) -> None:
        """Runs the epochs from ``start_epoch`` to ``epochs``.

        Raises:
            SystemExit: stopped by a signal (status 128 + its number) or by ``max_seconds``
                (status 124), with everything saved.
        """
        if not self._finish_resuming():
            return
        self._step_watch = StepWatch(self.optimizer)
        check_start(self)
        with ending(self):
            self.config.make_folder()
            self.callbacks.call("on_train_start", self)
            for epoch in range(self.start_epoch, self.epochs + 1):
                self._run_epoch(epoch)
                if self.is_over or self.stop.is_asked:
                    break

    def train_batches(self) -> Iterator[tuple[int, Any]]:
        """(batch_idx, batch on the device) of the epoch, from where a resumed run was stopped.

        Between two batches it counts, steps schedules, calls callbacks, saves what is due and
        honours stops. A batch counts as finished when the next one is asked for.
        """
        counters, data = self.counters, self.train_data
        if counters.batch == 0 and self.train_metrics is not None:
            self.train_metrics.reset()
        for batch in data.draw(self.data_loader, self.len_epoch):
            batch_idx = counters.batch
            size = data.count(self.data_loader, batch)
            batch = to_device(batch, self.device, channels_last=self.settings.channels_last)
            self.writer.step, self.writer.mode = counters.step + 1, "train"
            yield batch_idx, batch
            counters.finish_batch(size)
            stepped = self._step_watch.take()
            if stepped:
                counters.step += 1
                self.schedulers.after_step(stepped)
            self.callbacks.call("on_step_end", self, batch_idx, batch)
            if not data.is_last(self.len_epoch):  # with its last batch the epoch is finished first
                self._between_steps()

    def valid_batches(self) -> Iterator[tuple[int, Any]]:
        """(batch_idx, batch on the device) of the validation data."""
        if hasattr(self.valid_data_loader, "place"):
            self.valid_data_loader.place(self.counters.epoch)
        for batch_idx, batch in enumerate(self.valid_data_loader):
            batch = to_device(batch, self.device, channels_last=self.settings.channels_last)
            self.num_evaluated += self.num_samples(batch)
            yield batch_idx, batch
            self.callbacks.call("on_valid_batch_end", self, batch_idx, batch)

    def evaluation(self) -> contextlib.AbstractContextManager[None]:
        """Context for validation: all networks in eval mode, no gradients kept, random streams
        left where they were."""
        return evaluating(networks_in(self._parts()).values())

    def evaluate(self, data_loader: Any) -> dict[str, Any]:
        """What this trainer's ``_valid_epoch`` says of the data of a loader."""
        if self._resumed is not None:  # not to be trained: whatever else the networks have
            self._resumed.give(self._parts())
        previous, self.valid_data_loader = self.valid_data_loader, data_loader
        self.num_evaluated = 0
        self.writer.step, self.writer.mode = self.counters.step, "valid"
        try:
            with self.evaluation():
                if self.valid_metrics is not None:
                    self.valid_metrics.reset()
                return dict(self._valid_epoch(self.counters.epoch + 1))
        finally:
            self.valid_data_loader = previous

    def validate(self) -> dict[str, Any]:
        """The values of the validation data as ``val_NAME``; empty without any."""
        if not self.do_validation:
            return {}
        return {f"{VALID}{name}": value
                for name, value in self.evaluate(self.valid_data_loader).items()}

    def _between_steps(self) -> None:
        if self.stop.is_asked:
            raise StopRun
        if self.settings.save_steps and self.counters.step % self.settings.save_steps == 0:
            self._save_latest()

    def _run_epoch(self, epoch: int) -> None:
        """One epoch and what comes after it."""
        start, waited = time.monotonic(), self.train_data.seconds_waited
        self.callbacks.call("on_epoch_start", self, epoch)
        log = {"epoch": epoch, **self._train_epoch(epoch)}
        for name, lr in learning_rates(self.optimizer).items():
            log.setdefault(name, lr)
        self.callbacks.call("on_epoch_end", self, epoch, log)
        log = {key: plain_number(value) for key, value in log.items()}
        self.schedulers.after_epoch(log, self.mnt_metric)
        is_best = self.best_monitor.update(log)
        self.counters.finish_epoch(epoch)
        if not self.is_classic:  # which has written its own values
            write_epoch(self.writer, log, self.counters.step)
            self.train_metrics.reset()
        tell_epoch(self, log, is_best=is_best, seconds=time.monotonic() - start,
                   seconds_waited=self.train_data.seconds_waited - waited)
        is_unknown = self.mnt_metric is not None and self.mnt_metric not in log
        ends = self.is_over or self.stop.is_asked or is_unknown
        if is_best or ends or self.saver.is_due(epoch):
            self._save_checkpoint(epoch, save_best=is_best)
        if is_unknown:
            tell_unknown(self, log)

    def _parts(self) -> dict[str, Any]:
        """What has a state, by name; the random generators come last."""
        parts = parts_of(self, ("valid_metrics", *self.without_state))
        gradients = Gradients(networks_in(parts), is_waiting=self._step_watch.is_waiting)
        return {**parts, "gradients": gradients, "random": RandomState()}

    def _save_checkpoint(self, epoch: int, save_best: bool = False) -> None:
        """Writes the checkpoint of a finished epoch, which may be the best so far."""
        state, finite = self._state()
        self.saver.save_epoch(state, epoch, is_best=save_best, is_last=self.is_over, finite=finite)
        settle_folder(self, is_best=save_best)

    def _save_latest(self) -> None:
        """Writes ``latest.pth`` between two steps of an epoch."""
        self.saver.save_latest(*self._state())
        settle_folder(self, is_best=False)

    def _state(self) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
        """A checkpoint's content, and what in it must be finite."""
        self.writer.flush()
        return make_checkpoint(self._parts(), config=self.config.config,
                               epoch=self.counters.epoch, monitor_best=self.mnt_best)

    def _resume_checkpoint(self, resume_path: str | Path) -> None:
        """Takes a checkpoint; the state of what a subclass makes later waits for ``train``.

        Raises:
            CheckpointError: it cannot be read, or is of another model.
        """
        content = self.config.take_checkpoint(resume_path) or read_checkpoint(Path(resume_path))
        self._resumed = Resumed(content, str(resume_path), self.config.config)
        self._resumed.give(self._parts())
        self.logger.info("resuming %s, saved %s", resume_path, self.counters.place())

    def _finish_resuming(self) -> bool:
        """Restores what is left of a checkpoint; whether there is anything to train."""
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            return True
        resumed.finish(self._parts(), self.mnt_metric)
        if self.is_over:
            tell_nothing_to_do(self)
            return False
        self._best_file = best_model(self, Path(resumed.source))
        return True
