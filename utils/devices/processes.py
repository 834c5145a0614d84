"""Several processes of one run, as torchrun starts them; alone, all answers are plain."""

import contextlib
import functools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from utils.errors import ConfigError, RunError

WAIT_SECONDS = 300  # for other processes at the start
_control: Any = None  # the group of processes for what is no gradient, on the CPU


@functools.cache
def num_processes() -> int:
    """How many processes the run has."""
    return _number("WORLD_SIZE", 1)


@functools.cache
def rank() -> int:
    """Which of them this is, from 0."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Which of those on this machine."""
    return _number("LOCAL_RANK", 0)


def is_main_process() -> bool:
    """Whether this process writes files and the console, for all."""
    return rank() == 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"the environment's {name}: expected a number, got {text!r}; processes "
                          "are started by torchrun") from None


@contextlib.contextmanager
def joined(*, on_gpu: bool) -> Iterator[None]:
    """Inside, the processes of the run talk to each other; within another such context, as before.

    Args:
        on_gpu: gradients are on GPUs, if there are any.

    Raises:
        ConfigError: they were not started by torchrun, or there are fewer GPUs.
        RunError: another process ended.
    """
    global _control
    if num_processes() == 1 or _control is not None:
        yield
        return
    import torch
    from torch import distributed

    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
               if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {num_processes()}, but {', '.join(missing)} is missing: "
                          "start several processes by torchrun")
    is_on_gpu = on_gpu and torch.cuda.is_available()
    if is_on_gpu and local_rank() >= torch.cuda.device_count():
        raise ConfigError(f"process {local_rank()} of this machine has no GPU, there are "
                          f"{torch.cuda.device_count()}: start fewer by --nproc-per-node, or set "
                          "n_gpu to 0 for the CPU")
    if is_on_gpu:
        torch.cuda.set_device(local_rank())
    store, number, count = next(distributed.rendezvous("env://"))
    try:
        distributed.init_process_group(
            "nccl" if is_on_gpu else "gloo", rank=number, world_size=count,
            store=distributed.PrefixStore(_common_token(store, number, count), store))
        _control = distributed.new_group(backend="gloo")
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            cause = str(error).strip().splitlines()[0][:200]
            raise RunError("the connection to another process of the run broke; if it ended, its "
                           f"own message says why ({cause})") from error
        raise
    distributed.destroy_process_group()  # not after an error, when it may wait for the others
    _control = None


def _common_token(store: Any, number: int, count: int) -> str:
    """One text for these processes alone. Where torchrun starts processes again it keeps the store,
    with all that those before have left there.

    Raises:
        RunError: a process does not come.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + WAIT_SECONDS
    if number:
        store.set(f"hello {number}", own)
        token = store.get(f"answer to {own}").decode()
        store.set(f"{token} reached {number}", "")
        return token
    missing = set(range(1, count))
    while missing:
        for other in sorted(missing):
            if store.check([f"{own} reached {other}"]):
                missing.remove(other)
            elif store.check([f"hello {other}"]):  # perhaps of a process that is gone
                store.set(f"answer to {store.get(f'hello {other}').decode()}", own)
        if time.monotonic() > deadline:
            raise RunError(f"of {count} processes these did not come: {sorted(missing)}")
        time.sleep(0.02)
    return own


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    if num_processes() == 1:
        return [value]
    from torch import distributed

    values = [None] * num_processes()
    distributed.all_gather_object(values, value, group=_control)
    return values


def first_problem(problem: str | None) -> str | None:
    """What went wrong in any of the processes, if it did."""
    return problem if num_processes() == 1 else next(filter(None, gathered(problem)), None)


def gathered_by_main(value: Any) -> list[Any]:
    """The same in the main process; in others what they gave."""
    if num_processes() == 1:
        return [value]
    from torch import distributed

    values = [None] * num_processes() if is_main_process() else None
    distributed.gather_object(value, values, group=_control)
    return [value] if values is None else values


def from_main(value: Any) -> Any:
    """The value of the main process."""
    if num_processes() == 1:
        return value
    from torch import distributed

    values = [value]
    distributed.broadcast_object_list(values, group=_control)
    return values[0]


def by_main(function: Callable[[], Any]) -> None:
    """Lets the main process call it, while the others wait.

    Raises:
        RunError: it failed there; there its own error.
    """
    if num_processes() == 1:
        function()
        return
    error: Exception | None = None
    if is_main_process():
        try:
            function()
        except Exception as caught:
            error = caught
    text = from_main(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    if text is not None:
        raise RunError(f"the main process failed with {text}")


@contextlib.contextmanager
def first_on_machine() -> Iterator[None]:
    """The first process of each machine does it before the others: they find the data there."""
    if num_processes() > 1 and local_rank() > 0:
        gathered(None)
    yield
    if num_processes() > 1 and local_rank() == 0:
        gathered(None)


class Exchange:
    """Whole numbers that the processes tell each other while they go on."""

    def __init__(self) -> None:
        self._rows: Any = None
        self._work: Any = None

    def begin(self, *numbers: int) -> None:
        """Tells the others these of this process."""
        import torch
        from torch import distributed

        self._rows = torch.zeros(num_processes(), len(numbers), dtype=torch.int64)
        self._rows[rank()] = torch.tensor(numbers)
        self._work = distributed.all_reduce(self._rows, group=_control, async_op=True)

    def end(self) -> list[list[int]]:
        """Those of all processes; waits for them."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._rows.tolist()
