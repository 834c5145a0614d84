"""Looking at a run without training it: shapes, steps, a few batches."""

import contextlib
import json
from itertools import islice
from typing import Any

import torch
from torch import nn


def describe(config: Any, model: nn.Module, data_loader: Any, valid_data_loader: Any) -> None:
    """Prints the config, the model, one batch's shapes and the steps per epoch (--dry-run)."""
    logger = config.get_logger("train", 1)
    logger.info("%s", json.dumps(config.config, indent=4, default=str))
    logger.info("%s", model)
    logger.info("parameters: %d", sum(parameter.numel() for parameter in model.parameters()))
    for batch in islice(data_loader, 1):
        logger.info("batch: %s", shapes(batch))
    for label, loader in (("training", data_loader), ("validation", valid_data_loader)):
        with contextlib.suppress(TypeError):  # a stream has no length
            logger.info("%s: %d batches per epoch", label, len(loader))
    if config.trainer.len_epoch:
        logger.info("trainer.len_epoch: %d batches per epoch", config.trainer.len_epoch)


def first_batches(config: Any, data_loader: Any, valid_data_loader: Any) -> tuple[Any, Any]:
    """The first batches only, in a fixed order: two of each with anomaly detection (--debug), or
    the same ones for training and validation (--overfit)."""
    batches = list(islice(data_loader, config.num_batches))
    if config.is_overfit:
        return batches, batches
    torch.autograd.set_detect_anomaly(True)
    if valid_data_loader is not None:
        valid_data_loader = list(islice(valid_data_loader, config.num_batches))
    return batches, valid_data_loader


def shapes(batch: Any) -> str:
    """A batch's nested structure with the type and shape of each tensor."""
    if isinstance(batch, torch.Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)}"
    if isinstance(batch, dict):
        return "{" + ", ".join(f"{key}: {shapes(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, (list, tuple)):
        return "(" + ", ".join(shapes(value) for value in batch) + ")"
    return type(batch).__name__
