"""The predictions of a whole data set, as a report finds them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Classified:
    """The predictions of a classifier.

    Attributes:
        confusion: (classes, classes) counts; rows are targets, columns predictions.
        precision, recall, f1: (classes,) of each class; 0 where it is undefined.
        scores: what the model gives: "probabilities", "log-probabilities" or "logits".
        left_out: how many had no target among the classes, or NaN for a score.
        one_each: whether there is one prediction for each sample, not for each pixel, token, ...
        places: (n,) which prediction of the pass it was, from 0. It and what follows is None of a
            set that is too large to keep.
        target, prediction: (n,) classes.
        confidence: (n,) float32, the probability of the predicted class.
        probabilities: (n, classes) float32, where they were to be kept.
    """

    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    scores: str
    left_out: int
    one_each: bool
    places: np.ndarray | None = None
    target: np.ndarray | None = None
    prediction: np.ndarray | None = None
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None


@dataclass
class Measured:
    """The predictions of a regression.

    Attributes:
        places: (n,) which sample of the pass it was, from 0.
        target, prediction: (n, values) float32, or float64 where the former would round them.
        left_out: how many samples had a NaN among them.
    """

    places: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    left_out: int


def index_of(found: Classified | Measured, place: int, indices: Sequence[int] | None) -> int:
    """The data set's index of a kept sample, or its number where indices are not known."""
    number = int(found.places[place])  # type: ignore[index]
    return number if indices is None else indices[number]
