"""requirements.txt names what the project imports, and nothing slow is imported in the loop."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.framework.conftest import ROOT

OWN = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
# brought by another of the list: pydantic brings its core, torchvision its reader of images
BROUGHT = {"pydantic_core", "PIL"}


def imported(*folders: str) -> set[str]:
    """Top-level names that the files below the folders import."""
    names = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py") if folder else ROOT.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    return names - OWN - set(sys.stdlib_module_names) - BROUGHT


def required(name: str) -> set[str]:
    text = (ROOT / name).read_text(encoding="utf-8").replace("scikit-learn", "sklearn")
    return set(re.findall(r"^([A-Za-z0-9_-]+)>=[0-9.]+$", text, re.MULTILINE))


def test_what_the_project_imports_is_required() -> None:
    names = imported("", "base", "data_loader", "logger", "model", "tools", "trainer", "utils")
    assert {"torch", "numpy", "tqdm", "pydantic"} <= names
    assert names - {"tensorboardX"} <= required("requirements.txt")


def test_what_the_tests_import_is_required() -> None:
    assert imported("tests") <= required("requirements.txt") | required("requirements-dev.txt")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["pandas", "matplotlib", "torchvision", "torchmetrics"])
def test_training_does_not_import_what_it_does_not_use(package: str, tmp_path: Path,
                                                       toy_project: Path) -> None:
    """Nobody needs a package, or a working one, whose names are not in the config."""
    code = ("import runpy, sys\n"
            f"sys.modules[{package!r}] = None\n"
            "sys.argv = ['train.py', '-c', 'config.json', 'trainer.epochs=1', "
            f"'trainer.tensorboard=false', 'trainer.save_dir={tmp_path.as_posix()}']\n"
            "runpy.run_path('train.py', run_name='__main__')\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=toy_project, capture_output=True,
                            text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "finished 1 epoch," in result.stdout
