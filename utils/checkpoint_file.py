"""Checkpoint files: written whole or not at all, read without executing anything."""

import contextlib
import errno
import hashlib
import os
import pickle
import re
import secrets
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from utils.errors import CheckpointError

FORMAT = 1
MARK = b"sha256:"
TAIL_BYTES = 2 + len(MARK) + 64  # length of the zip comment, mark, hex digest
TEMPORARY = r".+\.pth\.([0-9a-f]{8}|link)\.tmp"
MAX_DEPTH = 100
KINDS = {"state_dict": dict, "epoch": int, "parts": dict, "rank_parts": list}


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
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            hashing = _HashingFile(file)
            torch.save(state | {"format": FORMAT}, hashing)
            hashing.finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise _not_written(path, error) from error
    finally:
        _discard(temporary)


def link_checkpoint(source: Path, path: Path) -> None:
    """Makes ``path`` another name of ``source`` in one step, without a second copy if possible."""
    temporary = path.with_name(path.name + ".link.tmp")
    _discard(temporary)
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
        raise _not_written(path, error) from error
    finally:
        _discard(temporary)  # still there where both names were one file already


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of writes that were killed; for the one writer of the folder."""
    for file in folder.glob("*.tmp"):
        if re.fullmatch(TEMPORARY, file.name):
            _discard(file)


def read_checkpoint(path: Path, *, stand_ins: Sequence[Any] = ()) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; executes nothing that is in it.

    Args:
        stand_ins: what the names of a classic checkpoint stand for; any other name is refused.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint; says what to do instead.
    """
    try:
        with open(path, "rb") as file:
            has_digest = _check_digest(path, file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about old formats
                with torch.serialization.safe_globals(list(stand_ins)):
                    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: {_refusal(path, error, is_converting=bool(stand_ins))}") from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails anywhere inside torch's readers
        raise CheckpointError(f"{path}: not a checkpoint, or damaged ({_cause(error)}); "
                              "use another one") from error
    _check_content(path, checkpoint)
    if "format" in checkpoint and not has_digest:
        raise CheckpointError(f"{path}: damaged (its checksum is gone); use another checkpoint")
    return checkpoint


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut; Windows has nothing like it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of file systems that cannot do it for folders
                raise
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


def _check_content(path: Path, checkpoint: Any) -> None:
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: expected a checkpoint with the key 'state_dict', got "
                              f"{_describe(checkpoint)}")
    _check_nesting(path, checkpoint)
    for key, kind in KINDS.items():
        if key in checkpoint and not isinstance(checkpoint[key], kind):
            raise CheckpointError(f"{path}: expected {key!r} in a checkpoint to be of type "
                                  f"{kind.__name__}, got {_describe(checkpoint[key])}")
    if not all(isinstance(key, str) for key in checkpoint["state_dict"]):
        raise CheckpointError(f"{path}: expected names as keys of 'state_dict', got "
                              f"{_describe(checkpoint['state_dict'])}")


def _check_nesting(path: Path, content: Any) -> None:
    """Refuses what no run writes and what would exhaust the code that walks through it: many
    levels, content that holds itself, or few containers that occur very often in each other."""
    stack, seen, visits = [(content, 1)], set(), 0
    while stack:
        item, depth = stack.pop()
        seen.add(id(item))
        visits += 1
        if depth > MAX_DEPTH or visits > 10 * len(seen) + 100_000:
            raise CheckpointError(f"{path}: refused, for it is nested deeper than {MAX_DEPTH} "
                                  "levels, or stands for far more content than it has")
        parts = item.values() if isinstance(item, dict) else item
        stack += [(part, depth + 1) for part in parts if isinstance(part, (dict, list, tuple))]


def _refusal(path: Path, error: Exception, *, is_converting: bool) -> str:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            if file.read(1) != b"\x80":
                return ("expected a checkpoint, got some other kind of file; a config is given "
                        "with -c, a checkpoint (.pth) with --resume")
    found = re.search(r"GLOBAL (\S+)", str(error))
    text = ("refused, for it holds more than tensors and plain values"
            + (f" ({found[1]})" if found else "") + " and could execute code")
    return text if is_converting else (
        f"{text}. If it was written by an older template and you trust where it comes from, "
        f"convert it: python -m base.convert_checkpoint {path} NEW.pth")


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with {sorted(map(str, content))[:6]}"
    return f"a {type(content).__name__}"


def _cause(error: BaseException) -> str:
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__  # what torch's writer stumbled over
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:200]


def _not_written(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: could not be written ({_cause(error)}); free some space or make the folder "
        "writable. Earlier checkpoints are untouched")


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only file system says so even of absent files
        path.unlink()
