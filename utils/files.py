"""Files that are replaced as a whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from utils.errors import RunError


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of ``path`` at the end: a reader sees the one
    before or the whole new one.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # some choose by the ending
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
