"""One step and one epoch of training and validation: edit this for another task."""

import functools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from base import BaseTrainer, Callback
from base.batches import placed
from base.sampler import has_length
from base.schedule import steps_each_batch, takes_value
from logger.logger import BAR_SHOWS
from trainer.callbacks import InputImages, ParameterHistograms, show_images
from utils.device import num_samples, to_device
from utils.errors import RunError
from utils.lean_optimizers import drop_gradients
from utils.metric_tracker import MetricTracker, make_tracker
from utils.rng import preserved


class Trainer(BaseTrainer):
    """Trains a model on (data, target) batches with one optimizer.

    Args:
        metric_ftns: functions of (output, target) that return a mean over the batch, and
            torchmetrics objects, which see the whole set.
        device: where the model is.
        data_loader, valid_data_loader: any iterables of batches; without the second, no validation.
        lr_scheduler: any of torch; None keeps the lr.
        len_epoch: batches per epoch; None is as the config says, or one pass over the data.
        callbacks: beside those that the config asks for.
    """

    extra_log_names: tuple[str, ...] = ()  # what your _train_epoch adds to the log

    def __init__(self, model: torch.nn.Module, criterion: Any, metric_ftns: list[Any],
                 optimizer: Any, config: Any, device: torch.device, data_loader: Any,
                 valid_data_loader: Any = None, lr_scheduler: Any = None,
                 len_epoch: int | None = None, *, callbacks: tuple[Callback, ...] = ()) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config, callbacks=callbacks)
        self.device = device
        self.data_loader = data_loader
        self.valid_data_loader = valid_data_loader
        self.do_validation = valid_data_loader is not None
        self.lr_scheduler = lr_scheduler
        self.len_epoch = len_epoch or self.settings.len_epoch
        if self.len_epoch is None and has_length(data_loader):
            self.len_epoch = len(data_loader)
        self.log_step = self.settings.log_steps
        self.train_metrics = make_tracker(metric_ftns, device)
        self.valid_metrics = make_tracker(metric_ftns, device)
        if self.settings.log_images:
            self.callbacks.add(InputImages())
        if self.settings.log_histograms:
            self.callbacks.add(ParameterHistograms())
        interval = (config.get("lr_scheduler") or {}).get("interval")
        self._steps_each_batch = steps_each_batch(lr_scheduler, interval)
        layout = {"memory_format": torch.channels_last} if self.settings.channels_last else {}
        self._to_device = functools.partial(to_device, device=device, **layout)
        if device.type == "cpu" and not layout:
            self._to_device = lambda batch: batch  # it is there
        self._check_steps = self.settings.check_loss_steps or (
            1 if device.type == "cpu" else self.log_step)

    @staticmethod
    def split_batch(batch: Any) -> tuple[Any, Any]:
        """What the model gets, and what the loss and the metrics compare its output with."""
        if isinstance(batch, dict):
            return batch["data"], batch["target"]
        data, target = batch
        return data, target

    def _train_step(self, batch: Any, batch_idx: int) -> tuple[Any, Any, torch.Tensor]:
        """Forward, backward and one optimizer step; returns (output, target, loss)."""
        data, target = self.split_batch(self._to_device(batch))
        drop_gradients(self.optimizer)
        output = self.model(data)
        loss = self.criterion(output, target)
        if batch_idx % self._check_steps == 0:
            self._check_loss(loss, batch_idx)
        loss.backward()
        self.optimizer.step()
        return output, target, loss

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains from where the epoch is, validates, steps the scheduler; returns the log."""
        self.model.train()
        if self.progress.batch == 0:
            self.train_metrics.reset()
        with self._bar(epoch) as bar:
            for batch_idx, batch in self.train_batches():
                output, target, loss = self._train_step(batch, batch_idx)
                self._update_metrics(self.train_metrics, output, target, loss)
                if self._steps_each_batch:
                    self.lr_scheduler.step()
                bar.update()
                if batch_idx % self.log_step == 0:
                    self._log_batch(bar, epoch, batch_idx, loss, num_samples(batch))
        if not self.train_metrics.is_finite("loss"):
            raise RunError(self._not_finite(f"epoch {epoch}"))
        log = {**self.train_metrics.result(), "lr": self._lr()}
        self._write_epoch(log, "train")
        if self.do_validation:
            valid_log = self._valid_epoch(epoch)
            self._write_epoch(valid_log, "valid")
            log |= {f"val_{name}": value for name, value in valid_log.items()}
        self._step_scheduler(log)
        return log

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluates on the validation data without touching the training's random streams."""
        self.model.eval()
        self.valid_metrics.reset()
        with torch.inference_mode(), preserved():
            for batch_idx, batch in enumerate(placed(self.valid_data_loader, epoch - 1)):
                data, target = self.split_batch(self._to_device(batch))
                output = self.model(data)
                self._update_metrics(
                    self.valid_metrics, output, target, self.criterion(output, target))
                if batch_idx == 0 and self.settings.log_images:
                    self.writer.set_step(self.progress.step, "valid")
                    show_images(self.writer, data)
        return self.valid_metrics.result()

    def _update_metrics(self, tracker: MetricTracker, output: Any, target: Any,
                        loss: torch.Tensor) -> None:
        """Adds a batch to the running metrics; does not wait for the device."""
        tracker.update_batch(output, target, loss, num_samples(target))

    def _step_scheduler(self, log: dict[str, Any]) -> None:
        """The scheduler's step at the end of an epoch, if it is due then."""
        if self.lr_scheduler is None or self._steps_each_batch:
            return
        if not takes_value(self.lr_scheduler):
            self.lr_scheduler.step()
            return
        name = self.mnt_metric or ("val_loss" if self.do_validation else "loss")
        self.lr_scheduler.step(log[name])

    def _save_latest(self) -> None:
        """Saves inside an epoch, unless a loss since the last look has spoiled the weights."""
        if not self.train_metrics.is_finite("loss"):
            raise RunError(self._not_finite(self.progress.place()))
        super()._save_latest()

    def _log_names(self) -> list[str]:
        names = [*self.train_metrics.keys, *self.train_metrics.whole_set]
        valid = [f"val_{name}" for name in names] if self.do_validation else []
        return [*names, "lr", *valid, *self.extra_log_names]

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _check_loss(self, loss: torch.Tensor, batch_idx: int) -> None:
        """Stops before the step that would spoil the weights; waits for the device."""
        is_finite = math.isfinite(loss.item())
        if is_finite and (self._check_steps == 1 or self.train_metrics.is_finite("loss")):
            return
        where = f"epoch {self.progress.epoch + 1}, batch {batch_idx}"
        if self._check_steps > 1:
            where += f" or one of the {self._check_steps - 1} before"
        raise RunError(self._not_finite(where))

    def _not_finite(self, where: str) -> str:
        indices = None
        if hasattr(self.data_loader, "batch_indices"):
            indices = self.data_loader.batch_indices(self.progress.data_epoch,
                                                     self.progress.data_batch)
        samples = "" if indices is None else f" The samples of the batch: {indices}."
        return (f"the loss is not finite ({where}, lr {self._lr():g}).{samples} Look at these "
                "samples, try a lower lr; the last checkpoint is from before")

    def _log_batch(self, bar: Any, epoch: int, batch_idx: int, loss: torch.Tensor,
                   batch_size: int) -> None:
        """Bar, log line and TensorBoard, every ``log_steps`` batches. Waits for the device."""
        value, lr = loss.item(), self._lr()
        now = time.monotonic()
        batches = batch_idx + 1 - self._rate_start[0]
        samples_per_second = batches * batch_size / max(now - self._rate_start[1], 1e-9)
        self._rate_start = batch_idx + 1, now
        bar.set_postfix_str(f"loss {value:.4f} lr {lr:.3g} {samples_per_second:.0f} samples/s",
                            refresh=False)
        self.logger.debug("epoch %d  batch %d%s  loss %.4f  lr %.3g  %.0f samples/s", epoch,
                          batch_idx, f"/{self.len_epoch}" if self.len_epoch else "", value, lr,
                          samples_per_second, extra=BAR_SHOWS)
        self.writer.set_step(self.progress.step + 1)
        self.writer.add_scalar("batch_loss", value)
        if self._steps_each_batch:  # else the epoch's value says it all
            self.writer.add_scalar("lr", lr)

    def _write_epoch(self, log: dict[str, Any], mode: str) -> None:
        self.writer.set_step(self.progress.step, mode)
        for name, value in log.items():
            self.writer.add_scalar(name, value)

    @contextmanager
    def _bar(self, epoch: int) -> Iterator[Any]:
        """A progress bar on a terminal, at verbosity 2."""
        from tqdm import tqdm

        self._rate_start = self.progress.batch, time.monotonic()
        with tqdm(total=self.len_epoch, initial=self.progress.batch, desc=f"epoch {epoch}",
                  unit="batch", leave=False, dynamic_ncols=True,
                  disable=None if self.settings.verbosity > 1 else True) as bar:
            yield bar
