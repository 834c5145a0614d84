"""The example data that is shipped, and the example config on it."""

import gzip
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.framework.conftest import ROOT

RAW = ROOT / "data" / "MNIST" / "raw"


def test_shipped_files_are_the_original_ones() -> None:
    digests = re.findall(r"^([0-9a-f]{32})  (\S+)$", (ROOT / "data" / "README.md").read_text(),
                         re.MULTILINE)
    assert len(digests) == 4
    for digest, name in digests:
        content = gzip.decompress((RAW / f"{name}.gz").read_bytes())
        assert hashlib.md5(content).hexdigest() == digest


@pytest.mark.slow
def test_example_learns_in_one_epoch(tmp_path: Path, in_process: Callable[..., int]) -> None:
    assert in_process("train.py", "-c", "config.json", "trainer.epochs=1",
                      f"trainer.save_dir={tmp_path.as_posix()}") == 0
    history = next(tmp_path.glob("log/Mnist_LeNet/*/history.jsonl"))
    assert json.loads(history.read_text())["val_accuracy"] > 0.95
