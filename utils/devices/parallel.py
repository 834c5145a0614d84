"""One model on one or several devices, and the bare model inside its wrappers."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn

from utils.devices.device import prepare_device
from utils.devices.processes import num_processes
from utils.errors import ConfigError, RunError


def place_model(model: nn.Module, device: torch.device, device_ids: list[int], *,
                channels_last: bool = False, compiled: bool | dict[str, Any] = False,
                strategy: str = "auto", find_unused: bool = False) -> nn.Module:
    """Moves the model. In one process, more than one id wraps it in DataParallel, unless somebody
    already has. Several processes on GPUs wrap it in DistributedDataParallel, which sends gradients
    while others are computed, in an order that a resume changes; on the CPU and where all is to be
    deterministic they are sent before the step (see ``Reduction``).

    Args:
        channels_last: keep convolutions' weights in channels-last layout.
        compiled: let torch.compile make it fast, perhaps with options; its first batches take long.
        strategy: "auto" is as said above; "single", "dp" or "ddp" insist.
        find_unused: let DistributedDataParallel expect parameters without gradients in a step.

    Raises:
        ConfigError: torch.compile does not take the options, or the strategy is not to be had.
    """
    _check_strategy(strategy, device_ids)
    model = model.to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compiled:
        options = compiled if isinstance(compiled, dict) else {}
        try:
            model = cast(nn.Module, torch.compile(model, **options))
        except (TypeError, RuntimeError, ValueError) as error:
            raise ConfigError(f"trainer.compile: torch.compile refuses {options}: {error}"
                              ) from error
    if num_processes() > 1:
        is_exact = device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
        if (strategy == "ddp" or not is_exact) and any(
                one.requires_grad for one in model.parameters()):
            model = nn.parallel.DistributedDataParallel(
                model, device_ids=device_ids or None, find_unused_parameters=find_unused,
                broadcast_buffers=False)  # the trainer does so for all networks
    elif len(device_ids) > 1 and strategy != "single" and not isinstance(model, nn.DataParallel):
        model = nn.DataParallel(model, device_ids=device_ids)
    return model


def _check_strategy(strategy: str, device_ids: list[int]) -> None:
    count = num_processes()
    if strategy == "ddp" and count == 1:
        raise ConfigError("trainer.strategy: ddp is of several processes: start them by torchrun")
    if strategy == "dp" and count == 1 and len(device_ids) < 2:
        raise ConfigError("trainer.strategy: dp is of several GPUs, and this run uses "
                          f"{len(device_ids) or 'none'}: set n_gpu, or strategy to auto")
    if strategy in ("single", "dp") and count > 1:
        raise ConfigError(f"trainer.strategy: {strategy} is of one process, but there are {count}: "
                          "set auto or ddp")


def without_processes(model: Any) -> Any:
    """The model as it is in this process alone, for validation: nothing waits for others."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class Reduction:
    """Whether gradients are means over the samples of all processes already, by the work of
    DistributedDataParallel.

    Args:
        model: wrapped, or not.
        is_on: whether it may; else gradients stay those of this process (``off``).
        share: gives this process's share of the samples of the batch.
    """

    def __init__(self, model: nn.Module, share: Callable[[], float], *, is_on: bool) -> None:
        self._share = share
        self._has_run = False
        self._wrapper = model if (
            isinstance(model, nn.parallel.DistributedDataParallel)) else None
        self.is_on = is_on and self._wrapper is not None
        self._reduced: set[int] = set()  # ids of the parameters that it knows of
        if self._wrapper is not None and self.is_on:  # the former for the type checker
            self._reduced = {id(one) for one in model.parameters() if one.requires_grad}
            # torch wants the function's annotations to be its own types
            self._wrapper.register_comm_hook(None, lambda _, bucket: self._sum(bucket))
            self._wrapper.register_forward_pre_hook(self._note)

    def off(self) -> contextlib.AbstractContextManager[Any]:
        """Context for an epoch."""
        if self._wrapper is None or self.is_on:
            return contextlib.nullcontext()
        return self._wrapper.no_sync()

    def begin(self) -> None:
        """A batch comes."""
        self._has_run = False

    def left(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Those whose gradients are still those of this process."""
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


@contextlib.contextmanager
def compiler_told(is_compiled: Any) -> Iterator[None]:
    """Turns what torch's compiler fails with into one message.

    Raises:
        RunError: it failed.
    """
    try:
        yield
    except Exception as error:
        if is_compiled and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            cause = str(error).strip().splitlines() or [""]
            raise RunError(f"trainer.compile: the compiler failed ({type(error).__name__}: "
                           f"{cause[0][:300]}); mend that, or set it to false") from error
        raise


def place_if_unplaced(model: nn.Module, n_gpu: int | None) -> tuple[torch.device, nn.Module]:
    """The device of a model that somebody has placed; else places it on ``n_gpu`` GPUs."""
    devices = {parameter.device for parameter in model.parameters()}
    is_placed = isinstance(model, nn.DataParallel) or any(
        device.type != "cpu" for device in devices)
    if n_gpu is None or is_placed:
        return (devices or {torch.device("cpu")}).pop(), model
    device, ids = prepare_device(n_gpu)
    return device, place_model(model, device, ids)


def unwrap_model(model: Any) -> Any:
    """The module itself, without DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)  # where torch.compile documents the model to be
        if inner is None and isinstance(
                model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner
