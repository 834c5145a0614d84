"""One writer for a run folder: a lock that the system drops when its process ends, however."""

import logging
import os
import sys
from pathlib import Path
from typing import IO

from utils.errors import RunError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger("config")

# by process, for a forked child inherits the files but not the locks
_held: dict[tuple[int, Path], IO[bytes]] = {}


def lock_folder(folder: Path) -> None:
    """Keeps other processes from writing to ``folder`` until this one ends.

    A lock of POSIX belongs to the process alone: neither a forked loader worker nor a killed run
    leaves it behind. Locking again in the same process changes nothing.

    Raises:
        RunError: another living process has it.
    """
    key = os.getpid(), folder.resolve()
    if key in _held:
        return
    file = open(folder / ".lock", "a+b")  # noqa: SIM115, open for as long as the process lives
    try:
        if sys.platform == "win32":
            file.seek(1 << 30)  # the lock is mandatory there: not on what others read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        owner = file.read(100).decode(errors="replace").strip()
        file.close()
        raise RunError(f"{folder}: another process ({owner or 'unknown'}) writes to this run; wait "
                       "for it, stop it, or start a run of its own with --new-run") from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): take care that only one process writes to it",
                       folder, error.strerror)
    file.truncate(0)
    file.write(f"process {os.getpid()}".encode())
    file.flush()
    _held[key] = file


def unlock_folder(folder: Path) -> None:
    """Drops the lock before the process ends; nothing happens where there is none."""
    file = _held.pop((os.getpid(), folder.resolve()), None)
    if file is not None:
        file.close()
