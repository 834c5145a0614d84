"""SIGKILL at any moment costs nothing but the work since the last save."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.framework.conftest import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """Every kill, many of them inside a save, leaves a checkpoint that loads."""
    result = subprocess.run([sys.executable, "-m", "tests.framework.kill_loop", str(tmp_path),
                             "60", "5"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout.splitlines()[-1])
    assert counts["killed"] >= 50
    assert counts["in_save"] > counts["killed"] / 4
    assert counts["equal"] == counts["rounds"]
