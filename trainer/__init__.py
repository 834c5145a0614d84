"""One step and one epoch of training: what projects edit."""

from trainer.trainer import Trainer

__all__ = ["Trainer"]
