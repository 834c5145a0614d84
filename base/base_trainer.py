"""The life of a run: steps, epochs, validation, monitor, checkpoints, stop, resume."""

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base.average import average_of
from base.callback import Callback, CallbackList
from base.checkpoint.best_models import models_before, settle_folder
from base.checkpoint.resume import Resumed
from base.checkpoint.saver import Saver
from base.checkpoint.state import Gradients, make_checkpoint, networks_in, parts_of
from base.counters import Counters, reached
from base.data.train_batches import TrainBatches
from base.ending import Stop, ending, tell_nothing_to_do
from base.epoch_log import Pace, StepLog, tell_epoch, write_epoch
from base.finite_loss import LossCheck
from base.loops import Loops
from base.monitor import Monitor, is_number
from base.optimizers import StepWatch, learning_rates, other_optimizers
from base.profile import profiling
from base.run_log import begin
from base.schedulers import Schedulers
from base.start_checks import check_start, tell_unknown
from base.together import BatchExchange, agreed_log, bring_together, reduction_of, take_part
from base.updates import Updates
from logger.console import plain_number
from logger.history import History
from logger.trackers import Trackers
from logger.visualization import TensorboardWriter
from utils.config.settings import TrainerConfig
from utils.devices.parallel import compiler_told, place_if_unplaced
from utils.devices.processes import by_main, is_main_process, num_processes
from utils.devices.sharding import is_sharded
from utils.errors import ConfigError, RunError
from utils.metric_tracker import make_tracker
from utils.rng import RandomState


def _of(part: str, name: str) -> Any:
    """An attribute of the trainer, by its classic name, that lives in one of its parts."""
    return property(lambda self: getattr(getattr(self, part), name),
                    lambda self, value: setattr(getattr(self, part), name, value))


class BaseTrainer(Loops, ABC):
    """Base class of all trainers: a subclass defines ``_train_epoch(epoch)``.

    Whatever attribute has ``state_dict`` and ``load_state_dict`` (or is a dict or list of such, or
    a ``torch.Generator``) is saved under its name and restored: a second network, an EMA, ... What
    a resume brings for the parts made here is there after the constructor, the rest when ``train``
    starts, since a subclass makes it after ``super().__init__``.

    Args:
        model: moved to ``config``'s device, unless ``device`` is given or it was placed already.
        criterion: for the subclass.
        metric_ftns: functions of (output, target) and torchmetrics objects; with a ``data_loader``,
            ``train_metrics`` and ``valid_metrics`` track them.
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
        without_state: names of attributes that are not to be saved.
    """

    mnt_mode = _of("best_monitor", "mode")
    mnt_metric = _of("best_monitor", "metric")
    mnt_best = _of("best_monitor", "best")
    early_stop = _of("best_monitor", "patience")
    checkpoint_dir = _of("saver", "directory")
    save_period = _of("saver", "save_freq")
    without_state: tuple[str, ...] = ()

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
        self.by_steps = bool(settings.valid_steps) and not self.is_classic
        self.best_monitor = Monitor(
            settings.monitor, patience=settings.early_stop, min_delta=settings.min_delta,
            keep=settings.keep_best, by_steps=self.by_steps)
        self.saver = Saver(lambda: config.save_dir, save_freq=settings.save_freq,
                           keep_last=settings.keep_last, name=settings.checkpoint_name,
                           async_save=settings.async_save)
        self.writer = TensorboardWriter(lambda: config.log_dir, self.logger,
                                        settings.tensorboard and is_main_process())
        self.trackers = Trackers()
        self.history = History(lambda: config.log_dir)
        self.callbacks = CallbackList([LossCheck(), *callbacks, StepLog(), *profiling(settings)])
        self.schedulers = Schedulers(lr_scheduler, config)
        self.stop = Stop(settings.max_seconds)
        around = TrainerConfig.model_validate({}) if self.is_classic else settings
        self._exchange = BatchExchange(self.stop) if num_processes() > 1 else None
        self.updates = Updates(around, device, reduction_of(self, around))
        self.average = None if is_sharded(model) else average_of(model, around.ema_decay)
        self._step_watch = StepWatch(None)
        self._rates: dict[str, float] = {}
        self._resumed: Resumed | None = None
        self._best_file: Path | None = None
        self._kept_files: dict[str, Path] = {}
        if config.resume is not None:
            self._resume_checkpoint(config.resume)
        if not self.is_classic:  # after it: a subclass may put others in their place
            self.train_metrics = make_tracker(metric_ftns, device)
            self.valid_metrics = make_tracker(metric_ftns, device)

    @property
    def start_epoch(self) -> int:
        return self.counters.epoch + 1

    @start_epoch.setter
    def start_epoch(self, epoch: int) -> None:
        self.counters.epoch = epoch - 1

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end by itself."""
        return (reached(self.counters.epoch, self.epochs) or self.best_monitor.should_stop
                or reached(self.counters.step, self.settings.max_steps))

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch, from 1; returns its log: numbers by name."""

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluates ``valid_data_loader``; returns numbers by name."""
        raise RunError(f"{type(self).__name__} has no _valid_epoch(epoch) to evaluate data with")

    def train(self) -> None:
        """Trains from ``start_epoch`` on until the run is over.

        Raises:
            SystemExit: stopped by a signal (status 128 + its number) or by ``max_seconds``
                (status 124), with everything saved.
        """
        take_part(self)
        if not self._finish_resuming():
            return
        self._step_watch = StepWatch(self.optimizer, other_optimizers(vars(self)),
                                     num_steps=self.counters.step)
        check_start(self)
        with ending(self):
            begin(self)
            while True:
                self._finish_what_has_no_batch_left()
                if not self.is_over:
                    self._run_epoch(self.start_epoch)
                if self.is_over or self.stop.is_asked:
                    break

    def _run_epoch(self, epoch: int) -> None:
        """One epoch or, with ``valid_steps``, the steps until a validation; and what follows it."""
        pace = Pace(self)
        self.history.begin()
        self.callbacks.call("on_epoch_start", self, epoch)
        values = self._loop(epoch)
        if not self._is_drawing:
            self._count_own_loop()
        number, rates = epoch, learning_rates(self.optimizer)
        if self.by_steps:
            number = self.counters.epoch + bool(self.counters.batch)
            rates = rates if self.counters.batch else self._rates
        log = {"epoch": number} | values | self.updates.take_skipped() | {"epoch": number}
        self.counters.unvalidated = 0
        for name, lr in rates.items():
            log.setdefault(name, lr)
        self.callbacks.call("on_epoch_end", self, epoch, log)
        log = self.history.renamed(log) | {"epoch": number}
        log = agreed_log(self, {key: plain_number(value) for key, value in log.items()})
        self.schedulers.after_validation(log, self.mnt_metric)
        is_best = self.best_monitor.update(log, self.counters.step)
        if not (self.by_steps or self._is_cut_inside):
            self._finish_epoch()
        if not self.is_classic:  # which has written its own values
            write_epoch(self.writer, log, self.counters.step)
            self.train_metrics.reset()
        tell_epoch(self, log, pace, is_best=is_best)
        is_unknown = self.mnt_metric is not None and not is_number(log.get(self.mnt_metric))
        ends = self.is_over or self.stop.is_asked or is_unknown or self.by_steps
        is_due = self.saver.is_due(epoch) or self._is_save_step()
        if is_best or self.best_monitor.new or ends or is_due:
            self._save_checkpoint(None if self.counters.batch else self.counters.epoch,
                                  save_best=is_best)
        if is_unknown:
            tell_unknown(self, log)

    def _loop(self, epoch: int) -> dict[str, Any]:
        self._is_drawing = self._is_cut_inside = False
        with compiler_told(self.settings.compile), self.updates.around_epoch():
            log = self._train_epoch(epoch)
        if self._unfinished:  # the loop was left by break
            self._finish_batch()
        return log

    def _count_own_loop(self) -> None:
        """An epoch of a loop that draws from the loader itself: all that is known is how many steps
        its optimizer made."""
        if self.updates.accumulate > 1 or self.updates.scaler or self.average or self._exchange:
            raise ConfigError("trainer.accumulate, ema_decay, fp16 and several processes need a "
                              "_train_epoch that draws its batches from self.train_batches()")
        if not self.is_classic and self.counters.epoch == 0:
            self.logger.warning(
                "_train_epoch draws no batch from self.train_batches(): the run cannot be stopped "
                "inside an epoch%s", ", and schedules by step do not move" if (
                    self.schedulers.each_step) else "")
        self.counters.finish_pass()
        self.counters.step = max(self.counters.step, self._step_watch.num_steps)

    def _parts(self) -> dict[str, Any]:
        """What has a state, by name; the random generators come last."""
        parts = parts_of(self, ("valid_metrics", "metric_ftns", *self.without_state))
        gradients = Gradients(networks_in(parts), is_waiting=self._step_watch.is_waiting)
        return {**parts, "gradients": gradients, "random": RandomState()}

    def _save_checkpoint(self, epoch: int | None, save_best: bool = False) -> None:
        """Writes the checkpoint of a finished epoch (None: of a validation inside one), which may
        be the best so far."""
        self._write(functools.partial(
            self.saver.save_epoch, epoch=epoch, is_best=save_best, is_last=self.is_over,
            kept=self.best_monitor.kept, new=self.best_monitor.new), is_best=save_best)

    def _save_latest(self) -> None:
        """Writes ``latest.pth`` between two steps of an epoch."""
        self._write(self.saver.save_latest, is_best=False)

    def _write(self, save: Callable[..., None], *, is_best: bool) -> None:
        state, finite = self._state()

        def write() -> None:
            save(state, finite=finite)
            settle_folder(self, is_best=is_best)

        by_main(write)

    def _state(self) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
        """A checkpoint's content, and what in it must be finite."""
        self.writer.flush()
        parts = self._parts()
        state, finite = make_checkpoint(parts, config=self.config.config,
                                        epoch=self.counters.epoch, monitor_best=self.mnt_best)
        return bring_together(self, state, parts, finite), finite

    def _resume_checkpoint(self, resume_path: str | Path) -> None:
        """Takes a checkpoint; the state of what a subclass makes later waits for ``train``.

        Raises:
            CheckpointError: it cannot be read, or is of another model.
        """
        self._resumed = Resumed.read(Path(resume_path), self.config, self.model)
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
        self._best_file, self._kept_files = models_before(self, Path(resumed.source))
        return True
