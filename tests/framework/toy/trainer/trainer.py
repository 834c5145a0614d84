"""One step, one epoch, one validation."""

from typing import Any

import torch

from base import BaseTrainer
from utils.metric_tracker import make_tracker


class Trainer(BaseTrainer):
    def __init__(self, model: torch.nn.Module, criterion: Any, metric_ftns: list[Any],
                 optimizer: Any, config: Any, device: torch.device, data_loader: Any,
                 valid_data_loader: Any = None, lr_scheduler: Any = None, **options: Any) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config, device=device,
                         data_loader=data_loader, valid_data_loader=valid_data_loader,
                         lr_scheduler=lr_scheduler, **options)
        self.train_metrics = make_tracker(metric_ftns, device)
        self.valid_metrics = make_tracker(metric_ftns, device)

    def _train_step(self, batch: Any, batch_idx: int) -> tuple[Any, Any, torch.Tensor]:
        data, target = batch
        self.zero_grad()
        output = self.model(data)
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        return output, target, loss

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        for batch_idx, batch in self.train_batches():
            output, target, loss = self._train_step(batch, batch_idx)
            self.train_metrics.update_batch(output, target, loss, self.num_samples(batch))
        return {**self.train_metrics.result(), **self.validate()}

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        with self.evaluation():
            for _, batch in self.valid_batches():
                data, target = batch
                output = self.model(data)
                loss = self.criterion(output, target)
                self.valid_metrics.update_batch(output, target, loss, self.num_samples(batch))
        return self.valid_metrics.result()
