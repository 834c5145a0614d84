"""Losses."""

from torch.nn.functional import cross_entropy

__all__ = ["cross_entropy"]
