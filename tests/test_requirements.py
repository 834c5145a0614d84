"""requirements.txt names what the project imports, and nothing slow is imported in the loop."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

OWN = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
# brought by another of the list: pydantic brings its core
BROUGHT = {"pydantic_core"}


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
    text = (ROOT / name).read_text(encoding="utf-8")
    return set(re.findall(r"^([A-Za-z0-9_-]+)>=[0-9.]+$", text, re.MULTILINE))


def test_what_the_project_imports_is_required() -> None:
    """D7: a clean install runs everything."""
    names = imported("", "base", "data_loader", "logger", "model", "trainer", "utils")
    assert {"torch", "numpy", "tqdm", "pydantic"} <= names
    assert names - {"tensorboardX"} <= required("requirements.txt")


def test_what_the_tests_import_is_required() -> None:
    """D7: the same for the tests."""
    assert imported("tests") <= required("requirements.txt") | required("requirements-dev.txt")


@pytest.mark.parametrize("package", ["pandas", "matplotlib", "torchvision", "torchmetrics"])
def test_training_does_not_import_what_it_does_not_use(package: str, tmp_path, tiny_mnist) -> None:
    """D1, D2, D3: the table of metrics is no data frame; D8: nobody needs torchvision."""
    code = ("import runpy, sys\n"
            f"sys.modules[{package!r}] = None\n"
            f"sys.argv = ['train.py', '-c', 'config.json', 'trainer.epochs=1', '--device', 'cpu', "
            f"'trainer.tensorboard=false', 'trainer.save_dir={tmp_path.as_posix()}', "
            f"'data_loader.args.data_dir={tiny_mnist.as_posix()}']\n"
            "runpy.run_path('train.py', run_name='__main__')\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            timeout=120)
    assert result.returncode == 0, result.stderr
    assert "finished 1 epochs" in result.stdout
