"""How the gradients of several processes become means over the samples of all."""

import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from utils.devices.processes import num_processes
from utils.devices.sharding import divided_in, placed_like
from utils.errors import ConfigError

WATCHED = 20  # backward passes at the start after which it is looked who scales gradients

logger = logging.getLogger(__name__)


class Reduction:
    """Of one process: there is nothing to do.

    Attributes:
        is_shared: whether there are several processes.
        is_of_all: whether gradients are means over the samples of all as soon as they are there, so
            that what waits for a step is of all.
        needs_counts: whether the processes have to tell each other their samples of each batch.
    """

    is_shared = is_of_all = needs_counts = False

    def off(self) -> contextlib.AbstractContextManager[Any]:
        """Context for an epoch."""
        return contextlib.nullcontext()

    def begin(self) -> None:
        """A batch comes."""

    def weighted(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss of this process's share of the batch, as it has to go backward."""
        return loss

    def after_backward(self) -> None:
        """A backward pass of ``weighted`` is over."""

    def before_step(self, parameters: list[nn.Parameter]) -> None:
        """The step of some parameters comes."""

    def left(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Those whose gradients are still those of one of several processes."""
        return []

    def num_samples(self, own: int) -> int:
        """Of how many samples of the batch the gradients are the mean.

        Args:
            own: those of this process.
        """
        return own

    def placed(self, gradient: torch.Tensor, device: torch.device) -> torch.Tensor:
        """One that was saved, as those of the run lie; one without content stays so."""
        return gradient if gradient.is_meta else gradient.to(device)


class BeforeStep(Reduction):
    """Before an optimizer's step, by whoever asks ``left``. Until then gradients are those of this
    process; who clips them there gets other numbers than one process would, which is warned of.

    Args:
        parameters: gives all that are trained.
        off: makes a context in which nobody else sends them.
    """

    is_shared = True

    def __init__(self, parameters: Callable[[], Iterable[nn.Parameter]],
                 off: Callable[[], contextlib.AbstractContextManager[Any]] = (
                     contextlib.nullcontext)) -> None:
        self._parameters = parameters
        self._off = off
        self._num_watched = 0  # backward passes
        self._norms: dict[nn.Parameter, float] = {}  # of gradients after one

    def off(self) -> contextlib.AbstractContextManager[Any]:
        return self._off()

    def after_backward(self) -> None:
        self._norms = {}
        if self._num_watched < WATCHED:
            self._num_watched += 1
            self._norms = {one: _norm(one) for one in self._parameters() if one.grad is not None}

    def before_step(self, parameters: list[nn.Parameter]) -> None:
        before = {one: norm for one in parameters if (norm := self._norms.pop(one, 0))}
        scales = {_norm(one) / norm for one, norm in before.items()}
        # all by one factor: not what another backward pass would do
        if len(before) > 1 and max(scales) < 1 - 1e-6 and max(scales) - min(scales) < 1e-4:
            self._num_watched = WATCHED
            logger.warning("gradients were scaled between self.backward and self.step, where they "
                           "are those of one process's samples: one process would do otherwise. "
                           "trainer.clip_grad_norm clips those of all")

    def left(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        return parameters


class Overlapped(Reduction):
    """While they are computed, by the work of DistributedDataParallel.

    Args:
        model: wrapped.
        share: gives this process's share of the samples of the batch.
    """

    is_shared = needs_counts = True

    def __init__(self, model: nn.parallel.DistributedDataParallel,
                 share: Callable[[], float]) -> None:
        self._share = share
        self._has_run = False
        # ids of the parameters that it knows of
        self._reduced = {id(one) for one in model.parameters() if one.requires_grad}
        # torch wants the function's annotations to be its own types
        model.register_comm_hook(None, lambda _, bucket: self._sum(bucket))
        model.register_forward_pre_hook(self._note)

    def begin(self) -> None:
        self._has_run = False

    def left(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        if not self._has_run:
            return parameters
        return [one for one in parameters if id(one) not in self._reduced]

    def _note(self, *_: Any) -> None:
        self._has_run |= torch.is_grad_enabled()

    def _sum(self, bucket: Any) -> Any:
        """Over all processes, each with its share."""
        from torch import distributed

        flat = bucket.buffer().mul_(self._share())
        future = distributed.all_reduce(flat, async_op=True).get_future()
        return future.then(lambda done: done.value()[0])


class Sharded(Reduction):
    """While they are computed, by FSDP2, which takes the mean over the processes: that is the mean
    over samples where each loss has the weight of its share.

    Args:
        model: whose weights are divided.
        counts: gives the samples of the batch in this process, and in all.
    """

    is_shared = is_of_all = needs_counts = True

    def __init__(self, model: nn.Module, counts: Callable[[], tuple[int, int]]) -> None:
        self._counts = counts
        self._like = divided_in(model)
        self._is_weighted = False

    def begin(self) -> None:
        self._is_weighted = False

    def weighted(self, loss: torch.Tensor) -> torch.Tensor:
        own, total = self._counts()
        self._is_weighted = True
        return loss * (own * num_processes() / total)

    def num_samples(self, own: int) -> int:
        if not self._is_weighted:
            raise ConfigError("trainer.strategy: fsdp2 works where _train_step calls "
                              "self.backward(loss); here the loss went backward by itself")
        return self._counts()[1]

    def placed(self, gradient: torch.Tensor, device: torch.device) -> torch.Tensor:
        assert self._like is not None
        return placed_like(gradient, self._like)


def _norm(parameter: nn.Parameter) -> float:
    return 0.0 if parameter.grad is None else float(parameter.grad.norm())  # waits for the device
