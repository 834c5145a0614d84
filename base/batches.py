"""The training batches of a run, pass after pass over the data, from any place on."""

import logging
import time
from collections.abc import Iterator
from typing import Any

from base.progress import Progress
from base.sampler import has_length
from utils.errors import RunError

logger = logging.getLogger(__name__)


class TrainBatches:
    """Draws the batches of an epoch; with ``len_epoch`` a pass goes on in the next epoch.

    Args:
        progress: says where to draw from; the caller counts each batch there when it is finished.

    Attributes:
        seconds_waited: for the loader, so far.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds_waited = 0.0
        self._iterator: Iterator[Any] | None = None

    def draw(self, loader: Any, len_epoch: int | None) -> Iterator[Any]:
        """Batches until the epoch has ``len_epoch`` finished ones; None: until the pass ends.

        Raises:
            RunError: the data has no batch.
        """
        progress = self.progress
        is_pass = len_epoch is None or (has_length(loader) and len(loader) == len_epoch)
        while len_epoch is None or progress.batch < len_epoch:
            if self._iterator is None:
                self._iterator = placed(loader, progress.data_epoch, progress.data_batch)
            start = time.perf_counter()
            batch = next(self._iterator, self)
            self.seconds_waited += time.perf_counter() - start
            if batch is not self:
                yield batch
                continue
            self._finish_pass()
            if is_pass:
                return
        if is_pass:
            self._finish_pass()

    def _finish_pass(self) -> None:
        if self.progress.data_batch == 0:
            raise RunError("the training data has no batch; is the batch size larger than the "
                           "data, with drop_last?")
        self._iterator = None
        self.progress.finish_pass()


def placed(loader: Any, epoch: int, skip_batches: int = 0) -> Iterator[Any]:
    """Iterates over a pass of the data (from 0) from a batch on.

    A loader without ``place`` is read up to there, which is exact only if its order is fixed.
    """
    if hasattr(loader, "place"):
        loader.place(epoch, skip_batches)
        return iter(loader)
    batches = iter(loader)
    if skip_batches:
        logger.info("reading %d batches to get where the run was stopped; loaders derived from "
                    "BaseDataLoader jump there", skip_batches)
    for _ in range(skip_batches):
        next(batches, None)
    return batches
