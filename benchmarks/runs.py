"""What it costs to compare runs."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import extremes, rounds_of

ROOT = Path(__file__).resolve().parent.parent
RUNS, EPOCHS = 300, 100


def runs(rounds: int) -> dict[str, Any]:
    """(l) ``python -m tools.runs`` on 300 runs of 100 epochs, and what Python alone takes."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            models, log = (Path(folder) / kind / "Run" / str(number) for kind in ("models", "log"))
            models.mkdir(parents=True)
            log.mkdir(parents=True)
            config = {"name": "Run", "seed": number % 5, "optimizer": {"args": {"lr": number // 5}},
                      "trainer": {"monitor": "min val_loss"}}
            (models / "config.json").write_text(json.dumps(config))
            (models / "status.json").write_text(json.dumps({"state": "finished"}))
            (log / "history.jsonl").write_text("".join(
                json.dumps({"epoch": epoch, "step": epoch, "seconds": 1.0, "val_loss": 1 / epoch})
                + "\n" for epoch in range(1, EPOCHS + 1)))
        command = [sys.executable, "-m", "tools.runs", folder]
        times = rounds_of(rounds, {
            "listing": lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True),
            "python": lambda: subprocess.run([sys.executable, "-c", ""], check=True)})
    return {"of 300 runs, s": statistics.median(times["listing"]),
            "its lowest and highest round": extremes(times["listing"]),
            "python alone, s": statistics.median(times["python"])}
