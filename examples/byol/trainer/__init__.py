"""Learning without labels: one network predicts what its own moving average says of other views."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data_loader import data_loaders
from trainer.trainer import Trainer as PlainTrainer
from utils.batches import to_device

DECAY = 0.98  # of the target network, per step
NUM_NEIGHBOURS = 5


class Trainer(PlainTrainer):
    """Trains on two views of each image; validation asks what nearest neighbours can tell.

    Attributes:
        target: moving average of the model; saved with a checkpoint, as it has a ``state_dict``.
        labelled_loader: the images whose labels the probe knows; nothing is trained on labels.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.target = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        self.labelled_loader = self.config.init_obj("labelled_data_loader", data_loaders)

    def _train_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Each view's prediction is compared with the target of the other one."""
        (one, other), _ = self.split_batch(batch)
        with torch.no_grad():
            target = torch.cat([self.target.module.project(other),
                                self.target.module.project(one)])
        self.zero_grad()
        output = torch.cat([self.model(one), self.model(other)])
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        self.target.update_parameters(self.model)
        return output, target, loss

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        """Share of images whose nearest labelled ones, by their embeddings, tell their class."""
        with self.evaluation():
            known = [(self._embed(images), labels)
                     for images, labels in to_device(list(self.labelled_loader), self.device)]
            embeddings, classes = (torch.cat(parts) for parts in zip(*known, strict=True))
            for _, (images, labels) in self.valid_batches():
                similarity = self._embed(images) @ embeddings.T  # (batch, labelled images)
                nearest = classes[similarity.topk(NUM_NEIGHBOURS).indices]
                is_right = nearest.mode(dim=1).values == labels
                self.valid_metrics.update("knn_accuracy", is_right.float().mean(), len(labels))
        return self.valid_metrics.result()

    def _embed(self, images: Tensor) -> Tensor:
        """(batch, 1, 28, 28) to embeddings of length 1, (batch, 64 * width)."""
        return F.normalize(self.model.encoder(images))
