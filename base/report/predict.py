"""What a model says of data without targets, as a table: test.py --predict."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data.dataloader import default_collate

from base.base_data_loader import BaseDataLoader
from base.data.sampler import EpochSampler, has_length
from base.evaluation import evaluating_on, first_batches
from base.report.files import make_folder, write_table
from base.report.predictions import are_probabilities, as_numbers, two_scores
from base.report.regression import value_text
from base.report.report import watched
from base.report.results import Classified, Measured
from base.report.samples import class_names
from base.start_checks import without_trace
from utils.batches import shapes, to_device
from utils.devices.precision import read_outside
from utils.errors import ConfigError, RunError

NUM_KNOWN = 2000  # samples with targets that tell what the model's output is

logger = logging.getLogger("test")
Row = tuple[str, ...]


def predict_inputs(trainer: Any, path: Path, table: Path) -> int:
    """Writes a CSV file with a line for each input at ``path``, in the order in which the loader's
    ``inputs_of`` gives them.

    Whether the output is scores of classes, and of which kind, or values, is seen on samples of the
    trainer's own data, which have targets. The model is called by ``predict_batch``, in batches
    like those of testing.

    Returns:
        How many inputs there are.

    Raises:
        ConfigError: there are no such inputs, or the loader cannot read them.
        RunError: they are damaged, or the output cannot be written as a table.
    """
    loader = trainer.data_loader
    inputs, names = _inputs(loader, path)
    found = _what_it_says(trainer, loader)
    say = _Classes(found.scores, class_names([loader], len(found.confusion))) if (
        isinstance(found, Classified)) else _Values(found.target.shape[1])
    batches = _batches_of(inputs, loader)
    make_folder(table.parent)
    with evaluating_on(trainer, batches):
        write_table(table, ("name", *say.columns), _rows(trainer, batches, names, say.rows))
    return len(names)


def _inputs(loader: Any, path: Path) -> tuple[Any, list[str]]:
    if not hasattr(loader, "inputs_of"):
        raise ConfigError(f"--predict: {type(loader).__name__} cannot read data without targets: "
                          "define its method inputs_of(path), see docs/watch.md")
    try:
        inputs, names = loader.inputs_of(path)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(f"--predict: {path}: {error}") from error
    count = len(inputs) if has_length(inputs) else None
    if not count or count != len(names):
        raise ConfigError(f"--predict: {type(loader).__name__}.inputs_of has to give a data set "
                          "with a length, and as many names; it gave "
                          f"{'no length' if count is None else count} and {len(names)} names")
    return inputs, list(names)


def _what_it_says(trainer: Any, loader: Any) -> Classified | Measured:
    """What the output is for samples whose targets are known."""
    with without_trace(trainer), watched(trainer) as seen:
        trainer.evaluate(_some_of(loader))
    found = seen.result()
    if found is None:
        raise RunError("--predict: expected a model that says one class or its values for each "
                       f"sample: {seen.why_not}; see report_of in docs/watch.md")
    if isinstance(found, Measured) and found.target.shape[1] == 1 and (
            len(values := set(found.target[:, 0].tolist())) == 1 and values <= {0, 1}):
        raise RunError(f"--predict: all targets of {len(found.target)} samples are "
                       f"{values.pop():g}: whether the model gives scores of two classes or values "
                       "is not to be seen")
    if isinstance(found, Classified) and not found.one_each:
        raise RunError("--predict: the model says more than one class for a sample, of which there "
                       "is no table")
    return found


def _some_of(loader: Any) -> Any:
    """A loader of samples that are spread evenly over those of another; else its first batches."""
    sampler = getattr(loader, "sampler", None)
    if isinstance(loader, BaseDataLoader) and isinstance(sampler, EpochSampler):
        places = np.unique(np.linspace(0, len(sampler) - 1, NUM_KNOWN).round().astype(np.int64))
        return BaseDataLoader(**loader.init_kwargs | {
            "shuffle": False, "indices": sampler.order(0)[places].numpy()})
    size = getattr(loader, "batch_size", None) or 1
    return first_batches(loader, -(-NUM_KNOWN // size))


def _batches_of(inputs: Any, loader: Any) -> BaseDataLoader:
    """The inputs in batches like those of a loader."""
    size = getattr(loader, "batch_size", None)
    collate = default_collate if size is None else loader.collate_fn
    return BaseDataLoader(inputs, size or 1, num_workers=getattr(loader, "num_workers", 0),
                          collate_fn=collate, seed=getattr(loader, "seed", None))


class _Classes:
    """Rows of a class, its probability and those of all, as in the table of ``--predictions``.

    Args:
        kind: of the scores: "probabilities", "log-probabilities" or "logits".
        names: of the classes.
    """

    def __init__(self, kind: str, names: list[str]) -> None:
        self.kind, self.names = kind, names
        self.columns = ("prediction", "confidence", *(f"probability_{name}" for name in names))

    def rows(self, output: Tensor) -> list[Row]:
        scores, is_ready = output.float(), self.kind == "probabilities"
        if scores.numel() == len(scores) and len(self.names) == 2:  # that of the second class
            scores = two_scores(scores.reshape(-1), is_probability=is_ready)
        if scores.shape != (len(output), len(self.names)):
            raise RunError(f"expected scores of {len(self.names)} classes for {len(output)} inputs,"
                           f" as for the data with targets, got {shapes(output)}")
        is_known = scores.isfinite().any(dim=1) & ~(scores.isnan() | scores.isposinf()).any(dim=1)
        if is_ready and is_known.any() and not are_probabilities(scores[is_known]):
            raise RunError("expected probabilities, which the scores are for the data with targets,"
                           " got other numbers for an input: the model has to give logits or "
                           "probabilities, not now one and then the other")
        if self.kind == "logits" and len(self.names) > 2 and is_known.any() and (
                are_probabilities(scores[is_known])):
            raise RunError("expected logits, as the scores are for the data with targets, got "
                           "probabilities: predict_batch has to give what _valid_epoch sees")
        prediction = scores.argmax(dim=1).tolist()
        probabilities = (scores.cpu() if is_ready else scores.cpu().softmax(dim=1)).tolist()
        return [(self.names[index], *(f"{value:.6g}" for value in (values[index], *values)))
                if known else ("", "nan", *["nan"] * len(self.names))
                for index, values, known in zip(prediction, probabilities, is_known.tolist(),
                                                strict=True)]


class _Values:
    """Rows of values.

    Args:
        count: how many there are for an input.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.columns = ("prediction",) if count == 1 else tuple(
            f"prediction_{index}" for index in range(count))

    def rows(self, output: Tensor) -> list[Row]:
        values = output.detach().cpu().reshape(len(output), -1)
        if values.shape[1] != self.count:
            raise RunError(f"expected {self.count} values for each of {len(output)} inputs, as for "
                           f"the data with targets, got {shapes(output)}")
        return [tuple(map(value_text, row)) for row in as_numbers(values)]


def _rows(trainer: Any, batches: Any, names: list[str],
          rows_of: Callable[[Tensor], list[Row]]) -> Iterator[Row]:
    """The lines of the table; whether some have no prediction is told."""
    done = unknown = 0
    for batch in read_outside(batches, trainer.updates.precision, trainer.device):
        batch = to_device(batch, trainer.device, channels_last=trainer.settings.channels_last)
        output = trainer.predict_batch(batch)
        count = trainer.num_samples(batch)
        if not isinstance(output, Tensor) or not output.is_floating_point() or (
                not output.ndim or len(output) != count):
            raise RunError("expected predict_batch of the trainer to give scores or values for "
                           f"{count} inputs, got {shapes(output)}")
        rows = rows_of(output)
        unknown += sum("" in row[:1] or {*row} == {"nan"} for row in rows)
        yield from ((name, *row) for name, row in zip(names[done:done + count], rows, strict=True))
        done += count
    if done != len(names):
        raise RunError(f"expected batches with {len(names)} inputs, got {done}")
    if unknown:
        logger.warning("of %d inputs, of %d, the model says NaN", unknown, done)
