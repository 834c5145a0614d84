"""One writer for a run folder: a lock that the system drops when its process ends, however."""

import os
import sys
from pathlib import Path
from typing import IO

from utils.errors import RunError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_held: dict[Path, IO[bytes]] = {}


def lock_folder(folder: Path) -> None:
    """Keeps other processes from writing to ``folder`` until this one ends.

    A lock of POSIX belongs to the process alone: neither a forked loader worker nor a killed run
    leaves it behind. Locking again in the same process changes nothing.

    Raises:
        RunError: another living process has it.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    file = open(folder / ".lock", "a+b")  # noqa: SIM115, open for as long as the process lives
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().decode(errors="replace").strip() if sys.platform != "win32" else ""
        file.close()
        raise RunError(f"{folder}: another process ({owner or 'unknown'}) writes to this run; wait "
                       "for it, stop it, or start a run of its own with --new-run") from error
    file.truncate(0)
    file.write(f"process {os.getpid()}".encode())
    file.flush()
    _held[folder] = file


def unlock_folder(folder: Path) -> None:
    """Drops the lock before the process ends; nothing happens where there is none."""
    file = _held.pop(folder.resolve(), None)
    if file is not None:
        file.close()
