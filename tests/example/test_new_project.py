"""A project that was started from the template, with the example and with tasks of its own."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.framework.conftest import ROOT

TASKS = Path(__file__).parent / "tasks"


def run(project: Path, *arguments: str) -> str:
    """Runs a command of the project, which must succeed; returns what it printed."""
    result = subprocess.run([sys.executable, *arguments], cwd=project, capture_output=True,
                            text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    run(tmp_path, str(ROOT / "new_project.py"), "Mine")
    return tmp_path / "Mine"


def test_copies_only_what_belongs_to_a_project(project: Path) -> None:
    names = {path.name for path in project.iterdir()}
    assert names == {
        "train.py", "test.py", "parse_config.py", "config.json", "config.schema.json", "base",
        "data_loader", "model", "trainer", "logger", "utils", "tools", "tests", "data", "docs",
        "Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml", ".flake8",
        ".gitignore", ".pre-commit-config.yaml", "README.md"}
    assert [path.name for path in (project / "tests").iterdir() if path.is_dir()] == ["project"]
    assert not list(project.rglob("__pycache__"))
    assert "MNIST" not in (project / ".gitignore").read_text()
    assert (project / "README.md").read_text().startswith("# Mine\n")


def test_first_command_that_is_printed_works_without_a_network(project: Path) -> None:
    """The example's data is there; nothing is downloaded."""
    assert len(list((project / "data" / "MNIST" / "raw").iterdir())) == 4
    assert "output: float32" in run(project, "train.py", "-c", "config.json", "--dry-run")


def test_makefile_names_only_what_is_there(project: Path) -> None:
    commands = re.findall(r"^\t(?!@)(.+)", (project / "Makefile").read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        for file in re.findall(r"[\w/]+\.py", command):
            assert (project / file).is_file()
        assert "benchmarks" not in command


@pytest.mark.slow
@pytest.mark.parametrize("task", ["example", "points", "image_folder", "text"])
def test_tests_of_a_project_pass_whatever_its_task(project: Path, task: str) -> None:
    if task == "points":
        put_points(project)
    elif task != "example":
        shutil.copytree(TASKS / task, project, dirs_exist_ok=True)
    if task == "image_folder":
        draw_images(project / "data" / "images")
    assert " passed" in run(project, "-m", "pytest", "-q")
    if task != "example":
        run(project, "train.py", "-c", "config.json")
        assert "samples" in run(project, "test.py", "--resume", "latest")


def put_points(project: Path) -> None:
    """The README's own task."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"),
                        re.MULTILINE | re.DOTALL)
    for kind, text in blocks:
        if kind == "python" and "critic" not in text:
            (project / text.splitlines()[0].removeprefix("# ")).write_text(text)
        if kind == "json" and "PointsModel" in text:
            (project / "config.json").write_text(text)


def draw_images(folder: Path) -> None:
    random = np.random.RandomState(1)
    for part, count in (("train", 8), ("test", 3)):
        for label in ("dark", "light"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.randint(0, 100, (12, 12, 3)) + 100 * (label == "light")
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / part / label / f"{number}.png")


@pytest.mark.parametrize("target", ["full", "file", ROOT / "inside"])
def test_refuses_politely_and_damages_nothing(tmp_path: Path, in_process: Callable[..., int],
                                              capsys: pytest.CaptureFixture[str],
                                              target: Any) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert in_process("new_project.py", tmp_path / target) == 2
    assert "error: " in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert not (ROOT / "inside").exists()
