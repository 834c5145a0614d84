"""The example model. A name imported here (of torchvision, say) can be named in the config too."""

import torch.nn.functional as F
from torch import Tensor, nn

from base import BaseModel


class MnistModel(BaseModel):
    """LeNet: two convolutions, two fully connected layers, dropout."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 28, 28) images to (batch, classes) log-probabilities."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (batch, 10, 12, 12)
        x = F.relu(self.conv2_drop(F.max_pool2d(self.conv2(x), 2)))  # (batch, 20, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.dropout(x, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)
