"""The README says what is so."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.settings import table

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def lines_of(section: str) -> list[str]:
    """Command lines in the section's code blocks."""
    text = README.split(f"{section}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


def test_table_of_keys_equals_the_code() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `") and line.count("|") == 5]
    assert rows == ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                    for row in table()]


def test_example_config_equals_the_shipped_one() -> None:
    shown = json.loads(next(text for kind, text in BLOCKS if kind == "json"))
    shipped = json.loads((ROOT / "config.json").read_text())
    for key, value in shown.items():
        if key == "trainer":
            assert value.items() <= shipped["trainer"].items()
        else:
            assert value == shipped[key]


def test_json_blocks_are_json() -> None:
    for kind, text in BLOCKS:
        if kind == "json":
            json.loads(text)


@pytest.mark.parametrize("line", lines_of("### Changing it"))
def test_overrides_of_the_readme_work(in_process: Callable[..., int], line: str) -> None:
    _, script, *arguments = shlex.split(line)
    assert in_process(script, *arguments, "--dry-run") == 0


def test_based_config_of_the_readme_works(tmp_path: Path, in_process: Callable[..., int],
                                          capsys: pytest.CaptureFixture[str]) -> None:
    text = next(text for kind, text in BLOCKS if kind == "json" and '"base"' in text)
    config = json.loads(text) | {"base": str(ROOT / "config.json")}
    (tmp_path / "small.json").write_text(json.dumps(config))
    assert in_process("train.py", "-c", tmp_path / "small.json", "--dry-run") == 0
    assert '"momentum": 0.9' in capsys.readouterr().out


def test_every_option_is_in_the_readme(in_process: Callable[..., int],
                                       capsys: pytest.CaptureFixture[str]) -> None:
    in_process("train.py", "--help")
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.split("options:")[1]))
    assert "--overfit" in shown
    # the README has the short forms of some
    short = {"--help", "--config", "--learning", "--batch"}
    assert [option for option in shown - short if option not in README] == []


@pytest.mark.slow
def test_own_task_of_the_readme_trains(tmp_path: Path) -> None:
    """All examples together in a new project, by the real commands."""
    project = tmp_path / "points"
    run = {"cwd": project, "capture_output": True, "text": True, "timeout": 120}
    subprocess.run([sys.executable, ROOT / "new_project.py", project], check=True)
    for kind, text in BLOCKS:
        if kind == "python":
            (project / text.splitlines()[0].removeprefix("# ")).write_text(text)
    config = next(text for kind, text in BLOCKS if kind == "json" and "PointsModel" in text)
    (project / "points.json").write_text(config)
    train = subprocess.run([sys.executable, "train.py", "-c", "points.json"], **run)
    assert train.returncode == 0, train.stderr
    assert "gradient_norm" in train.stdout
    test = subprocess.run([sys.executable, "test.py", "--resume", "latest"], **run)
    assert test.returncode == 0, test.stderr
    assert "mean_error" in test.stdout
