"""What test.py reports beyond loss and metrics: watches an evaluation, writes a folder."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from base.report import classification, regression
from base.report.events import write_events
from base.report.files import make_folder, remove
from base.report.predictions import Predictions
from base.report.results import Classified, Measured
from base.report.samples import class_names, indices_of
from logger.visualization import TensorboardWriter
from utils.config.json_file import replace_json
from utils.devices.processes import num_processes
from utils.runs.folder import read_object

FILES = ("report.json", "confusion.png", "mistakes.png", "mistakes.csv", "calibration.png",
         "scatter.png", "largest_errors.csv")

logger = logging.getLogger("test")


@contextlib.contextmanager
def watched(trainer: Any, *, keep_scores: bool = False) -> Iterator[Predictions]:
    """Inside, what ``valid_metrics.update_batch`` gets is collected for a report.

    A trainer may say what the report should see of it, by a static method
    ``report_of(output, target)`` that returns (output, target), or None for no report. For example,
    of a model that returns a dict::

        @staticmethod
        def report_of(output, target):
            return output["scores"], target["label"]

    Args:
        keep_scores: those of all classes, for a table of predictions.
    """
    seen = Predictions(keep_scores=keep_scores)
    choose = getattr(trainer, "report_of", None)
    observers = getattr(trainer.valid_metrics, "observers", None)

    def observe(output: Any, target: Any) -> None:
        chosen = (output, target) if choose is None else choose(output, target)
        if chosen is None:
            seen.give_up("the trainer's report_of wants none")
        else:
            seen.add(*chosen)

    if num_processes() > 1:
        seen.give_up("it is made by one process alone, and these are several")
    elif observers is None:
        seen.give_up("the trainer's valid_metrics is no MetricTracker of utils/metric_tracker.py")
    if observers is None or seen.why_not is not None:
        yield seen
        return
    observers.append(observe)
    try:
        yield seen
    finally:
        observers.remove(observe)


def write_report(seen: Predictions, loader: Any, *, folder: Path, about: dict[str, Any],
                 classes_of: Sequence[Any] = (), predictions: Path | None = None,
                 writer: TensorboardWriter | None = None) -> None:
    """Tells and writes what was seen, or says in one line why there is nothing.

    Args:
        loader: of the data that was evaluated.
        folder: for the files; an earlier report in it is replaced, or removed if it was of another
            model.
        about: what stands at the beginning of ``report.json``; of it, ``samples`` is how many there
            are, 0 where a loop of one's own does not count them.
        classes_of: loaders that, or whose data sets, may name the ``classes``.
        predictions: for a table of all predictions.
        writer: for TensorBoard; of a classifier it gets confusions and curves.

    Raises:
        RunError: a file cannot be written.
    """
    found = seen.result()
    if found is not None or not _is_of_same(folder, about):
        for name in FILES if folder.is_dir() else ():
            remove(folder / name)
    if found is None:
        logger.info("no report beyond these values: %s", seen.why_not)
        if predictions is not None:
            logger.warning("%s is not written: there is no report", predictions)
        return
    is_whole = seen.num_samples == (about["samples"] or getattr(loader, "n_samples", None))
    indices = indices_of(loader, seen.num_samples, found.target) if is_whole else None
    if indices is None:
        logger.info("the data set's indices of the samples are not known: the report counts them "
                    "as they come, from 0")
    make_folder(folder)
    problem = None
    if isinstance(found, Classified):
        names = class_names(classes_of, len(found.confusion))
        _report_classes(found, folder, about, names=names, indices=indices,
                        dataset=getattr(loader, "dataset", None))
        if writer is not None:
            write_events(found, writer, folder.name, names)
        if predictions is not None:
            problem = classification.write_predictions(found, predictions, names=names,
                                                       indices=indices)
    else:
        _report_values(found, folder, about, indices)
        if predictions is not None:
            regression.write_predictions(found, predictions, indices=indices)
    written = [name for name in FILES if (folder / name).exists()]
    logger.info("report: %s\n  %s", folder, "\n  ".join(
        [", ".join(written[start:start + 4]) for start in range(0, len(written), 4)]))
    if problem:
        logger.warning("%s is not written: %s", predictions, problem)
    elif predictions is not None:
        logger.info("predictions: %s", predictions)


def _is_of_same(folder: Path, about: dict[str, Any]) -> bool:
    """Whether the report that is there is of this model and data."""
    before = read_object(folder / "report.json") or {}
    return all(key in before and before[key] == about.get(key)
               for key in ("epoch", "step", "set", "samples"))


def _report_classes(found: Classified, folder: Path, about: dict[str, Any], *, names: list[str],
                    indices: list[int] | None, dataset: Any) -> None:
    values = classification.summary(found, names)
    logger.info("%s", classification.console(values))
    if found.confidence is None:
        logger.info("only confusions are counted: there are too many predictions to keep")
    classification.write_files(found, values, folder, names=names, indices=indices,
                               dataset=dataset)
    replace_json(about | values, folder / "report.json")


def _report_values(found: Measured, folder: Path, about: dict[str, Any],
                   indices: list[int] | None) -> None:
    values = regression.summary(found)
    logger.info("%s", regression.console(values))
    regression.write_files(found, folder, indices=indices)
    replace_json(about | values, folder / "report.json")
