"""A small convolutional network."""

from torch import Tensor, nn

from base import BaseModel


class SmallNet(BaseModel):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) images to (batch, classes) logits."""
        return self.layers(x)
