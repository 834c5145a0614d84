"""The online network of BYOL (https://arxiv.org/abs/2006.07733)."""

from torch import Tensor, nn

from base import BaseModel


class Byol(BaseModel):
    """An encoder, whose output is what one wants; a projector and a predictor to train it with.

    Args:
        width: channels of the first layer; the embedding has 64 times as many numbers.
        num_projected: numbers that are predicted.
    """

    def __init__(self, width: int, num_projected: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *block(1, width), *block(width, 2 * width), *block(2 * width, 4 * width),
            nn.Flatten())  # (batch, 4 * width * 4 * 4)
        self.projector = nn.Sequential(*two_layers(4 * width * 4 * 4, num_projected),
                                       nn.BatchNorm1d(num_projected))
        self.predictor = two_layers(num_projected, num_projected)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, 28, 28) to the prediction (batch, num_projected) of another view's target."""
        return self.predictor(self.project(images))

    def project(self, images: Tensor) -> Tensor:
        """(batch, 1, 28, 28) to (batch, num_projected): of the target network, what to predict."""
        return self.projector(self.encoder(images))


def block(num_in: int, num_out: int) -> list[nn.Module]:
    """A convolution that halves height and width."""
    return [nn.Conv2d(num_in, num_out, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(num_out), nn.ReLU()]


def two_layers(num_in: int, num_out: int, num_hidden: int = 256) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_in, num_hidden, bias=False), nn.BatchNorm1d(num_hidden),
                         nn.ReLU(), nn.Linear(num_hidden, num_out))
