"""The switches for looking at a run before it is trained: --debug, --overfit, --dry-run."""

import json
import logging
from typing import Any

import torch

from base.evaluation import Copies, first_batches, named_loaders
from base.optimizers import learning_rates
from base.start_checks import without_trace
from logger.console import table
from utils.batches import shapes
from utils.devices.parallel import unwrap_model
from utils.errors import ConfigError

logger = logging.getLogger("train")


def limited(config: Any, data_loader: Any, valid_data_loader: Any) -> tuple[Any, Any]:
    """The loaders, or their first batches only: two of each with anomaly detection (--debug), or
    the same ones for training and validation (--overfit)."""
    count = config.trainer.overfit_batches
    if count:
        batches = Copies(first_batches(data_loader, count))
        named = isinstance(valid_data_loader, dict)
        return batches, dict.fromkeys(valid_data_loader, batches) if named else batches
    if config.is_debug:
        # fp16 overflows now and then, which is no anomaly
        torch.autograd.set_detect_anomaly(True, check_nan=config.trainer.precision != "fp16")
        return tuple(first_batches(loader, 2) for loader in (data_loader, valid_data_loader))
    return data_loader, valid_data_loader


def describe(trainer: Any) -> None:
    """Trains on one batch in memory, validates one, and shows what came of it (--dry-run).

    Raises:
        ConfigError: the monitored value is not among those that the epoch gives.
    """
    from base.layers import layer_table, state_bytes_of  # counts FLOPs by what few runs need

    logger.info("%s", json.dumps(trainer.config.config, indent=4, default=str))
    for label, loader in (("training", trainer.data_loader), *(
            (f"validation {prefix.rstrip('_')}".rstrip(), one)
            for prefix, one in named_loaders(trainer.valid_data_loader))):
        count = trainer.train_data.num_in_epoch(loader, None)
        logger.info("%s: %s batches per epoch", label, "an unknown number of" if (
            count is None) else count)
    if trainer.len_epoch:
        logger.info("trainer.len_epoch: %d batches per epoch", trainer.len_epoch)

    model = unwrap_model(trainer.model)
    outputs: list[str] = []
    hook = model.register_forward_hook(lambda *call: outputs.append(shapes(call[2])))
    trainer.data_loader = first_batches(trainer.data_loader, 1)
    trainer.valid_data_loader = first_batches(trainer.valid_data_loader, 1)
    trainer.len_epoch, trainer.by_steps = None, False
    trainer.counters.batch = trainer.counters.samples = 0
    logger.info("batch: %s", shapes(trainer.data_loader[0] if trainer.data_loader else None))
    with without_trace(trainer):
        log = trainer._loop(1)
    hook.remove()

    def one_batch() -> None:
        trainer.counters.batch = trainer.counters.samples = 0
        trainer._loop(1)

    with without_trace(trainer):
        layers = layer_table(trainer.model, one_batch,
                             state_bytes=state_bytes_of(trainer.optimizer))
    logger.info("%s", layers)
    logger.info("output: %s", outputs[0] if outputs else "the model was not called")
    log = {**log, **learning_rates(trainer.optimizer)}
    logger.info("the epoch's log, after one batch:\n%s", table(log))
    if trainer.mnt_metric is not None and trainer.mnt_metric not in log and (
            not trainer.callbacks.may_add):
        raise ConfigError(f"trainer.monitor watches {trainer.mnt_metric!r}, but the epoch's log "
                          f"has {', '.join(log)}")
