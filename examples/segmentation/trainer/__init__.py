"""Training on images and masks, with pictures of what the model sees in them."""

from typing import Any

import torch

from base import Callback
from trainer.trainer import Trainer as PlainTrainer

# of the classes, background first
COLOURS = torch.tensor([[0, 0, 0], [230, 80, 60], [70, 190, 90], [60, 120, 230]]) / 255


class Trainer(PlainTrainer):
    """Batches are {"image": ..., "mask": ...}."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.callbacks.add(Predictions())

    @staticmethod
    def split_batch(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["image"], batch["mask"]


class Predictions(Callback):
    """Shows image, mask and prediction, one below the other, once a validation."""

    def on_valid_batch_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if batch_idx > 0 or not trainer.writer.enabled:
            return
        images, masks = batch["image"][:8], batch["mask"][:8]
        predicted = trainer.model(images).argmax(dim=1)  # (8, height, width)
        pictures = [images.cpu(), *(COLOURS[classes.cpu()].movedim(-1, 1)  # waits for the device
                                    for classes in (masks, predicted))]
        trainer.writer.add_images("prediction", torch.cat(pictures, dim=2))
