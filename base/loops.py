"""What a trainer's own methods are made of: steps, batches of training and of validation."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from base.checkpoint.state import networks_in
from base.closure import loss_again
from base.counters import Counters, is_multiple, reached
from base.data.train_batches import TrainBatches
from base.ending import StopRun
from base.evaluation import evaluating, evaluating_on, named_loaders
from base.optimizers import StepWatch, chosen, learning_rates, wants_closure
from base.schedulers import Schedulers
from base.together import BatchExchange, check_shared
from base.updates import Updates
from logger.console import VALID
from utils.batches import num_samples, only_field, to_device
from utils.config.settings import TrainerConfig
from utils.devices.parallel import unwrap_model
from utils.devices.precision import read_outside
from utils.devices.processes import gathered
from utils.errors import ConfigError, RunError


class Loops:
    """The half of ``BaseTrainer`` that ``_train_step``, ``_train_epoch`` and ``_valid_epoch`` call.
    The other half, in ``base/base_trainer.py``, calls these.

    Attributes:
        num_evaluated: samples of the last evaluation.
        batches_per_step: of a trainer that accumulates gradients by itself; for the length of
            schedules.
        average: of the model's weights, with ``ema_decay``; validation is done by it.
    """

    num_samples = staticmethod(num_samples)  # override it where a batch does not tell
    num_evaluated = 0
    seconds_validating = 0.0
    batches_per_step = 1
    _is_evaluating_again = False
    _loss: torch.Tensor | None = None  # of the last backward
    _batch: tuple[Any, int] = (None, 0)  # the last one, and its index
    _unfinished = 0  # samples of a batch that is not counted yet
    _is_drawing = False  # whether the epoch's loop calls train_batches
    _is_left = False  # whether it left that by break
    _is_cut_inside = False  # whether max_steps ended it before its data did
    # what the other half makes
    settings: TrainerConfig
    counters: Counters
    train_data: TrainBatches
    len_epoch: int | None
    by_steps: bool
    is_classic: bool
    start_epoch: Any
    is_over: Any
    device: torch.device
    optimizer: Any
    schedulers: Schedulers
    data_loader: Any
    valid_data_loader: Any
    train_metrics: Any
    valid_metrics: Any
    writer: Any
    callbacks: Any
    saver: Any
    stop: Any
    model: Any
    average: Any
    updates: Updates
    _exchange: BatchExchange | None  # with other processes
    _step_watch: StepWatch
    _rates: dict[str, float]  # the lr with which the last finished epoch was trained
    _resumed: Any
    _parts: Callable[[], dict[str, Any]]
    _save_checkpoint: Callable[..., None]
    _save_latest: Callable[[], None]
    _valid_epoch: Callable[[int], dict[str, Any]]

    def zero_grad(self, optimizer: str | None = None) -> None:
        """Forgets the gradients of an optimizer, by its name; default all."""
        for one in chosen(self.optimizer, optimizer).values():
            one.zero_grad()

    def backward(self, loss: torch.Tensor) -> None:
        """Computes the gradients of a mean over the batch, added to those that are there."""
        self.updates.backward(loss)
        if self._step_watch.has_closure:
            self._loss = loss.detach()

    def step(self, optimizer: str | None = None) -> None:
        """The step of an optimizer, by its name, if one is due; default of all, in their order. One
        that evaluates the loss several times (LBFGS) gets it by ``_train_step``, made again on the
        same batch."""
        if self._is_evaluating_again:
            return
        for name, one in chosen(self.optimizer, optimizer).items():
            if wants_closure(one):
                one.step(loss_again(self))
            elif (norm := self.updates.step(name, one)) is not None:
                self._log_norm(name, norm)

    def train_batches(self) -> Iterator[tuple[int, Any]]:
        """(batch_idx, batch on the device) of the epoch, from where a resumed run was stopped.

        Between two batches it counts, steps schedules, calls callbacks, saves what is due and
        honours stops. A batch counts as finished when the next one is asked for or, in a loop left
        by ``break``, with the next validation or loop (of an iterator that is kept, with the
        epoch's end): the next epoch goes on in the same pass over the data. With ``valid_steps`` it
        gives the batches until the next validation, be they of several epochs.
        """
        self._finish_left_batch()
        counters, data = self.counters, self.train_data
        self._is_drawing, self._is_left = True, False
        while True:
            for batch in read_outside(data.draw(self.data_loader, self.len_epoch),
                                      self.updates.precision, self.device):
                batch_idx = counters.batch
                size = data.count(self.data_loader, batch)
                if data.num_drawn == 1 and self.num_samples is num_samples:
                    data.tell_miscount(self.data_loader, batch)
                batch = to_device(batch, self.device, channels_last=self.settings.channels_last)
                self.writer.step, self.writer.mode = counters.step + 1, "train"
                self._batch, self._unfinished = (batch, batch_idx), size
                self._begin_batch(batch, size)
                try:
                    yield batch_idx, batch
                except GeneratorExit:
                    self._is_left = True
                    raise
                has_stepped, is_last = self._finish_batch()
                is_over = is_last and self.by_steps and self.is_over
                if is_over or (has_stepped and self._is_cut()):
                    self._is_cut_inside = not is_last
                    return
                if self.by_steps or not is_last:  # else the epoch is finished first
                    self._between_steps(is_last, has_stepped)
            has_stepped = self._finish_groups()  # the data has ended, which was not known before
            if not self.by_steps:
                return
            if counters.batch:
                self._finish_epoch()
                if self.is_over or (has_stepped and self._is_valid_step()):
                    return
                self._between_steps(is_last=True, has_stepped=has_stepped)

    def valid_batches(self) -> Iterator[tuple[int, Any]]:
        """(batch_idx, batch on the device) of the validation data."""
        if hasattr(self.valid_data_loader, "place"):
            self.valid_data_loader.place(0)  # the same each time: epochs are compared
        self.num_evaluated = 0
        batches = read_outside(self.valid_data_loader, self.updates.precision, self.device)
        for batch_idx, batch in enumerate(batches):
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
        self._finish_left_batch()
        check_shared("the data to evaluate", data_loader)
        with evaluating_on(self, data_loader):
            if self.valid_metrics is not None:
                self.valid_metrics.reset()
            self.callbacks.call("on_valid_start", self)
            log = dict(self._valid_epoch(self.counters.epoch + 1))
            self.callbacks.call("on_valid_end", self)
        self.num_evaluated = sum(gathered(self.num_evaluated))
        return log

    def predict_batch(self, batch: Any) -> Any:
        """Scores of (n, classes), or values, for a batch without targets, of which test.py makes a
        table. Override it where the model takes, or gives, anything else than one tensor."""
        return self.model(only_field(batch))

    def validate(self) -> dict[str, Any]:
        """The values of the validation data as ``val_NAME``, of several data sets as
        ``val_SET_NAME``; empty without any."""
        start = time.monotonic()
        values = {f"{VALID}{prefix}{name}": value
                  for prefix, loader in named_loaders(self.valid_data_loader)
                  for name, value in self.evaluate(loader).items()}
        self.seconds_validating += time.monotonic() - start
        return values

    def _begin_batch(self, batch: Any, size: int) -> None:
        if self.updates.is_plain:
            return
        own = self.num_samples(batch)
        self.updates.begin(own)
        if self._exchange is not None:
            self._exchange.begin(own, size, is_own_count=self.train_data.is_own_count)

    def _finish_left_batch(self) -> None:
        if self._is_left and self._unfinished:
            self._finish_batch()

    def _finish_batch(self) -> tuple[bool, bool]:
        """Counts a batch; whether there was a step, and whether it is the epoch's last."""
        (batch, batch_idx), size, self._unfinished = self._batch, self._unfinished, 0
        if self._exchange is not None:
            size = self._exchange.end()
        if self.updates.groups and self.train_data.is_last_drawn(self.len_epoch):
            self._step_what_waits()
        self.counters.finish_batch(size)
        self.train_data.num_samples += size
        stepped = self._count_step()
        self.callbacks.call("on_step_end", self, batch_idx, batch)
        self.schedulers.after_step(stepped)
        is_last = self.train_data.is_last(self.len_epoch)
        if is_last and self.by_steps:
            if self.len_epoch is None:
                self.train_data.end_pass()
            self._finish_epoch()
        return bool(stepped), is_last

    def _count_step(self) -> set[str]:
        """Names of the optimizers that have stepped."""
        stepped = self.updates.end(self._step_watch.take(without_silent=not self.updates.is_plain))
        if self._exchange is not None and self._step_watch.num_others:
            raise ConfigError("of several processes each would step an optimizer that is no part "
                              "of self.optimizer by its own gradients; make that a dict of all, "
                              "and step each by self.step(NAME)")
        if stepped:
            self.counters.step += 1
            if self.average is not None:
                self.average.update_parameters(unwrap_model(self.model))
        return stepped

    def _finish_groups(self) -> bool:
        """The steps for which fewer batches than ``accumulate`` wait; whether there were any."""
        if not self._step_what_waits():
            return False
        stepped = self._count_step()
        self.schedulers.after_step(stepped)
        return bool(stepped)

    def _step_what_waits(self) -> bool:
        waiting = list(self.updates.groups)
        for name in waiting:
            one = chosen(self.optimizer, name or None)[name]
            if (norm := self.updates.finish(name, one)) is not None:
                self._log_norm(name, norm)
        return bool(waiting)

    def _log_norm(self, name: str, norm: torch.Tensor) -> None:
        label = f"gradient_norm_{name}" if name else "gradient_norm"
        self.train_metrics.update(label, norm, self.updates.samples)

    def _is_save_step(self) -> bool:
        return is_multiple(self.counters.step, self.settings.save_steps)

    def _is_valid_step(self) -> bool:
        return is_multiple(self.counters.step, self.settings.valid_steps)

    def _is_cut(self) -> bool:
        """Whether a validation is due after this step, or the run over."""
        if not self.by_steps:
            return reached(self.counters.step, self.settings.max_steps)
        return self._is_valid_step() or self.is_over

    def _between_steps(self, is_last: bool, has_stepped: bool) -> None:
        """Between two batches; with ``valid_steps`` the first may be the last of its epoch."""
        if is_last and self.saver.is_due(self.counters.epoch):
            self._save_checkpoint(self.counters.epoch)
        if self.stop.is_asked:
            raise StopRun
        if has_stepped and self._is_save_step():
            self._save_latest()

    def _finish_epoch(self) -> None:
        self._rates = learning_rates(self.optimizer)
        batches_per_step = self.batches_per_step * self.settings.accumulate
        is_idle = self.counters.step == 0 and self._step_watch.is_idle and (
            self.updates.precision != "fp16")  # which leaves out steps
        if is_idle and self.train_data.num_drawn > batches_per_step:
            raise RunError("an epoch is over, and no optimizer has made a step: _train_step has to "
                           "call self.step()")
        self.counters.finish_epoch(self.start_epoch)
        self.schedulers.after_epoch()

    def _finish_what_has_no_batch_left(self) -> None:
        """Ends an epoch that has nothing left to train or to validate: its data ended with the last
        validation, which could not be known then."""
        if self.is_classic or not self.counters.batch or self.counters.unvalidated:
            return
        if self.len_epoch is None and not self.train_data.has_more(self.data_loader):
            self.train_data.end_pass()
            self._finish_epoch()
            if self.is_over or self.saver.is_due(self.counters.epoch):
                self._save_checkpoint(self.counters.epoch)
