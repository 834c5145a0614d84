"""What a run was made with: command, versions, the state of the code."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from utils.devices.processes import num_processes

PACKAGES = ("torch", "torchvision", "numpy", "torchmetrics")


def environment(command: str) -> dict[str, Any]:
    """Facts for the run's folder, as plain values.

    Args:
        command: the command line that started the run.
    """
    return {
        "command": command,
        "processes": num_processes(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_is_dirty": None if (status := _git("status", "--porcelain")) is None else bool(status),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of this code, or None outside a repository or without git."""
    try:
        result = subprocess.run(["git", *arguments], cwd=Path(__file__).resolve().parent.parent,
                                capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
