"""What is between a loss and an optimizer's step: precision, accumulation, clipping."""

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from utils.devices.precision import autocast, make_scaler, outside_autocast
from utils.devices.reduction import Reduction
from utils.devices.sharding import whole
from utils.devices.shared_weights import sum_gradients
from utils.errors import ConfigError

logger = logging.getLogger(__name__)
WANTED = ("trainer.accumulate, clip_grad_norm and precision fp16 work where _train_step calls "
          "self.zero_grad(), self.backward(loss) and self.step()")


class Group:
    """Gradients of one or several batches that wait for the step of their optimizer.

    Attributes:
        batches, samples: that they are from.
        means: over those samples, of each parameter; None where it has no gradient.
    """

    def __init__(self) -> None:
        self.batches = self.samples = 0
        self.means: list[torch.Tensor | None] = []

    def take(self, parameters: list[nn.Parameter], num_samples: int) -> None:
        """Takes the gradients of a batch's mean loss away from the parameters."""
        self.batches += 1
        self.samples += num_samples
        share = num_samples / self.samples if self.batches > 1 else 1.0
        means = self.means or [None] * len(parameters)
        self.means = [_mixed(mean, parameter.grad, share)
                      for mean, parameter in zip(means, parameters, strict=True)]
        for parameter in parameters:
            parameter.grad = None

    def give(self, parameters: list[nn.Parameter]) -> None:
        """Gives them to the parameters."""
        for parameter, mean in zip(parameters, self.means, strict=True):
            parameter.grad = mean

    def fits(self, parameters: list[nn.Parameter]) -> bool:
        """Whether it was made of these parameters, as far as one can see."""
        return len(parameters) == len(self.means) and all(
            mean is None or mean.shape == parameter.shape
            for parameter, mean in zip(parameters, self.means, strict=True))


def _mixed(mean: torch.Tensor | None, new: torch.Tensor | None,
           share: float) -> torch.Tensor | None:
    """The mean with a new value in it that has that share."""
    if mean is None:
        return new if new is None or share == 1 else new.mul_(share)
    mean.mul_(1 - share)
    return mean if new is None else mean.add_(new, alpha=share)


class Updates:
    """Makes one update of an optimizer out of the gradients of one or several batches.

    A gradient is the mean over the *samples* of all batches of an update, also of the last, shorter
    group of an epoch. Each optimizer has a group of its own, of the batches with which it was asked
    to step. With the settings at their defaults nothing is done here.

    Args:
        settings: of the trainer.
        device: that the networks are on.
        reduction: of gradients over several processes; by default there is one.

    Attributes:
        samples: of the last update, in this process or, where gradients are of all, in all.
    """

    def __init__(self, settings: Any, device: torch.device,
                 reduction: Reduction | None = None) -> None:
        self.accumulate = settings.accumulate
        self.max_norm = settings.clip_grad_norm
        self.precision = settings.precision
        self.device = device
        self.scaler = make_scaler(self.precision, device)
        self.reduction = reduction or Reduction()
        self.is_plain = not self.reduction.is_shared and (
            self.accumulate == 1 and not self.max_norm and self.scaler is None)
        self.groups: dict[str, Group] = {}
        self.samples = self.skipped = 0  # updates that fp16 left out, since the last log
        self._size = 1  # of a batch that nobody announced, in a loop over the loader itself
        self._has_scaled = False
        self._unscaled: set[str] = set()
        self._made: set[str] = set()

    @contextlib.contextmanager
    def around_epoch(self) -> Iterator[None]:
        """Context of an epoch: its precision, and how gradients come together."""
        with autocast(self.precision, self.device), self.reduction.off():
            yield

    def begin(self, num_samples: int) -> None:
        """A batch comes."""
        self._size = num_samples
        self.reduction.begin()

    def backward(self, loss: torch.Tensor) -> None:
        """Computes the gradients of a batch's mean loss, added to those that are there."""
        loss = self.reduction.weighted(loss)
        if self.precision == "fp32":
            loss.backward()
        else:
            self._has_scaled = True
            with outside_autocast(self.precision, self.device):
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.reduction.after_backward()

    def step(self, name: str, optimizer: Any) -> torch.Tensor | None:
        """The step of an optimizer, if one is due; the norm of its gradients, if that is limited.

        Returns:
            A 0-d tensor on the device, from before they were clipped.

        Raises:
            ConfigError: fp16 cannot do what is asked.
        """
        if self.is_plain:
            optimizer.step()
            return None
        parameters = parameters_of(optimizer)
        self.reduction.before_step(parameters)
        if self.scaler is not None:
            self._unscale(name, optimizer, parameters)
        if name in self.groups and not self.groups[name].fits(parameters):
            logger.warning("the optimizer %s trains other parameters now: gradients that waited "
                           "for its step are dropped", name)
            del self.groups[name]
        group = self.groups.setdefault(name, Group())
        group.take(parameters, self.reduction.num_samples(self._size))
        return self.finish(name, optimizer) if group.batches >= self.accumulate else None

    def finish(self, name: str, optimizer: Any) -> torch.Tensor | None:
        """The step with what waits for it, be it fewer batches than ``accumulate``; as ``step``."""
        group, parameters = self.groups.pop(name, None), parameters_of(optimizer)
        if group is None or not group.fits(parameters):
            return None
        group.give(parameters)
        self.samples = group.samples
        sum_gradients(self.reduction.left(parameters), group.samples)
        norm = None
        if self.max_norm:
            norm = whole(nn.utils.clip_grad_norm_(parameters, self.max_norm))
        if self.scaler is not None:
            largest = norm if norm is not None else nn.utils.get_total_norm(
                [one.grad for one in parameters if one.grad is not None], math.inf)
            if not largest.isfinite():
                self.skipped += 1
                return None
        optimizer.step()
        self._made.add(name)
        return norm

    def _unscale(self, name: str, optimizer: Any, parameters: list[nn.Parameter]) -> None:
        if name in self._unscaled:
            raise ConfigError("trainer.precision: fp16 makes one step of an optimizer for each "
                              "batch, and this _train_step makes several; take bf16")
        if not self._has_scaled:
            raise ConfigError(f"{WANTED}; here the loss went backward by itself")
        if any(parameter.grad is not None for parameter in parameters):
            self.scaler.unscale_(optimizer)  # type: ignore[union-attr]
            self._unscaled.add(name)

    def end(self, stepped: set[str]) -> set[str]:
        """The batch is done.

        Args:
            stepped: names of the optimizers that made their step with it.

        Returns:
            The same, without those of which only we know when they step.

        Raises:
            ConfigError: one was stepped without ``step`` of the trainer.
        """
        if self.is_plain:
            return stepped
        made, self._made = self._made, set()
        if stepped - made:
            raise ConfigError(f"{WANTED}; this one steps an optimizer by itself")
        if self._unscaled:
            self.scaler.update()  # type: ignore[union-attr]
        self._unscaled, self._has_scaled = set(), False
        return made

    @property
    def num_waiting(self) -> int:
        """Batches that wait for a step."""
        return num_waiting({name: vars(group) for name, group in self.groups.items()})

    def take_skipped(self) -> dict[str, int]:
        """How many updates fp16 left out since the last call, by the name of the log."""
        if self.scaler is None:
            return {}
        skipped, self.skipped = self.skipped, 0
        return {"skipped_steps": skipped}

    def state_dict(self) -> dict[str, Any]:
        if self.is_plain:
            return {}
        return {"groups": {name: dict(vars(group)) for name, group in self.groups.items()},
                "is_of_all": self.reduction.is_of_all,
                "skipped": self.skipped,
                "scaler": None if self.scaler is None else self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, values in state["groups"].items():
            self.groups[name] = Group()
            means = [None if mean is None else self.reduction.placed(mean, self.device)
                     for mean in values["means"]]
            vars(self.groups[name]).update({**values, "means": means})
        self.is_plain &= not self.groups  # what waits is a part of the next step
        self.skipped = state["skipped"]
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])


def parameters_of(optimizer: Any) -> list[nn.Parameter]:
    """All that an optimizer trains."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def num_waiting(groups: dict[str, dict[str, Any]]) -> int:
    """Batches that wait for a step, in the state of ``Updates``."""
    return max((group["batches"] for group in groups.values()), default=0)
