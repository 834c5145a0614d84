"""Checkpoints whose divided tensors are written by each process in files of its own.

Beside the checkpoint, in ``shards/NAME``, lies what ``torch.distributed.checkpoint`` writes. The
checkpoint itself is as ever, with tensors without content in their places.
"""

import dataclasses
import enum
import functools
import operator
import os
import pickle
import secrets
import shutil
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from base.checkpoint.state import KeyPath, check_finite
from utils.devices.processes import (
    first_problem,
    from_main,
    gathered,
    is_main_process,
    num_processes,
    rank,
)
from utils.devices.sharding import is_divided, new_like, part_of, with_tensors
from utils.errors import CheckpointError, RunError
from utils.runs.checkpoint_file import SHARDS, read_checkpoint

METADATA = ".metadata"  # of torch's; it is a pickle
# what may stand in it beside torch's own records
RECORDS = {("torch", "Size"), ("torch.serialization", "_get_layout"), *(
    (module, name) for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath"))}
CHUNK_BYTES = 1 << 24


def write_shards(state: dict[str, Any], folder: Path,
                 finite: Sequence[KeyPath] = ()) -> dict[str, Any]:
    """Writes what is divided in a checkpoint's content, by all processes together.

    Args:
        folder: of the checkpoint.
        finite: what in ``state`` must be finite to be saved.

    Returns:
        The content without that.

    Raises:
        CheckpointError: a process could not write, in all of them.
        RunError: a value is not finite; nothing is written.
    """
    import torch.distributed.checkpoint as dcp

    _check_all_finite(state, finite)
    tensors: dict[str, torch.Tensor] = {}

    def take(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if not is_divided(tensor):
            return tensor
        tensors[key] = tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    state = with_tensors(state, take)
    name = from_main(f"step{state['parts']['counters']['step']}-{secrets.token_hex(4)}")
    path = folder / SHARDS / name
    checksums: dict[str, int] = {}

    def write() -> None:
        dcp.save(tensors, checkpoint_id=path)
        checksums.update(_checksums(path, [f"__{rank()}_*"] + [METADATA] * is_main_process()))

    _by_all(lambda: path.mkdir(parents=True, exist_ok=True), path)
    _by_all(write, path)
    files = {file: values for part in gathered(checksums) for file, values in part.items()}
    return {**state, "shards": {"name": name, "files": files}}


def _by_all(write: Callable[[], None], path: Path) -> None:
    from torch.distributed.checkpoint import CheckpointException

    problem = None
    try:
        write()
    except (CheckpointException, OSError) as error:
        problem = _cause(error)
    if problem := first_problem(problem):
        if is_main_process():
            shutil.rmtree(path, ignore_errors=True)
        raise CheckpointError(f"{path}: could not be written ({problem[:300]}); earlier "
                              "checkpoints are untouched")


def _cause(error: BaseException) -> str:
    """In words; what torch raises holds the errors of all processes, and is no ``Exception``."""
    failures = getattr(error, "failures", {})
    return "; ".join(sorted({str(cause) for cause, _ in failures.values()})) or str(error) or (
        type(error).__name__)


def read_shards(content: dict[str, Any], checkpoint: Path,
                like: torch.Tensor | None = None) -> dict[str, Any]:
    """The content of a checkpoint with all of its tensors.

    Args:
        checkpoint: its file.
        like: what was divided is read as this is divided between the processes, by all of them
            together; without it each reads all.

    Raises:
        CheckpointError: a file is missing or damaged, or holds what could execute code.
    """
    if "shards" not in content:
        return content
    import torch.distributed.checkpoint as dcp

    class Reader(dcp.FileSystemReader):
        """Torch's own would execute what its pickle names."""

        def read_metadata(self, *args: Any, **options: Any) -> Any:
            with open(path / METADATA, "rb") as file:
                return _Records(file).load()

    path = checkpoint.parent / SHARDS / content["shards"]["name"]
    ranks = content.get("rank_parts", [])
    mine = rank() if rank() < len(ranks) else 0
    tensors: dict[str, torch.Tensor] = {}

    def make(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_meta:
            return tensor
        tensors[key] = new_like(tensor, like)
        return tensors[key]

    rest = {key: value for key, value in content.items() if key not in ("shards", "rank_parts")}
    _check_files(path, content["shards"]["files"], by_all=like is not None)
    try:
        # what a process has of its own was written by each under the name of the first
        result = with_tensors({**rest, "rank_parts": ranks[mine:mine + 1]}, make)
        result["rank_parts"] = [*ranks[:mine], *result["rank_parts"], *ranks[mine + 1:]]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=Reader(path), no_dist=like is None)
    # a damaged file fails anywhere inside torch's readers
    except (dcp.CheckpointException, Exception) as error:
        raise CheckpointError(f"{path}: refused, for it is damaged or of another checkpoint "
                              f"({_cause(error).splitlines()[0][:300]})") from error
    return result


def remove_unused(folder: Path) -> None:
    """Removes the shards that no checkpoint of a folder names any more."""
    used = set()
    for file in folder.glob("*.pth"):
        try:
            used.add(read_checkpoint(file, with_tensors=False).get("shards", {}).get("name"))
        except CheckpointError:
            return  # nobody knows what it names
    for path in (folder / SHARDS).glob("*"):
        if path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def link_shards(source: Path, checkpoint: Path) -> None:
    """Gives the shards that a checkpoint names to another folder as well, where it was linked.

    Raises:
        CheckpointError: they cannot be written there.
    """
    if source.parent == checkpoint.parent:
        return
    content = read_checkpoint(source, with_tensors=False)
    if "shards" not in content:
        return
    name = content["shards"]["name"]
    path, temporary = (checkpoint.parent / SHARDS / text for text in (name, f"{name}.tmp"))
    if path.exists():  # another checkpoint names them too
        return
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source.parent / SHARDS / name, temporary, copy_function=_link)
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"{path}: could not be written ({error.strerror})") from error


def _link(source: str, path: str) -> str:
    try:
        os.link(source, path)
    except OSError:  # a file system without links
        shutil.copyfile(source, path)
    return path


def _checksums(path: Path, patterns: list[str]) -> dict[str, int]:
    return {file.name: _checksum(file) for pattern in patterns for file in path.glob(pattern)}


def _checksum(file: Path) -> int:
    """CRC-32; torch overlooks a flipped bit."""
    value = 0
    with open(file, "rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value


def _check_all_finite(state: dict[str, Any], finite: Sequence[KeyPath]) -> None:
    problem = None
    try:
        for path in finite:
            value: Any = functools.reduce(operator.getitem, path, state)
            check_finite(".".join(path), part_of(value))
    except RunError as error:
        problem = str(error)
    if problem := first_problem(problem):
        raise RunError(problem)


def _check_files(path: Path, checksums: dict[str, int], *, by_all: bool) -> None:
    number, count = (rank(), num_processes()) if by_all else (0, 1)
    problem = None
    try:
        damaged = [name for name in sorted(checksums)[number::count]
                   if _checksum(path / name) != checksums[name]]
        if damaged:
            problem = f"{path / damaged[0]}: damaged (its checksum is wrong)"
    except OSError as error:
        problem = f"{error.filename}: cannot be read ({error.strerror})"
    if problem := first_problem(problem) if by_all else problem:
        raise CheckpointError(f"{problem}; use another checkpoint")


class _Records(pickle.Unpickler):
    """Reads torch's pickle of what lies where, and executes nothing that is in it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in RECORDS or module.startswith("torch.distributed.checkpoint."):
            found: Any = super().find_class(module, name)
            is_own = isinstance(found, type) and found.__module__ == module and (
                dataclasses.is_dataclass(found) or issubclass(found, enum.Enum))
            if is_own or (module, name) in RECORDS:
                return found
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise pickle.UnpicklingError(f"it names {module}.{name} and could execute code")
