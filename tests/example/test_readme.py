"""The README says what is so."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.framework.conftest import ROOT
from utils.config.settings import table
from utils.runs.checkpoint_file import read_checkpoint

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
def test_two_networks_of_the_readme_train_and_resume(tmp_path: Path, tiny_mnist: Path) -> None:
    project = tmp_path / "two"
    subprocess.run([sys.executable, ROOT / "new_project.py", project], check=True)
    text = next(text for kind, text in BLOCKS if kind == "python" and "critic" in text)
    (project / text.splitlines()[0].removeprefix("# ")).write_text(text)
    short = ["trainer.monitor=min critic_loss",
             f"data_loader.args.data_dir={tiny_mnist.as_posix()}"]
    for command in (["-c", "config.json", "trainer.epochs=1"],
                    ["--resume", "latest", "trainer.epochs=2"]):
        result = subprocess.run([sys.executable, "train.py", *command, *short], cwd=project,
                                capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stderr
    state = read_checkpoint(next(project.glob("saved/models/*/*/latest.pth")))
    assert {"critic", "critic_optimizer", "ema"} <= state["parts"].keys()


def test_job_lines_of_the_readme_start_the_run_and_go_on(tmp_path: Path,
                                                         in_process: Callable[..., int],
                                                         config_dict: dict[str, Any]) -> None:
    """The same line starts a run, goes on with it, and says that it is finished."""
    line = next(line for line in README.splitlines() if line.startswith("until python"))
    script, _, _, *arguments = shlex.split(line.partition("python ")[2].partition(";")[0])
    config = tmp_path / "config.json"
    for epochs in (1, 2, 2):
        config_dict["trainer"]["epochs"] = epochs
        config.write_text(json.dumps(config_dict))
        assert in_process(script, "-c", config, *arguments) == 0
    assert len(list(tmp_path.glob("saved/models/*/job7"))) == 1
