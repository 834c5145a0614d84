"""Checkpoint files: written whole or not at all, read without executing anything."""

import contextlib
import errno
import os
import pickle
import re
import secrets
import shutil
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from utils.config.json_file import PICKLE_MARK, ZIP_MARK
from utils.errors import CheckpointError

TEMPORARY = r".+\.pth\.([0-9a-f]{8}|link)\.tmp"
MAX_STRUCTURE_BYTES = 1 << 28  # of what is not tensors; no run has nearly as much
KINDS = {"state_dict": dict, "epoch": int, "parts": dict, "rank_parts": list, "shards": dict}
SHARDS = "shards"  # the folder, beside the checkpoint, of what is not in it


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
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
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
        _sync_folder(path.parent)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        _discard(temporary)  # still there where both names were one file already


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of writes that were killed; for the one writer of the folder."""
    for file in folder.glob("*.tmp"):
        if re.fullmatch(TEMPORARY, file.name):
            _discard(file)


def read_checkpoint(path: Path, *, stand_ins: Sequence[Any] = (),
                    with_tensors: bool = True) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; executes nothing that is in it.

    Args:
        stand_ins: what the names of a classic checkpoint stand for; any other name is refused.
        with_tensors: False reads the content of tensors only where it is looked at, from the file,
            which must not change until then; takes no time for it.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint; says what to do instead.
    """
    try:
        _check_file(path, with_tensors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about old formats
            with torch.serialization.safe_globals(list(stand_ins)):
                checkpoint = torch.load(path, map_location="cpu", weights_only=True,
                                        mmap=not with_tensors and zipfile.is_zipfile(path))
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
    if "shards" in checkpoint:
        _check_shards(path, checkpoint["shards"], is_whole=with_tensors)
    return checkpoint


def _check_file(path: Path, is_whole: bool) -> None:
    """The CRC-32 that zip archives keep of their parts: torch itself overlooks a flipped bit."""
    with open(path, "rb") as file:
        mark = file.read(4)
    if not mark:
        raise CheckpointError(f"{path}: the file is empty; use another checkpoint")
    if not mark.startswith((ZIP_MARK, PICKLE_MARK)):
        raise CheckpointError(f"{path}: expected a checkpoint, got some other kind of file; a "
                              "config is given with -c, a checkpoint (.pth) with --resume")
    if not zipfile.is_zipfile(path):
        return  # torch's format before 1.6, or damaged: torch.load tells
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist()
                   if part.filename.endswith("data.pkl"))
        if size > MAX_STRUCTURE_BYTES:
            raise CheckpointError(f"{path}: refused, for its structure alone takes {size} bytes")
        damaged = archive.testzip() if is_whole else None
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged (the checksum of {damaged} is wrong); use another "
                              "checkpoint")


def _check_content(path: Path, checkpoint: Any) -> None:
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: expected a checkpoint with the key 'state_dict', got "
                              f"{_describe(checkpoint)}")
    for key, kind in KINDS.items():
        if key in checkpoint and not isinstance(checkpoint[key], kind):
            raise CheckpointError(f"{path}: expected {key!r} in a checkpoint to be of type "
                                  f"{kind.__name__}, got {_describe(checkpoint[key])}")
    if not all(isinstance(key, str) for key in checkpoint["state_dict"]):
        raise CheckpointError(f"{path}: expected names as keys of 'state_dict', got "
                              f"{_describe(checkpoint['state_dict'])}")


def _check_shards(path: Path, shards: dict[str, Any], *, is_whole: bool) -> None:
    """Whether the files are there that hold a part of a checkpoint."""
    name, files = shards.get("name"), shards.get("files")
    names = [name, *files] if isinstance(files, dict) else [None]
    if not all(isinstance(one, str) and one not in ("", "..") and Path(one).name == one
               for one in names):
        raise CheckpointError(f"{path}: damaged (it does not say where its shards are); use "
                              "another checkpoint")
    folder = path.parent / SHARDS / str(name)
    missing = [file for file in files or () if not (folder / file).is_file()]
    if missing and is_whole:
        raise CheckpointError(f"{path}: a part of it is missing, {folder / missing[0]}; it has to "
                              "lie where it was written, beside the checkpoint")


def _refusal(path: Path, error: Exception, *, is_converting: bool) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    text = ("refused, for it holds more than tensors and plain values"
            + (f" ({found[1]})" if found else "") + " and could execute code")
    return text if is_converting else (
        f"{text}. If it was written by an older template and you trust where it comes from, "
        f"convert it: python -m tools.convert_checkpoint {path} NEW.pth")


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


def _sync_folder(folder: Path) -> None:
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


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only file system says so even of absent files
        path.unlink()
