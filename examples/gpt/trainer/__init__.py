"""Training of a language model, with samples of text at each validation."""

from typing import Any

import torch
from torch import Tensor

from base import Callback
from trainer.trainer import Trainer as PlainTrainer
from utils.devices.parallel import unwrap_model

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


class TextSamples(Callback):
    """Shows at each validation what the model writes; the draws start from the same seed."""

    adds_to_log = False

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        if not trainer.settings.tensorboard:
            return
        prompt = torch.tensor(list(PROMPT), device=trainer.device)
        with trainer.evaluation():  # by all processes, which may share the weights
            tokens = unwrap_model(trainer.model).continued(
                prompt, NUM_BYTES, TEMPERATURE, torch.Generator().manual_seed(0))
        text = bytes(tokens.tolist()).decode(errors="replace")
        trainer.writer.add_text("sample", f"```\n{text}\n```")
