"""Fixtures: tiny data in MNIST's format, configs for it, and the real commands."""

import gzip
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils import run_lock

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def quiet_logging() -> Iterator[None]:
    """Handlers that a test has set up do not reach the next one."""
    yield
    for handler in list(logging.getLogger().handlers):
        if not type(handler).__module__.startswith("_pytest"):
            logging.getLogger().removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session")
def tiny_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 200 training and 60 test images that a small model can learn."""
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.RandomState(1)
    for part, count in (("train", 200), ("t10k", 60)):
        labels = random.randint(0, 10, count).astype(np.uint8)
        images = random.randint(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 + 2 * label:6 + 2 * label] += 180
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            packed = gzip.compress(head + values.tobytes(), 1)
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
    return folder


@pytest.fixture
def config_dict(tmp_path: Path, tiny_mnist: Path) -> dict[str, Any]:
    """The example config, on the tiny data, for two short epochs, writing below ``tmp_path``."""
    config = json.loads((ROOT / "config.json").read_text(encoding="utf-8"))
    config["n_gpu"] = 0
    config["optimizer"]["args"]["lr"] = 0.002
    config["data_loader"]["args"].update(data_dir=str(tiny_mnist), batch_size=20, num_workers=0)
    config["trainer"].update(epochs=2, save_dir=str(tmp_path / "saved"))
    return config


@pytest.fixture
def config_file(tmp_path: Path, config_dict: dict[str, Any]) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_dict, indent=4), encoding="utf-8")
    return path


@pytest.fixture
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of the project: ``run_script("train.py", "-c", path)``."""
    def run(*arguments: Any, cwd: Path = ROOT, timeout: float = 120,
            **environment: str) -> subprocess.CompletedProcess[str]:
        script, *rest = map(str, arguments)
        command = [sys.executable, "-X", "faulthandler", str(ROOT / script), *rest]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a script as a command would, in this process; returns its exit status."""
    def run(script: str, *arguments: Any) -> int:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            for _, folder in list(run_lock._held):
                run_lock.unlock_folder(folder)
        return 0
    return run
