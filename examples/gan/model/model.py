"""A small DCGAN (https://arxiv.org/abs/1511.06434): one network makes digits, one judges them."""

from torch import Tensor, nn

from base import BaseModel
from data_loader.data_loaders import MEAN, STD


class Gan(BaseModel):
    """Both networks; the config gives an optimizer to each by the names of its parameters.

    Args:
        num_noise: numbers that an image is made of.
        width: channels of the largest layers; those of the next smaller ones are twice as many.
    """

    def __init__(self, num_noise: int, width: int) -> None:
        super().__init__()
        self.num_noise = num_noise
        self.generator = nn.Sequential(
            nn.Unflatten(1, (num_noise, 1, 1)),
            nn.ConvTranspose2d(num_noise, 2 * width, kernel_size=7, bias=False),
            nn.BatchNorm2d(2 * width), nn.ReLU(),  # (batch, 2 * width, 7, 7)
            nn.ConvTranspose2d(2 * width, width, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(),  # (batch, width, 14, 14)
            nn.ConvTranspose2d(width, 1, kernel_size=4, stride=2, padding=1),
            nn.Sigmoid())
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(2 * width * 7 * 7, 1), nn.Flatten(0))

    def forward(self, noise: Tensor) -> Tensor:
        """(batch, num_noise) to images (batch, 1, 28, 28), normalised like those of the loader."""
        return (self.generator(noise) - MEAN) / STD

    def score(self, images: Tensor) -> Tensor:
        """(batch,) logits of images being real."""
        return self.discriminator(images)
