"""A torchvision model with a head for classes of one's own."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from base import BaseModel


class FineTuned(BaseModel):
    """A ResNet-18 whose last layer is replaced by a new one.

    Args:
        weights: file of torchvision's weights for it, like ``resnet18-f37072fd.pth``; None begins
            with random ones.
    """

    def __init__(self, num_classes: int, weights: str | None = None) -> None:
        super().__init__()
        self.backbone = resnet18()
        if weights is not None:
            self.backbone.load_state_dict(torch.load(weights, "cpu", weights_only=True))
        self.head = nn.Linear(self.backbone.fc.in_features, num_classes)
        self.backbone.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) images to (batch, classes) logits."""
        return self.head(self.backbone(x))

    def freeze_backbone(self, is_frozen: bool) -> None:
        self.backbone.requires_grad_(not is_frozen)

    def train(self, mode: bool = True) -> Any:
        """As ever, but batch norms of a frozen backbone keep their means and variances."""
        super().train(mode)
        if not self.backbone.conv1.weight.requires_grad:
            self.backbone.eval()
        return self
