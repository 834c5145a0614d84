"""Fixtures: a run that is there, and what is trained on."""

from pathlib import Path
from typing import Any

import pytest

from tests.framework.commands.files import Run, runs
from tests.framework.toy.trainer import Trainer


@pytest.fixture
def trained(tmp_path: Path, config_file: Path, in_process: Run) -> Path:
    """Folder of a run of two epochs."""
    assert in_process("train.py", "-c", config_file) == 0
    return runs(tmp_path)[0]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the index of each batch that is trained on."""
    seen: list[int] = []
    step = Trainer._train_step

    def noting(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch_idx)
        return step(self, batch, batch_idx)
    monkeypatch.setattr(Trainer, "_train_step", noting)
    return seen
