"""Starting a project from the template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


def test_copies_only_what_belongs_to_a_project(tmp_path: Path, run_script: Any) -> None:
    """D55: from any folder, without git files, caches, data, runs, README and LICENSE."""
    result = run_script("new_project.py", "Mine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    project = tmp_path / "Mine"
    names = {path.name for path in project.iterdir()}
    assert {"train.py", "test.py", "parse_config.py", "config.json", "config.schema.json", "base",
            "data_loader", "model", "trainer", "logger", "utils", "tests", "data", "saved",
            "requirements.txt", "pyproject.toml"} <= names
    assert not names & {"README.md", "LICENSE", "new_project.py", "benchmarks"}
    assert not [name for name in names if name.startswith(".git")]
    assert not list(project.rglob("__pycache__"))
    assert [path.name for path in (project / "data").iterdir()] == [".gitignore"]
    assert [path.name for path in (project / "saved").iterdir()] == [".gitignore"]


def test_new_project_trains(tmp_path: Path, run_script: Any, tiny_mnist: Path) -> None:
    import subprocess
    import sys

    run_script("new_project.py", tmp_path / "Mine")
    result = subprocess.run(
        [sys.executable, "train.py", "-c", "config.json", "trainer.epochs=1", "--device", "cpu",
         f"data_loader.args.data_dir={tiny_mnist.as_posix()}"], cwd=tmp_path / "Mine",
        capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "finished 1 epochs" in result.stdout


@pytest.mark.parametrize("target", ["full", "file", ROOT / "inside"])
def test_refuses_politely_and_damages_nothing(tmp_path: Path, in_process: Callable[..., int],
                                              capsys: pytest.CaptureFixture[str],
                                              target: Any) -> None:
    """D55: a folder with something in it, a file, a folder of the template itself."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert in_process("new_project.py", tmp_path / target) == 2
    assert "error: " in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert not (ROOT / "inside").exists()
