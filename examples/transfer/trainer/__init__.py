"""Training of a new head, then of the whole model."""

from typing import Any

from base import Callback
from trainer.trainer import Trainer as PlainTrainer
from utils.devices.parallel import unwrap_model


class Trainer(PlainTrainer):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.callbacks.add(Unfreeze(self.config["trainer"]["frozen_epochs"]))


class Unfreeze(Callback):
    """Trains the head alone at first. The optimizer has all parameters from the start: it leaves
    out those without gradients. There is no state to save, since all follows from the epoch.

    Args:
        frozen_epochs: until the backbone is trained as well.
    """

    def __init__(self, frozen_epochs: int) -> None:
        self.frozen_epochs = frozen_epochs

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        unwrap_model(trainer.model).freeze_backbone(epoch <= self.frozen_epochs)
