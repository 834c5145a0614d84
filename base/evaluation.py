"""Around a validation: eval mode, no gradients, random streams left where they were."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from utils.rng import preserved


@contextlib.contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Puts the networks into eval mode, and each module back into the one it had."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        # no inference mode: what a model caches there could not be trained with
        with torch.no_grad(), preserved():
            for module, _ in modes:
                module.training = False
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training
