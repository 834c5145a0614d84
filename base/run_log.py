"""What is told of a run at its start and at its end."""

import copy
import json
import math
import shlex
import time
from typing import Any

from base.data.train_batches import num_batches
from base.evaluation import named_loaders
from base.schedulers import planned_steps
from logger.console import duration
from logger.curves import draw_curves
from logger.logger import RESULT
from utils.config.merging import leaves
from utils.devices.parallel import unwrap_model
from utils.devices.processes import by_main, is_main_process, num_processes
from utils.devices.sharding import class_name
from utils.runs.folder import BEST

CURVES = "curves.png"
CURVES_SECONDS = 30  # of shorter runs nobody waits for curves


def begin(trainer: Any) -> None:
    """Makes the run's folder, and lets everybody know."""
    config = trainer.config
    by_main(config.make_folder)
    tell_start(trainer)
    folder = config.folder
    trainer.trackers.start(copy.deepcopy(config.config), name=config.run.name,
                           run_id=folder.save_dir.name, folder=folder.log_dir)
    if trainer.writer.enabled:
        text = json.dumps(config.config, indent=4, default=str)
        trainer.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))
    trainer.callbacks.call("on_train_start", trainer)


def tell_start(trainer: Any) -> None:
    """Folder, data, model, device and length, a line each."""
    config, lines = trainer.config, {"run": trainer.config.folder.save_dir}
    if config.is_debug:
        del lines["run"]
    if not trainer.is_classic:
        lines["data"] = _size_of(trainer.data_loader)
        for prefix, loader in named_loaders(trainer.valid_data_loader):
            lines[f"valid {prefix.rstrip('_')}".rstrip()] = _size_of(loader)
    model = unwrap_model(trainer.model)
    counts = [one.numel() for one in model.parameters()]
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    lines["model"] = f"{class_name(model)}, {sum(counts):,} parameters" + (
        "" if trained == sum(counts) else f", {trained:,} of them trained")
    lines["device"] = f"{trainer.device}, {trainer.updates.precision}" + (
        f", {num_processes()} processes" if num_processes() > 1 else "")
    lines["length"] = _length(trainer)
    for name, text in lines.items():
        trainer.logger.info("%-6s  %s", name, text)


def _size_of(loader: Any) -> str:
    samples, size = getattr(loader, "n_samples", None), getattr(loader, "batch_size", None)
    batches, count = num_batches(loader), num_processes()
    times = "" if count == 1 else f"{count} x "
    texts = [] if samples is None else [f"{samples:,} samples"]
    texts += [] if batches is None else [
        f"{batches:,} batches" + (f" of {times}{size}" if size else "")]
    return " in ".join(texts) or "of unknown length"


def _length(trainer: Any) -> str:
    epochs, settings = trainer.epochs, trainer.settings
    steps = None if trainer.is_classic else planned_steps(
        settings, trainer.data_loader, trainer.batches_per_step, trainer.counters,
        trainer.len_epoch, trainer.updates.num_waiting)
    texts = [] if epochs is None else [f"{epochs} epoch{'' if epochs == 1 else 's'}"]
    texts += [] if steps is None else [f"{steps:,} steps"]
    stop = settings.early_stop
    return ", ".join(texts) + (
        f"; less if {trainer.mnt_metric} gets no better for {stop} "
        f"{'validations' if trainer.by_steps else 'epochs'}" if (
            trainer.mnt_metric and 0 < stop < (trainer.epochs or math.inf)) else "")


def tell_finished(trainer: Any, started: float) -> None:
    """That a run has come to its end by itself, its best value, and what to do with it.

    Args:
        started: ``time.monotonic()`` at its start.
    """
    monitor, log = trainer.best_monitor, trainer.logger
    if trainer.config.is_debug:
        log.log(RESULT, "the debug run is over; nothing of it is kept")
        return
    unit = "validations" if trainer.by_steps else "epochs"
    if monitor.should_stop:
        log.info("no improvement of %s for %d %s: stopping early", monitor.metric,
                 monitor.epochs_without_improvement, unit)
    when = f"at step {monitor.best_step}" if trainer.by_steps else f"in epoch {monitor.best_epoch}"
    best = "" if not monitor.best_epoch else f", best {monitor.metric} {monitor.best:.6g} {when}"
    is_by_steps = trainer.by_steps or trainer.epochs is None
    count, name = (trainer.counters.step, "step") if is_by_steps else (
        trainer.counters.epoch, "epoch")
    log.log(RESULT, "finished %d %s%s%s: %s", count, name, "" if count == 1 else "s", best,
            trainer.checkpoint_dir)
    seconds = time.monotonic() - started
    log.info("%-6s  %s", "took", duration(seconds))
    if seconds >= CURVES_SECONDS:
        draw(trainer)
    model = trainer.checkpoint_dir / BEST
    model = model if model.is_file() else trainer.checkpoint_dir
    log.info("%-6s  python test.py --resume %s", "test", shlex.quote(model.as_posix()))
    if trainer.writer.enabled:
        log.info("%-6s  tensorboard --logdir %s", "look",
                 shlex.quote(trainer.config.log_dir.as_posix()))


def draw(trainer: Any) -> None:
    """The history as ``curves.png`` beside it; what goes wrong is told."""
    rows, folder = trainer.history.rows(), trainer.config.log_dir
    if len(rows) < 2 or not is_main_process():
        return
    try:
        draw_curves({trainer.config.folder.save_dir.name: rows}, folder / CURVES)
    except Exception as error:  # the run has come to its end, whatever it is
        trainer.logger.warning("%s was not drawn: %s", CURVES, error)
    else:
        trainer.logger.info("%-6s  %s", "curves", folder / CURVES)


def write_hparams(trainer: Any) -> None:
    """For TensorBoard's table of runs: the settings, and the best value."""
    monitor = trainer.best_monitor
    if trainer.writer.enabled and trainer.is_over and monitor.has_best:
        settings = {".".join(path): value for path, value in leaves(trainer.config.config)
                    if isinstance(value, (bool, int, float, str))}
        trainer.writer.add_result(settings, {f"best/{monitor.metric}": monitor.best})
