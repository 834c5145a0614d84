"""``python -m benchmarks``: ratios to a bare loop, measured in interleaved rounds of one run."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks import data, gpu, measures, processes, runs
from utils.config.json_file import write_json

MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "epoch": measures.epoch,
    "step": measures.step,
    "images": data.images,
    "tokens": data.tokens,
    "gpt": data.gpt,
    "gpu": gpu.gpu,
    "processes": processes.processes,
    "start": measures.start,
    "memory": measures.memory,
    "loader": data.loader,
    "save": measures.save,
    "runs": runs.runs,
    "tensorboard": measures.tensorboard,
    "accuracy": measures.accuracy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the template against a bare loop.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MEASURES)}; default all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[123],
                        help="of the runs that accuracy makes (default 123)")
    parser.add_argument("--out", type=Path, default=Path("saved/benchmarks.json"))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MEASURES)
    if unknown or arguments.rounds < 1:
        parser.error(f"expected names of {', '.join(MEASURES)} and at least one round")
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    results: dict[str, Any] = {
        "date": date.today().isoformat(), "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None}
    started = time.monotonic()
    for name in arguments.names or MEASURES:
        options = {"seeds": arguments.seeds} if name == "accuracy" else {}
        results[name] = MEASURES[name](arguments.rounds, **options)
        for key, value in results[name].items():
            text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
            print(f"{name:<11} {key:<44} {text}", flush=True)
    results["minutes"] = (time.monotonic() - started) / 60
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(results, arguments.out)
    print(f"{results['minutes']:.1f} minutes, written to {arguments.out}")


if __name__ == "__main__":
    main()
