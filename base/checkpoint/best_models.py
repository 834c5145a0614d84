"""The files of the best models, of a run that goes on."""

import logging
from pathlib import Path
from typing import Any

from base.checkpoint.saver import kept_name
from base.checkpoint.shards import link_shards
from utils.devices.processes import from_main
from utils.errors import CheckpointError
from utils.runs.checkpoint_file import link_checkpoint, read_checkpoint
from utils.runs.folder import BEST

logger = logging.getLogger(__name__)


def models_before(trainer: Any, source: Path) -> tuple[Path | None, dict[str, Path]]:
    """The files of the best model and of those that are kept, of a trainer that was restored; the
    main process looks for all.

    Args:
        source: the checkpoint that was taken.
    """
    monitor = trainer.best_monitor
    best, kept, state = from_main((best_model(trainer, source), kept_models(trainer, source),
                                   monitor.state_dict()))
    monitor.load_state_dict(state)
    return best, kept


def best_model(trainer: Any, source: Path) -> Path | None:
    """The file that holds the best model of a trainer that was restored.

    Resuming an older epoch, it may be another than the folder's newest best. If it is nowhere, the
    best value starts anew.

    Args:
        source: the checkpoint that was taken.
    """
    monitor = trainer.best_monitor
    if not monitor.has_best:
        return None
    epoch_file = source.with_name(trainer.saver.epoch_name(monitor.best_epoch))
    for file in (source.with_name(BEST), epoch_file):
        try:
            content = read_checkpoint(file, with_tensors=False)
        except CheckpointError:
            continue
        if content.get("monitor_best") == monitor.best and _is_of(content, monitor):
            return file
    logger.warning("the best model so far (%s %g) is not there any more: the best value starts "
                   "anew", monitor.metric, monitor.best)
    monitor.start_anew()
    return None


def kept_models(trainer: Any, source: Path) -> dict[str, Path]:
    """The files of the best models that a trainer, which was restored, is to keep; what has none
    beside ``source`` is forgotten."""
    found: dict[str, Path] = {}
    for label in trainer.best_monitor.kept:
        files = [source.with_name(kept_name(label))]
        if label.startswith("epoch"):
            files.append(source.with_name(trainer.saver.epoch_name(int(label[5:]))))
        existing = [file for file in files if file.is_file()]
        if existing:
            found[label] = existing[0]
        else:
            trainer.best_monitor.forget(label)
    return found


def _is_of(content: dict[str, Any], monitor: Any) -> bool:
    """Whether a checkpoint was saved when the best value came; one of the classic template has no
    steps."""
    step = content.get("parts", {}).get("counters", {}).get("step")
    if step is None or not monitor.best_step:
        return monitor.best_epoch in (0, content.get("epoch"))
    return step == monitor.best_step


def settle_folder(trainer: Any, *, is_best: bool) -> None:
    """After the first save of a run that goes on, which changed nothing in its folder before: its
    config and what it is made with now, its history, and the best model, unless that was just
    saved."""
    folder, best_file = trainer.config.folder, trainer._best_file
    kept, trainer._kept_files = trainer._kept_files, {}
    if folder.is_recorded and best_file is None and not kept:
        return
    trainer.saver.wait()
    if not folder.is_recorded:
        folder.record(trainer.config.config)
        trainer.history.write()
    for label, file in kept.items():
        own = trainer.checkpoint_dir / kept_name(label)
        if label in trainer.best_monitor.kept and not own.exists():
            link_shards(file, own)
            link_checkpoint(file, own)
    best = trainer.checkpoint_dir / BEST
    if best_file is not None and best_file != best and not is_best:
        link_shards(best_file, best)
        link_checkpoint(best_file, best)
    trainer._best_file = None
