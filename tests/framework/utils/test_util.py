"""Folders, endless loaders, and the names that projects import from here."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from utils.util import ensure_dir, inf_loop


@pytest.mark.parametrize("module", ["utils", "utils.util"])
def test_names_of_classic_projects_can_be_imported(module: str) -> None:
    names = ("MetricTracker", "ensure_dir", "inf_loop", "prepare_device", "read_json", "write_json")
    assert all(map(callable, map(vars(__import__(module, fromlist=names)).get, names)))


def test_ensure_dir_makes_parents_and_leaves_what_exists(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    ensure_dir(folder)
    (folder / "kept").touch()
    ensure_dir(str(folder))
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_inf_loop_begins_each_pass_anew_for_ever() -> None:
    class Loader:
        passes = 0

        def __iter__(self) -> Iterator[int]:
            self.passes += 1
            return iter([self.passes, -self.passes])

    assert list(islice(inf_loop(Loader()), 5)) == [1, -1, 2, -2, 3]


@pytest.mark.parametrize("loader", [[], iter([1])])
def test_inf_loop_refuses_a_loader_without_batches(loader: Any) -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        list(islice(inf_loop(loader), 2))
