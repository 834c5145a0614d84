"""Checkpoint files: written whole or not at all, read without executing anything."""

import hashlib
import os
import pickle
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from utils.errors import CheckpointError

FORMAT = 1
MARK = b"sha256:"
TAIL_BYTES = 2 + len(MARK) + 64  # length of the zip comment, mark, hex digest


class _HashingFile:
    """Passes what is written on to a file and keeps the digest of all but the last two bytes.

    The last two bytes of a zip archive are the length of its comment, which comes to hold the
    digest.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._tail = b""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if len(view) >= 2:
            self._digest.update(self._tail)
            self._digest.update(view[:-2])
            self._tail = bytes(view[-2:])
        else:
            whole = self._tail + bytes(view)
            self._digest.update(whole[:-2])
            self._tail = whole[-2:]
        self._file.write(view)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> None:
        """Writes the comment: the file stays a zip archive that ``torch.load`` reads."""
        comment = MARK + self._digest.hexdigest().encode()
        self._file.seek(-2, os.SEEK_END)
        self._file.write(len(comment).to_bytes(2, "little") + comment)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` so that ``path`` is, at any moment, the old file or the whole new one.

    Args:
        path: in a folder that exists.
        state: tensors, lists, tuples, dicts, numbers, strings and None only.

    Raises:
        CheckpointError: the disk is full, the folder read-only, ...; the old file is untouched.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with open(handle, "w+b") as file:
            hashing = _HashingFile(file)
            torch.save(state | {"format": FORMAT}, hashing)
            hashing.finish()
            file.flush()
            os.fsync(file.fileno())
        _allow_readers(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: could not be written ({_cause(error)}); free some space or make the folder "
            "writable. Earlier checkpoints are untouched") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def link_checkpoint(source: Path, path: Path) -> None:
    """Makes ``path`` another name of ``source`` in one step, without a second copy if possible."""
    temporary = path.with_name(path.name + ".link.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(source, temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: could not be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)  # still there where both names were one file already


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; executes nothing that is in it.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint; says what to do instead.
    """
    try:
        with open(path, "rb") as file:
            has_digest = _check_digest(path, file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about old formats
                checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(path, error)}") from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails anywhere inside torch's readers
        raise CheckpointError(f"{path}: not a checkpoint, or damaged ({_cause(error)}); "
                              "use another one") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: expected a checkpoint with the key 'state_dict', got "
                              f"{_describe(checkpoint)}")
    if "format" in checkpoint and not has_digest:
        raise CheckpointError(f"{path}: damaged (its checksum is gone); use another checkpoint")
    return checkpoint


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut; Windows has nothing like it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_in(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from tensors_in(value)


def _check_digest(path: Path, file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty; use another checkpoint")
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    if tail[2:2 + len(MARK)] != MARK:
        return False  # of another program
    digest = hashlib.sha256()
    file.seek(0)
    left = size - TAIL_BYTES
    while left:
        block = file.read(min(left, 1 << 22))
        digest.update(block)
        left -= len(block)
    if tail != (TAIL_BYTES - 2).to_bytes(2, "little") + MARK + digest.hexdigest().encode():
        raise CheckpointError(f"{path}: damaged (its checksum is wrong); use another checkpoint")
    return True


def _refusal(path: Path, error: Exception) -> str:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            if file.read(1)[:1] != b"\x80":
                return ("expected a checkpoint, got some other kind of file; a config is given "
                        "with -c, a checkpoint (.pth) with --resume")
    name = str(error).split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL " in str(error) else ""
    return ("refused, for it holds more than tensors and plain values"
            + (f" ({name})" if name else "") + " and could execute code. If it was written by an "
            "older template and you trust where it comes from, convert it: "
            f"python -m base.convert_checkpoint {path} NEW.pth")


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with {sorted(map(str, content))[:6]}"
    return f"a {type(content).__name__}"


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]


def _allow_readers(path: Path) -> None:
    """Temporary files are private; a checkpoint has the rights that any new file gets."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
