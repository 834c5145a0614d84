"""One step, one epoch, one validation: edit this for another task."""

from typing import Any

import torch

from base import BaseTrainer, Callback
from trainer.callbacks import InputImages, ModelGraph, ParameterHistograms
from utils.batches import data_and_target


class Trainer(BaseTrainer):
    """Trains a model on (data, target) batches with one optimizer.

    What is called here on ``self`` is in ``base/loops.py``. Around these methods, and around your
    own in their place, happens by itself: batches come to the device, steps are counted, schedules
    follow, losses are watched, bar and log are written, and a run that is stopped anywhere goes on
    from there.

    Args:
        metric_ftns: functions of (output, target) that return a mean over the batch, and
            torchmetrics objects, which see the whole set.
        device: where the model is.
        data_loader, valid_data_loader: any iterables of batches; without the second, no validation.
        lr_scheduler: any of torch; None keeps the lr.
        len_epoch: batches per epoch; None is as the config says, or one pass over the data.
        callbacks: beside those that the config asks for.
    """

    def __init__(self, model: torch.nn.Module, criterion: Any, metric_ftns: list[Any],
                 optimizer: Any, config: Any, device: torch.device, data_loader: Any,
                 valid_data_loader: Any = None, lr_scheduler: Any = None,
                 len_epoch: int | None = None, *, callbacks: tuple[Callback, ...] = ()) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config, device=device,
                         data_loader=data_loader, valid_data_loader=valid_data_loader,
                         lr_scheduler=lr_scheduler, len_epoch=len_epoch, callbacks=callbacks)
        if self.settings.log_images:
            self.callbacks.add(InputImages())
        if self.settings.log_histograms:
            self.callbacks.add(ParameterHistograms())
        if self.settings.log_graph:
            self.callbacks.add(ModelGraph())

    @staticmethod
    def split_batch(batch: Any) -> tuple[Any, Any]:
        """What the model gets, and what the loss and the metrics compare its output with."""
        return data_and_target(batch)

    def _train_step(self, batch: Any, batch_idx: int) -> tuple[Any, Any, torch.Tensor]:
        """Forward, backward and one optimizer step; returns (output, target, loss).

        A value of your own is logged by ``self.train_metrics.update("name", value, n)``, a mean
        over ``n`` samples. It is shown, stored, and can be monitored.
        """
        data, target = self.split_batch(batch)
        self.zero_grad()
        output = self.model(data)
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        return output, target, loss

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains from where the epoch is, then validates; returns the log."""
        self.model.train()
        for batch_idx, batch in self.train_batches():
            output, target, loss = self._train_step(batch, batch_idx)
            self.train_metrics.update_batch(output, target, loss, self.num_samples(batch))
        return {**self.train_metrics.result(), **self.validate()}

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        """Evaluates the validation data (of test.py: the test data); returns the log."""
        with self.evaluation():
            for _, batch in self.valid_batches():
                data, target = self.split_batch(batch)
                output = self.model(data)
                loss = self.criterion(output, target)
                self.valid_metrics.update_batch(output, target, loss, self.num_samples(batch))
        return self.valid_metrics.result()
