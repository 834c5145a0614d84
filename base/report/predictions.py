"""What a model said of a whole data set: collected batch by batch, within a bound of memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from base.report.results import Classified, Measured
from utils.batches import shapes

MAX_ENTRIES = 20_000_000  # numbers that are kept: 80 MB, in float64 twice as much
MAX_CLASSES = 2000  # their table of confusions has 4 million counts
SUM_TOLERANCE = 0.01  # of probabilities in half precision


class Predictions:
    """Collects outputs and targets, and says what they are: of a classifier or of a regression.

    By shape and type: integer targets (n, ...) with an output (n, classes, ...) are classes, and so
    are targets of 0 and 1 with one score for each sample, (n,) or (n, 1), be they floats. Float
    targets of the output's shape, and other integers with one score each, are a regression.

    Scores of classes count as probabilities if, in the whole set, all lie in [0, 1] and each row
    sums to 1; else as logits, of which log-probabilities are a kind: softmax leaves them as they
    are. One score for each sample is a probability if all lie in [0, 1], else a logit.

    Args:
        max_entries: numbers to keep. Of a classifier's larger set only the confusions are counted.
        keep_scores: keep the probabilities of all classes, if there is room for them as well.

    Attributes:
        num_samples: seen so far.
        why_not: why there is nothing to report, or None.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, *, keep_scores: bool = False) -> None:
        self.max_entries = max_entries
        self.keep_scores = keep_scores
        self.num_samples = 0
        self.why_not: str | None = None
        self._classes: _Classes | None = None
        self._values: list[tuple[Tensor, Tensor]] = []
        self._num_values = 0
        self._has_integers = False

    def add(self, output: Any, target: Any) -> None:
        """Takes a batch. Waits for the device."""
        if self.why_not is not None:
            return
        kind = _kind(output, target)
        is_other = kind == "classes" if self._values else (
            kind == "values" and self._classes is not None)
        if kind is None or is_other:
            self.give_up("expected classes with their scores, or values of the output's shape, "
                         f"got output {shapes(output)} and target {shapes(target)}")
            return
        if not len(target):
            return
        if kind == "classes":
            self._add_classes(output, target)
        else:
            self._add_values(output, target)
        self.num_samples += len(target)

    def result(self) -> Classified | Measured | None:
        """What came of it; None, and ``why_not``, if there is nothing to report."""
        if self.why_not is None and not self._values and self._classes is None:
            self.give_up("_valid_epoch gave no output to valid_metrics.update_batch")
        if self.why_not is not None:
            return None
        return self._of_values() if self._classes is None else self._of_classes(self._classes)

    def give_up(self, reason: str) -> None:
        """Forgets what was collected, and takes no more."""
        self.why_not, self._values, self._classes = reason, [], None

    def _add_classes(self, output: Tensor, target: Tensor) -> None:
        num_classes = output.shape[1]
        if num_classes > MAX_CLASSES:
            self.give_up(f"there are more than {MAX_CLASSES} classes")
            return
        if self._classes is None:
            self._classes = _Classes(num_classes, self.max_entries, keep_scores=self.keep_scores)
        if num_classes != self._classes.num_classes:
            self.give_up(f"the batches have {self._classes.num_classes} and {num_classes} classes")
            return
        self._classes.add(output, target)

    def _add_values(self, output: Tensor, target: Tensor) -> None:
        self._num_values += output.numel() + target.numel()
        if self._num_values > self.max_entries:
            self.give_up(f"outputs and targets are more than {self.max_entries:,} numbers")
            return
        self._has_integers = not target.is_floating_point()
        self._values.append(tuple(  # type: ignore[arg-type]
            torch.from_numpy(as_numbers(values)).reshape(len(target), -1)
            for values in (output, target)))

    def _of_classes(self, classes: "_Classes") -> Classified | None:
        if classes.num_seen == classes.left_out:
            self.give_up("all targets are outside the classes, or all scores NaN")
            return None
        return classes.result()

    def _of_values(self) -> Classified | Measured | None:
        if len({output.shape[1] for output, _ in self._values}) > 1:
            self.give_up("the batches have different numbers of values for a sample")
            return None
        output, target = (torch.cat(parts) for parts in zip(*self._values, strict=True))
        is_either = bool(((target == 0) | (target == 1)).all())
        if is_either and output.shape[1] > 1:
            self.give_up("each sample has several labels of 0 or 1")
            return None
        if is_either and (self._has_integers or len(target.unique()) == 2):
            classes = _Classes(2, self.max_entries, keep_scores=self.keep_scores)
            classes.may_be["log-probabilities"] = False  # of one score only
            scores = output[:, 0].float()
            known = scores[~scores.isnan()]
            is_probability = bool(((known >= 0) & (known <= 1)).all())
            classes.add(two_scores(scores, is_probability=is_probability), target[:, 0].long())
            return self._of_classes(classes)
        known = ~(output.isnan() | target.isnan()).any(dim=1)
        if not known.any():
            self.give_up("all predictions are NaN")
            return None
        return Measured(known.nonzero()[:, 0].numpy(), target[known].numpy(),
                        output[known].numpy(), int((~known).sum()))


class _Classes:
    """The counts of classes, and what is kept of each prediction as long as there is room.

    A prediction's confidence is kept both as of probabilities and as of logits: which of them the
    scores are, the whole set tells.
    """

    def __init__(self, num_classes: int, max_entries: int, *, keep_scores: bool) -> None:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import (
            MulticlassConfusionMatrix,
            MulticlassF1Score,
            MulticlassPrecision,
            MulticlassRecall,
        )

        of_each: Any = {"num_classes": num_classes, "average": None, "validate_args": False}
        self.num_classes = num_classes
        self.counts = MetricCollection({
            "confusion": MulticlassConfusionMatrix(num_classes, validate_args=False),
            "precision": MulticlassPrecision(**of_each), "recall": MulticlassRecall(**of_each),
            "f1": MulticlassF1Score(**of_each)})
        self.max_entries = max_entries
        self.num_entries = self.num_scores = self.num_seen = self.left_out = 0
        self.may_be = {"probabilities": True, "log-probabilities": True}
        self.one_each = True
        self.kept: list[tuple[Tensor, ...]] | None = []
        self.scores: list[Tensor] | None = [] if keep_scores else None

    def add(self, output: Tensor, target: Tensor) -> None:
        """(n, classes, ...) scores and (n, ...) classes."""
        self.one_each &= output.ndim == 2
        scores = output.detach().movedim(1, -1).reshape(-1, self.num_classes).float()
        target = target.detach().reshape(-1).long()
        known = (target >= 0) & (target < self.num_classes) & ~(
            scores.isnan() | scores.isposinf()).any(dim=1)
        places = known.nonzero()[:, 0] + self.num_seen
        self.num_seen += len(target)
        self.left_out += len(target) - len(places)
        if not len(places):
            return
        scores, target = scores[known], target[known]
        highest, prediction = scores.max(dim=1)
        log_sum = scores.logsumexp(dim=1)
        self._narrow(scores, log_sum)
        self.counts.update(prediction.cpu(), target.cpu())  # waits for the device
        of_logits = (highest - log_sum).exp().nan_to_num(0.0)  # all -inf
        self._keep(places, target, prediction, highest, of_logits)
        self._keep_scores(scores)

    def _narrow(self, scores: Tensor, log_sum: Tensor) -> None:
        """Rules out what the scores cannot be."""
        self.may_be["probabilities"] &= are_probabilities(scores)
        self.may_be["log-probabilities"] &= bool(log_sum.abs().max() <= SUM_TOLERANCE)

    def _keep(self, *values: Tensor) -> None:
        self.num_entries += sum(value.numel() for value in values)
        if self.num_entries > self.max_entries:
            self.kept = None
        if self.kept is not None:
            self.kept.append(tuple(value.cpu() for value in values))

    def _keep_scores(self, scores: Tensor) -> None:
        """As long as there is room beside the rest."""
        self.num_scores += scores.numel()
        if self.num_entries + self.num_scores > self.max_entries:
            self.scores = None
        if self.scores is not None:
            self.scores.append(scores.cpu())

    def result(self) -> Classified:
        values = {name: value.numpy() for name, value in self.counts.compute().items()}
        scores = next((name for name, is_it in self.may_be.items() if is_it), "logits")
        result = Classified(**values, scores=scores, left_out=self.left_out,
                            one_each=self.one_each)
        if self.kept is None:
            return result
        columns = [torch.cat(parts) for parts in zip(*self.kept, strict=True)]
        places, target, prediction, as_probability, as_logit = columns
        is_ready = scores == "probabilities"
        result.places, result.target = places.numpy(), target.numpy()
        result.prediction = prediction.numpy()
        result.confidence = (as_probability if is_ready else as_logit).clamp(0, 1).numpy()
        if self.scores is not None:
            of_all = torch.cat(self.scores)
            result.probabilities = (of_all if is_ready else of_all.softmax(dim=1)).numpy()
        return result


def _kind(output: Any, target: Any) -> str | None:
    """Whether a batch has "classes" or "values"; None: neither."""
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)) or (
            not output.is_floating_point() or target.is_complex()
            or not output.ndim or not target.ndim or len(output) != len(target)):
        return None
    is_integer = not target.is_floating_point()
    if is_integer and output.ndim == target.ndim + 1 and output.shape[1] > 1 and (
            output.shape[2:] == target.shape[1:]) and target.dtype != torch.bool:
        return "classes"
    if _sizes(output) != _sizes(target):
        return None
    return "values" if not is_integer or not _sizes(output) else None


def _sizes(values: Tensor) -> list[int]:
    """The shape of one sample's values, without dimensions of 1."""
    return [size for size in values.shape[1:] if size != 1]


def are_probabilities(scores: Tensor) -> bool:
    """Whether (n, classes) scores are so in each row."""
    sums = (scores.sum(dim=1) - 1).abs().max()
    lowest, highest = scores.min(), scores.max()
    return bool((lowest >= 0) & (highest <= 1 + SUM_TOLERANCE) & (sums <= SUM_TOLERANCE))


def two_scores(scores: Tensor, *, is_probability: bool) -> Tensor:
    """(n,) scores of class 1 as (n, 2) probabilities, or as logits: 0 for class 0."""
    return torch.stack([1 - scores if is_probability else torch.zeros_like(scores), scores], dim=1)


def as_numbers(values: Tensor) -> np.ndarray:
    """As float32 where that holds them, else float64: of that type, or large integers."""
    is_exact = torch.promote_types(values.dtype, torch.float32) == torch.float32 and (
        values.is_floating_point() or values.dtype.itemsize <= 2)
    cpu = values.detach().cpu()  # waits for the device
    return (cpu.float() if is_exact else cpu.double()).numpy()
