"""A small U-Net."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base import BaseModel


class UNet(BaseModel):
    """Halves the image and doubles the channels at each level, and goes the same way back.

    Args:
        width: channels at full size.
        depth: levels below full size; sides of images are multiples of ``2 ** depth``.
    """

    def __init__(self, num_classes: int, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(convolutions, [3, *widths], widths))
        self.up = nn.ModuleList(convolutions(3 * half, half) for half in widths[-2::-1])
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) images to (batch, classes, height, width) logits."""
        levels = [self.down[0](x)]
        for block in self.down[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, levels.pop()], dim=1))
        return self.head(x)


def convolutions(num_in: int, num_out: int) -> nn.Sequential:
    """Two 3x3 convolutions that keep the size."""
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, 3, padding=1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU(),
        nn.Conv2d(num_out, num_out, 3, padding=1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU())
