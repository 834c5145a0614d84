"""Rules about imports and devices that hold for all files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.conftest import ROOT

MAY_IMPORT = {
    "utils": {"utils"},
    "logger": {"logger", "utils"},
    "base": {"base", "logger", "utils"},
    "model": {"model", "base", "utils"},
    "data_loader": {"data_loader", "base", "utils"},
    "trainer": {"trainer", "base", "logger", "utils"},
    "parse_config": {"logger", "utils"},
    "tools": {"tools", "base", "logger", "utils"},
}
OURS = {*MAY_IMPORT, "train", "test", "new_project"}
KNOW_CUDA = {"utils/devices/device.py", "utils/devices/parallel.py",
             "utils/devices/processes.py", "utils/rng.py"}
FILES = sorted(path for top in MAY_IMPORT for path in (
    [ROOT / f"{top}.py"] if (ROOT / f"{top}.py").exists() else (ROOT / top).rglob("*.py")))
ALL_FILES = [*FILES, *(ROOT / name for name in ("train.py", "test.py", "new_project.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def docstrings_of(tree: ast.Module) -> set[int]:
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_layer_has_files() -> None:
    assert {name_of(path).split("/")[0].removesuffix(".py") for path in FILES} == {*MAY_IMPORT}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    layer = name_of(path).split("/")[0].removesuffix(".py")
    imported = {name.split(".")[0] for name in imports_of(tree_of(path))}
    assert imported & OURS <= MAY_IMPORT[layer]


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_imports_are_absolute_and_name_what_they_take(path: Path) -> None:
    tree = tree_of(path)
    assert not [name for name in imports_of(tree) if name.startswith(".")]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                and node.names[0].name == "*"]


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).split("/")[0] in (
    "base", "logger", "utils", "tools", "parse_config")], ids=name_of)
def test_framework_does_not_import_torchvision(path: Path) -> None:
    assert "torchvision" not in {name.split(".")[0] for name in imports_of(tree_of(path))}


@pytest.mark.parametrize("path", [path for path in ALL_FILES if name_of(path) not in KNOW_CUDA],
                         ids=name_of)
def test_device_is_passed_and_not_named(path: Path) -> None:
    tree = tree_of(path)
    docstrings = docstrings_of(tree)
    named = [node.lineno for node in ast.walk(tree)
             if isinstance(node, ast.Constant) and id(node) not in docstrings
             and str(node.value).split(":")[0] == "cuda"]
    used = [node.lineno for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "cuda"
            and not (isinstance(node.value, ast.Attribute) and node.value.attr == "version")]
    assert named + used == []


@pytest.mark.parametrize("module", ["utils", "logger", "parse_config"])
def test_light_modules_do_not_import_torch(module: str) -> None:
    assert not modules_after(f"import {module}") & {
        "torch", "numpy", "pandas", "tensorboard", "torchmetrics", "matplotlib"}


def test_importing_does_nothing_visible() -> None:
    code = ("import logging, os, random, torch; before = torch.get_rng_state(), random.getstate(), "
            "os.listdir(); "
            "import base, logger, utils, parse_config, train, tools.convert_checkpoint; "
            "assert torch.equal(before[0], torch.get_rng_state()); "
            "assert before[1:] == (random.getstate(), os.listdir()); "
            "assert not logging.getLogger().handlers")
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
