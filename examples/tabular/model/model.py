"""A network for rows of numbers."""

from torch import Tensor, nn

from base import BaseModel


class RowsModel(BaseModel):
    """Two layers; its output begins near the middle of the target.

    Args:
        target_mean, target_scale: of the target, roughly, in its own unit.
    """

    def __init__(self, num_features: int, width: int, dropout: float, target_mean: float,
                 target_scale: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_features, width), nn.ReLU(), nn.Dropout(dropout),
                                    nn.Linear(width, 1))
        self.target_mean = target_mean
        self.target_scale = target_scale

    def forward(self, x: Tensor) -> Tensor:
        """(batch, features) rows to (batch,) values in the target's unit."""
        return self.target_mean + self.target_scale * self.layers(x).squeeze(1)
