"""Which samples of a data set were read, their images, and the names of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, SequentialSampler, Subset

from utils.batches import data_and_target, tensors_in
from utils.errors import RunError
from utils.rng import seeded

NUM_READ_AGAIN = 200  # samples whose targets are compared


def indices_of(loader: Any, count: int, targets: Any) -> list[int] | None:
    """The data set's indices of the samples of a loader's first pass; None where they are not
    known, or not ``count``.

    Args:
        targets: that were seen, in their order; None where they are not kept. Some are read again:
            a loader or a trainer that leaves out samples or puts them in another order shows so.
    """
    if hasattr(loader, "samples_at"):
        indices = loader.samples_at(0, 0, count)
    elif isinstance(getattr(loader, "sampler", None), SequentialSampler) and (
            type(loader.batch_sampler) in (BatchSampler, type(None))):
        indices = list(range(min(count, len(loader.sampler))))
    else:
        return None
    if indices is None or len(indices) != count or targets is None or len(targets) != count:
        return None
    places = sorted({round(place) for place in np.linspace(0, count - 1, NUM_READ_AGAIN)})
    try:
        with seeded(0):
            again = [data_and_target(loader.dataset[indices[place]])[1] for place in places]
        pairs = [(np.asarray(one, dtype=float).reshape(-1),
                  np.asarray(targets[place], dtype=float).reshape(-1))
                 for one, place in zip(again, places, strict=True)]
    except (NotImplementedError, RunError, TypeError, ValueError, LookupError):
        return None  # it has no samples one by one, or none with a target
    are_same = all(one.shape == other.shape and np.allclose(one, other, rtol=1e-5)
                   for one, other in pairs)
    return indices if are_same else None


def images_of(dataset: Any, indices: Sequence[int]) -> list[np.ndarray] | None:
    """The images of samples, read again; None if they are none, 1 or 3 channels first.

    Random augmentation draws anew.

    Returns:
        (height, width, 1 or 3) float32, each stretched to [0, 1].
    """
    if not hasattr(dataset, "__getitem__"):
        return None
    try:
        with seeded(0):
            images = [_image(dataset[index]) for index in indices]
    except NotImplementedError:  # it reads whole batches only
        return None
    found = [image for image in images if image is not None]
    return found if len(found) == len(images) else None


def class_names(loaders: Sequence[Any], num_classes: int) -> list[str]:
    """The ``classes`` of a loader or its data set, if they are as many; else their numbers."""
    for thing in (*loaders, *(getattr(loader, "dataset", None) for loader in loaders)):
        while isinstance(thing, Subset) and not hasattr(thing, "classes"):
            thing = thing.dataset
        names = getattr(thing, "classes", None)
        if isinstance(names, (list, tuple)) and len(names) == num_classes:
            return [_plain(str(name)) for name in names]
    return [str(number) for number in range(num_classes)]


def _image(sample: Any) -> np.ndarray | None:
    """The first image in a sample."""
    for values in tensors_in(sample):
        if values.ndim == 3 and values.shape[0] in (1, 3) and min(values.shape[1:]) > 1:
            cpu = values.detach().cpu().float().numpy() if hasattr(values, "detach") else values
            image = np.nan_to_num(np.moveaxis(np.asarray(cpu, dtype=np.float32), 0, -1))
            low, high = image.min(), image.max()
            return (image - low) / max(high - low, 1e-8)
    return None


def _plain(name: str) -> str:
    """A name without line breaks and other characters that cannot be shown."""
    return "".join(letter if letter.isprintable() else " " for letter in name).strip()
