"""Fixtures: MNIST's format with few images, the example's config for it, the real commands."""

import gzip
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.framework.conftest import ROOT, quiet_logging, two_threads

__all__ = ["quiet_logging", "two_threads"]


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
    """The example's config on the tiny data, writing below ``tmp_path``."""
    config = json.loads((ROOT / "config.json").read_text(encoding="utf-8"))
    config["n_gpu"] = 0
    config["data_loader"]["args"].update(data_dir=str(tiny_mnist), batch_size=32)
    config["trainer"].update(epochs=2, save_dir=str(tmp_path / "saved"))
    return config


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
        return 0
    return run
