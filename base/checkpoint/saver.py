"""The checkpoint files of a run: names, links, pruning, writing in the background."""

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from base.checkpoint.host_copy import copy_to_host
from base.checkpoint.shards import remove_unused
from base.checkpoint.state import KeyPath, check_finite
from utils.errors import CheckpointError
from utils.runs.checkpoint_file import SHARDS, link_checkpoint, remove_leftovers, write_checkpoint
from utils.runs.folder import BEST, LATEST


class Saver:
    """Writes checkpoint files so that a reader never sees half of one.

    Args:
        folder: gives the folder of the files, once it is needed.
        save_freq: epochs from one epoch file to the next.
        keep_last: newest epoch files to keep; 0 keeps all. Best and latest always stay.
        name: of epoch files; holds ``{epoch}``.
        async_save: copy the state to host memory and write it in a thread. ``save`` then waits only
            for the copy, and for the write before; the buffers of the copy are kept.

    Attributes:
        directory: of the files; may be assigned.
    """

    def __init__(self, folder: Callable[[], Path], *, save_freq: int = 1, keep_last: int = 0,
                 name: str = "checkpoint-epoch{epoch}.pth", async_save: bool = False) -> None:
        self._folder = folder
        self.save_freq = save_freq
        self.keep_last = keep_last
        self.name = name
        self.async_save = async_save
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._buffers: Any = None

    @property
    def directory(self) -> Path:
        return Path(self._folder())

    @directory.setter
    def directory(self, directory: str | Path) -> None:
        self._folder = lambda: Path(directory)

    def is_due(self, epoch: int) -> bool:
        """Whether an epoch has a file of its own, by its number."""
        return epoch % self.save_freq == 0

    def save_epoch(self, state: dict[str, Any], epoch: int | None, *, is_best: bool, is_last: bool,
                   finite: Sequence[KeyPath] = (), kept: Sequence[str] = (),
                   new: str | None = None) -> None:
        """Saves a finished epoch: ``latest``, the best model, and an epoch file when one is due.

        Args:
            epoch: None inside an epoch.
            is_last: of the run; has a file whatever ``save_freq`` is.
            finite: what in ``state`` must be finite to be saved.
            kept: what the best models so far are called that have files of their own, ``epoch7`` or
                ``step500``; ``new``: that of this one, if it is among them.

        Raises:
            CheckpointError: this write failed or, with ``async_save``, the one before.
            RunError: a value is not finite; nothing is written.
        """
        if epoch is not None and not (is_last or self.is_due(epoch)):
            epoch = None
        names = [] if epoch is None else [self.epoch_name(epoch)]
        names += [BEST] if is_best else []
        names += [] if new is None else [kept_name(new)]
        self._save(state, [*names, LATEST], epoch, finite, [kept_name(label) for label in kept])

    def save_latest(self, state: dict[str, Any], finite: Sequence[KeyPath] = ()) -> None:
        """Saves between two steps of an epoch; raises as ``save_epoch`` does."""
        self._save(state, [LATEST], None, finite, [])

    def wait(self) -> None:
        """Returns when no write is under way.

        Raises:
            CheckpointError, RunError: of a write in the background.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def epoch_name(self, epoch: int) -> str:
        return self.name.format(epoch=epoch)

    def _save(self, state: dict[str, Any], names: list[str], epoch: int | None,
              finite: Sequence[KeyPath], kept: list[str]) -> None:
        self.wait()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.directory}: cannot be made ({error.strerror})") from error
        if not self.async_save:
            self._write(state, names, epoch, finite, kept)
            return
        self._buffers = copy_to_host(state, self._buffers)
        # no daemon: the process does not end before the file is complete
        self._thread = threading.Thread(
            target=self._write_and_remember, args=(self._buffers, names, epoch, finite, kept))
        self._thread.start()

    def _write(self, state: dict[str, Any], names: list[str], epoch: int | None,
               finite: Sequence[KeyPath], kept: list[str]) -> None:
        for path in finite:
            _check_finite(state, path)
        first = self.directory / names[0]
        remove_leftovers(first.parent)
        write_checkpoint(first, state)
        for name in names[1:]:
            link_checkpoint(first, first.with_name(name))
        if epoch is not None and self.keep_last:
            for old in self._epoch_files(epoch)[:-self.keep_last]:
                _prune(old)
        if kept:
            for old in first.parent.glob(kept_name("*")):
                if old.name not in kept:
                    _prune(old)
        if (first.parent / SHARDS).is_dir():
            remove_unused(first.parent)

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
        for file in self.directory.iterdir():
            match = re.fullmatch(f"{before}([0-9]+){after}", file.name)
            if match and int(match[1]) <= until:
                numbers[file] = int(match[1])
        return sorted(numbers, key=numbers.__getitem__)


def kept_name(label: str) -> str:
    """The file of one of the best models."""
    return f"{Path(BEST).stem}-{label}.pth"


def _check_finite(state: dict[str, Any], path: KeyPath) -> None:
    value: Any = state
    for key in path:
        value = value[key]
    if not value.is_meta:  # else it was checked when it was written
        check_finite(".".join(path), value)


def _prune(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{file}: could not be removed, as keep_last or keep_best asks "
                              f"({error.strerror})") from error
