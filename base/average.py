"""A moving average of a model's weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.devices.parallel import unwrap_model


def average_of(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """The exponential moving average of a model's weights, which begins with the first update; None
    without a decay. It is a copy of the model, which can only be made before that is sharded."""
    if decay is None:
        return None
    return AveragedModel(unwrap_model(model), multi_avg_fn=get_ema_multi_avg_fn(decay))
