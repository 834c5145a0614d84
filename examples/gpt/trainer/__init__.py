"""Training of a language model: clipped gradients, and samples of text at each validation."""

from typing import Any

import torch
from torch import Tensor, nn

from base import Callback
from trainer.trainer import Trainer as PlainTrainer

MAX_NORM = 1.0  # of all gradients together
PROMPT = b"def "
NUM_BYTES = 500  # of a sample
TEMPERATURE = 0.8


class Trainer(PlainTrainer):
    """Trains a model on windows of bytes to predict each byte from those before."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.callbacks.add(TextSamples())

    @staticmethod
    def split_batch(batch: Any) -> tuple[Tensor, Tensor]:
        """Bytes (batch, context) int64, and the same one further on."""
        tokens = batch[0].long()  # here and not in the loader: bytes come to the device as bytes
        return tokens[:, :-1], tokens[:, 1:]

    def _train_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        data, target = self.split_batch(batch)
        self.zero_grad()
        output = self.model(data)
        loss = self.criterion(output, target)
        self.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.step()
        self.train_metrics.update("gradient_norm", norm, len(data))
        return output, target, loss


class TextSamples(Callback):
    """Shows at each validation what the model writes; the draws start from the same seed."""

    adds_to_log = False

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        if not trainer.writer.enabled:
            return
        prompt = torch.tensor(list(PROMPT), device=trainer.device)
        with trainer.evaluation():
            tokens = trainer.model.continued(prompt, NUM_BYTES, TEMPERATURE,
                                             torch.Generator().manual_seed(0))
        text = bytes(tokens.tolist()).decode(errors="replace")
        trainer.writer.add_text("sample", f"```\n{text}\n```")
