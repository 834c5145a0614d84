"""Fixtures: the toy project with its config, and the real commands on it."""

import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.framework.toy.data_loader.data_loaders
import tests.framework.toy.model.loss
import tests.framework.toy.model.metric
import tests.framework.toy.model.model
import tests.framework.toy.trainer  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / "toy"
FRAMEWORK = ("train.py", "test.py", "parse_config.py", "base", "logger", "utils", "tools")
OWN = ("model", "data_loader", "trainer")  # a project's, replaced by the toy's
TOY_MODULES = {name.removeprefix("tests.framework.toy."): module
               for name, module in sys.modules.items() if name.startswith("tests.framework.toy.")}


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(autouse=True)
def quiet_logging() -> Iterator[None]:
    """Handlers that a test has set up do not reach the next one."""
    yield
    for handler in list(logging.getLogger().handlers):
        if not type(handler).__module__.startswith("_pytest"):
            logging.getLogger().removeHandler(handler)
            handler.close()


@pytest.fixture
def config_dict(tmp_path: Path) -> dict[str, Any]:
    """The toy's config, writing below ``tmp_path``."""
    config = json.loads((TOY / "config.json").read_text(encoding="utf-8"))
    config["trainer"]["save_dir"] = str(tmp_path / "saved")
    return config


@pytest.fixture
def config_file(tmp_path: Path, config_dict: dict[str, Any]) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_dict, indent=4), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def toy_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the framework and the toy, as a user would have it."""
    folder = tmp_path_factory.mktemp("toy") / "project"
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in FRAMEWORK:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"ignore": ignore} if copy is shutil.copytree else {}))
    for name in OWN:
        shutil.copytree(TOY / name, folder / name, ignore=ignore)
    init = folder / "trainer" / "__init__.py"
    init.write_text(init.read_text().replace("tests.framework.toy.", ""))
    shutil.copy(TOY / "config.json", folder)
    return folder


@pytest.fixture
def run_script(toy_project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of the toy project: ``run_script("train.py", "-c", path)``."""
    def run(*arguments: Any, cwd: Path = toy_project, timeout: float = 120,
            **environment: str) -> subprocess.CompletedProcess[str]:
        script, *rest = map(str, arguments)
        command = [sys.executable, "-X", "faulthandler", str(toy_project / script), *rest]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a script as a command would, in this process, on the toy; returns its exit status."""
    def run(script: str, *arguments: Any) -> int:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        for name, module in TOY_MODULES.items():
            monkeypatch.setitem(sys.modules, name, module)
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0
    return run
