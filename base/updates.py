"""What is between a loss and an optimizer's step: precision, accumulation, clipping."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from utils.devices.precision import make_scaler, outside_autocast
from utils.errors import ConfigError

WANTED = ("trainer.accumulate, clip_grad_norm and precision fp16 work where _train_step calls "
          "self.zero_grad(), self.backward(loss) and self.step()")


class Updates:
    """Makes one update out of the gradients of one or several batches.

    A gradient is the mean over the *samples* of all batches of an update, also of the last, shorter
    group of an epoch. With the settings at their defaults nothing is done here.

    Args:
        settings: of the trainer.
        device: that the networks are on.
    """

    def __init__(self, settings: Any, device: torch.device) -> None:
        self.accumulate = settings.accumulate
        self.max_norm = settings.clip_grad_norm
        self.precision = settings.precision
        self.device = device
        self.scaler = make_scaler(self.precision, device)
        self.is_plain = self.accumulate == 1 and not self.max_norm and self.scaler is None
        self.batches = self.samples = 0  # of the group so far
        self.skipped = 0  # updates that fp16 left out, since the last log
        self.is_due = self.is_first = True
        self._size = 0
        self._has_tried = self._is_used = False

    def begin(self, num_samples: int, *, is_last: bool) -> None:
        """A batch comes.

        Args:
            is_last: of its epoch: no group goes on into the next one.
        """
        self._size = num_samples
        self.is_first = self.batches == 0
        self.batches += 1
        self.samples += num_samples
        self.is_due = self.batches >= self.accumulate or is_last

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradients of a batch's mean loss, with the weight of its samples."""
        if self.is_plain and self.precision == "fp32":
            loss.backward()
            return
        if self.accumulate > 1:
            loss = loss * self._size
        self._is_used = True
        with outside_autocast(self.precision, self.device):
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def check_kept(self, optimizers: Iterable[Any]) -> None:
        """Inside a group: whether gradients of the batches before are still there.

        Raises:
            ConfigError: somebody forgot them by the optimizer's own ``zero_grad``.
        """
        if all(parameter.grad is None for one in optimizers for group in one.param_groups
               for parameter in group["params"]):
            raise ConfigError(f"{WANTED}; here the gradients of the batches before are gone")

    def step(self, optimizer: Any) -> torch.Tensor | None:
        """The step of an optimizer, if one is due; the norm of its gradients, if that is limited.

        Returns:
            A 0-d tensor on the device, from before they were clipped.
        """
        if self.is_plain:
            optimizer.step()
            return None
        self._is_used |= self.accumulate == 1 and self.scaler is None
        if not self.is_due:
            return None
        parameters = [parameter for group in optimizer.param_groups
                      for parameter in group["params"] if parameter.grad is not None]
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if self.accumulate > 1:
            for parameter in parameters:
                parameter.grad.div_(self.samples)
        norm = nn.utils.clip_grad_norm_(parameters, self.max_norm) if self.max_norm else None
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self._has_tried = True
        return norm

    def end(self, stepped: Iterable[str]) -> None:
        """The batch is done.

        Args:
            stepped: names of the optimizers that made their step with it.

        Raises:
            ConfigError: they were stepped without ``backward`` and ``step`` of the trainer.
        """
        if self.is_plain:
            self.batches = self.samples = 0
            return
        if stepped and not self._is_used:
            raise ConfigError(f"{WANTED}; this one steps an optimizer by itself")
        if self.scaler is not None and self._has_tried:
            self.skipped += not stepped
            self.scaler.update()
            self._has_tried = False
        if self.is_due:
            self.batches = self.samples = 0

    def take_skipped(self) -> dict[str, int]:
        """How many updates fp16 left out since the last call, by the name of the log."""
        if self.scaler is None:
            return {}
        skipped, self.skipped = self.skipped, 0
        return {"skipped_steps": skipped}

    def state_dict(self) -> dict[str, Any]:
        if self.is_plain:
            return {}
        return {"batches": self.batches, "samples": self.samples, "skipped": self.skipped,
                "scaler": None if self.scaler is None else self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches, self.samples = state["batches"], state["samples"]
        self.skipped = state["skipped"]
        self._is_used = self.batches > 0
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
