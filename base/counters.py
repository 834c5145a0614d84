"""How far a run has come."""

from typing import Any


def reached(count: int, limit: int | None) -> bool:
    """Whether a count has come to its limit; None is none."""
    return limit is not None and count >= limit


def is_multiple(count: int, every: int | None) -> bool:
    """Whether what happens every so many is due; None is never."""
    return every is not None and count % every == 0


class Counters:
    """Counts of *finished* things.

    Attributes:
        epoch: whole epochs, validation included.
        batch: training batches of the current epoch.
        step: optimizer steps of the whole run.
        passes: whole passes over the data; with ``len_epoch`` an epoch is not a pass.
        samples: samples of the current pass.
        unvalidated: training batches since the last validation.
        planned: optimizer steps that the run is to have, if that is known.
    """

    def __init__(self) -> None:
        self.epoch = self.batch = self.step = self.passes = self.samples = 0
        self.unvalidated = 0
        self.planned: int | None = None

    def finish_batch(self, num_samples: int) -> None:
        self.batch += 1
        self.unvalidated += 1
        self.samples += num_samples

    def finish_pass(self) -> None:
        self.passes += 1
        self.samples = 0

    def finish_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.batch = 0

    def place(self) -> str:
        """Where the run is, in words."""
        if self.batch:
            return f"in epoch {self.epoch + 1} after batch {self.batch}"
        return f"after epoch {self.epoch}"

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
