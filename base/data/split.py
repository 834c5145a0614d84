"""Which samples are kept for validation."""

from collections import Counter
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
        ValueError: a split that leaves training or validation without samples, or is no number;
            a sample without class, or group.
    """
    if isinstance(split, bool) or not isinstance(split, (int, float)) or split < 0:
        raise ValueError(f"validation_split must be a ratio or a number of samples, got {split!r}")
    num_valid = split if isinstance(split, int) else int(round(len(indices) * split, 6))
    if split and not 0 < num_valid < len(indices):
        raise ValueError(f"validation_split={split} of {len(indices)} samples gives {num_valid} "
                         "for validation; both parts need at least one sample")
    # the classic order of samples, so that old and new runs validate on the same ones
    shuffled = np.random.RandomState(seed).permutation(indices)
    if stratify is not None and split:
        shuffled = _spread_classes(shuffled, _labels_of("stratify", stratify, shuffled))
    if groups is not None and split:
        own = _labels_of("groups", groups, shuffled)
        shuffled, num_valid = _whole_groups(shuffled, own, num_valid)
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


def _labels_of(option: str, given: Sequence[Any], indices: np.ndarray) -> np.ndarray:
    """Those of the samples with these indices."""
    labels = values = np.asarray(given)
    if labels.dtype.kind == "U":  # NaN among names has become one
        values = np.asarray(given, dtype=object)
    if labels.ndim != 1:
        raise ValueError(f"{option}: expected a number or a name for each sample, got the shape "
                         f"{labels.shape}")
    labels = labels[indices]
    try:
        missing = np.array([one is None or one != one for one in values[indices].tolist()])
        if not missing.any():
            np.unique(labels)
    except TypeError as error:
        kinds = Counter(type(label).__name__ for label in labels.tolist())
        raise ValueError(f"{option}: expected numbers or names that can be sorted, got "
                         f"{', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
                         ) from error
    if missing.any():
        raise ValueError(f"{option}: {np.count_nonzero(missing)} samples have none (NaN or None), "
                         f"the first is {indices[missing].min()}; give them one of their own, or "
                         "leave them out by indices")
    return labels


def _whole_groups(indices: np.ndarray, own: np.ndarray,
                  num_valid: int) -> tuple[np.ndarray, int]:
    """Reorders so that groups stand together, in the order of their first samples; and how many
    samples the first groups have that are enough."""
    labels, first, group_of = np.unique(own, return_index=True, return_inverse=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(labels))
    place = rank[group_of]
    ends = np.cumsum(np.bincount(place))
    num_valid = int(ends[np.searchsorted(ends, num_valid)])
    if num_valid == len(indices):
        raise ValueError(f"the {len(labels)} groups cannot be split: those for validation would "
                         "have all samples; ask for fewer")
    return indices[np.argsort(place, kind="stable")], num_valid


def _spread_classes(indices: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Reorders so that every beginning has each class in about its share of the whole."""
    place = np.empty(len(own))
    for label in np.unique(own):
        members = np.flatnonzero(own == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return indices[np.argsort(place, kind="stable")]
