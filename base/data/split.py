"""Which samples are kept for validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def split_indices(indices: np.ndarray, split: float, *, seed: int,
                  stratify: Sequence[Any] | None = None,
                  groups: Sequence[Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation indices: the same in every run.

    Args:
        indices: of the samples to split.
        split: ratio (float, 0.0 to 1.0) or number (int) of samples for validation.
        seed: of the choice.
        stratify: a class for each sample of the data set; the split then keeps their shares.
        groups: a group for each sample of the data set, like a patient: all samples of one come to
            the same side. Groups are drawn until they have as many samples as were asked for.

    Raises:
        ValueError: a split that leaves training or validation without samples, or is no number.
    """
    if isinstance(split, bool) or not isinstance(split, (int, float)) or split < 0:
        raise ValueError(f"validation_split must be a ratio or a number of samples, got {split!r}")
    num_valid = split if isinstance(split, int) else int(round(len(indices) * split, 6))
    if split and not 0 < num_valid < len(indices):
        raise ValueError(f"validation_split={split} of {len(indices)} samples gives {num_valid} "
                         "for validation; both parts need at least one sample")
    # the classic order of samples, so that old and new runs validate on the same ones
    shuffled = np.random.RandomState(seed).permutation(indices)
    if stratify is not None:
        shuffled = _spread_classes(shuffled, np.asarray(stratify))
    if groups is not None and split:
        shuffled, num_valid = _whole_groups(shuffled, np.asarray(groups), num_valid)
    return np.sort(shuffled[num_valid:]), shuffled[:num_valid]


def check_labels(num_samples: int, stratify: Sequence[Any] | None,
                 groups: Sequence[Any] | None) -> None:
    """Whether there is a class, or a group, for each sample of the data set.

    Raises:
        ValueError: there is not, or both were given.
    """
    for given, text in ((stratify, "stratify needs a class"), (groups, "groups needs one")):
        if given is not None and len(given) != num_samples:
            raise ValueError(f"{text} for each of the {num_samples} samples, got {len(given)}")
    if stratify is not None and groups is not None:
        raise ValueError("a split keeps groups together or classes' shares: give stratify or "
                         "groups, not both")


def _whole_groups(indices: np.ndarray, groups: np.ndarray,
                  num_valid: int) -> tuple[np.ndarray, int]:
    """Reorders so that groups stand together, in the order of their first samples; and how many
    samples the first groups have that are enough."""
    labels, first, group_of = np.unique(groups[indices], return_index=True, return_inverse=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(labels))
    own = rank[group_of]
    ends = np.cumsum(np.bincount(own))
    num_valid = int(ends[np.searchsorted(ends, num_valid)])
    if num_valid == len(indices):
        raise ValueError(f"the {len(labels)} groups cannot be split: those for validation would "
                         "have all samples; ask for fewer")
    return indices[np.argsort(own, kind="stable")], num_valid


def _spread_classes(indices: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Reorders so that every beginning has each class in about its share of the whole."""
    own = classes[indices]
    place = np.empty(len(own))
    for label in np.unique(own):
        members = np.flatnonzero(own == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return indices[np.argsort(place, kind="stable")]
