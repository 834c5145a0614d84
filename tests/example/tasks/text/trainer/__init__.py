"""Training with a value of one's own in the log."""

from typing import Any

from trainer.trainer import Trainer as PlainTrainer


class TextTrainer(PlainTrainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        self.train_metrics.update("mean_length", float(batch[0].shape[1]), len(target))
        return output, target, loss


Trainer = TextTrainer
