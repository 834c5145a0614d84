"""Training of the toy."""

from tests.framework.toy.trainer.trainer import Trainer

__all__ = ["Trainer"]
