"""The checkpoint files of a run: names, links, pruning, writing in the background."""

import copy
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from utils.checkpoint_file import link_checkpoint, remove_leftovers, write_checkpoint
from utils.errors import CheckpointError

LATEST = "latest.pth"
BEST = "model_best.pth"


class Checkpointer:
    """Writes checkpoint files so that a reader never sees half of one.

    Args:
        directory: made if absent.
        keep_last: newest epoch files to keep; 0 keeps all. Best and latest always stay.
        name: of epoch files; holds ``{epoch}``.
        async_save: copy the state to host memory and write it in a thread. ``save`` then waits only
            for the copy, and for the write before; the buffers of the copy are kept.

    Raises:
        ValueError: ``keep_last`` is negative.
    """

    def __init__(self, directory: Path, *, keep_last: int = 0,
                 name: str = "checkpoint-epoch{epoch}.pth", async_save: bool = False) -> None:
        if keep_last < 0:
            raise ValueError(f"keep_last must be 0 (all) or more, got {keep_last}")
        self.directory = directory
        self.keep_last = keep_last
        self.name = name
        self.async_save = async_save
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._buffers: Any = None

    def save(self, state: dict[str, Any], names: Sequence[str], *,
             epoch: int | None = None) -> None:
        """Writes one file, links the other names to it, and prunes.

        Args:
            state: what the file holds.
            names: of the file; the first is written, the rest are links to it.
            epoch: number of the newest epoch file, for pruning; None prunes nothing.

        Raises:
            CheckpointError: this write failed or, with ``async_save``, the one before.
        """
        self.wait()
        try:
            Path(self.directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.directory}: cannot be made ({error.strerror})") from error
        if not self.async_save:
            self._write(state, names, epoch)
            return
        self._buffers = copy_to_host(state, self._buffers)
        # no daemon: the process does not end before the file is complete
        self._thread = threading.Thread(
            target=self._write_and_remember, args=(self._buffers, names, epoch))
        self._thread.start()

    def wait(self) -> None:
        """Returns when no write is under way.

        Raises:
            CheckpointError: of a write in the background.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def epoch_name(self, epoch: int) -> str:
        return self.name.format(epoch=epoch)

    def _write(self, state: dict[str, Any], names: Sequence[str], epoch: int | None) -> None:
        first = Path(self.directory) / names[0]
        remove_leftovers(first.parent)
        write_checkpoint(first, state)
        for name in names[1:]:
            link_checkpoint(first, first.with_name(name))
        if epoch is not None and self.keep_last:
            for old in self._epoch_files(epoch)[:-self.keep_last]:
                _prune(old)

    def _write_and_remember(self, *args: Any) -> None:
        try:
            self._write(*args)
        except Exception as error:  # whatever it is, the run hears of it
            self._error = error

    def _epoch_files(self, until: int) -> list[Path]:
        """Epoch files up to ``until``, oldest first. Later ones are of a run that was resumed from
        before them, and are written anew in their turn."""
        before, after = (re.escape(part) for part in re.split(r"\{epoch[^}]*\}", self.name))
        numbers = {}
        for file in Path(self.directory).iterdir():
            match = re.fullmatch(f"{before}([0-9]+){after}", file.name)
            if match and int(match[1]) <= until:
                numbers[file] = int(match[1])
        return sorted(numbers, key=numbers.__getitem__)


def copy_to_host(state: Any, buffers: Any = None) -> Any:
    """A copy of nested state with its tensors in host memory.

    Args:
        buffers: an earlier copy whose tensors are written over where they fit.
    """
    if isinstance(state, torch.Tensor):
        fits = (isinstance(buffers, torch.Tensor) and buffers.shape == state.shape
                and buffers.dtype == state.dtype)
        host = buffers if fits else torch.empty_like(
            state, device="cpu", requires_grad=False, memory_format=torch.preserve_format)
        return host.copy_(state.detach())  # waits for the device
    if isinstance(state, dict):
        kept = buffers if isinstance(buffers, dict) else {}
        host = copy.copy(state)  # with the attributes that a state_dict has
        host.update((key, copy_to_host(value, kept.get(key))) for key, value in state.items())
        return host
    if isinstance(state, (list, tuple)):
        kept = buffers if isinstance(buffers, (list, tuple)) else ()
        return type(state)(copy_to_host(value, kept[index] if index < len(kept) else None)
                           for index, value in enumerate(state))
    return copy.deepcopy(state)


def _prune(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{file}: could not be removed, as trainer.keep_last asks "
                              f"({error.strerror})") from error
