"""The README says what is so."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.framework.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


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


def test_every_option_is_in_the_readme(in_process: Callable[..., int],
                                       capsys: pytest.CaptureFixture[str]) -> None:
    in_process("train.py", "--help")
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.split("options:")[1]))
    assert "--overfit" in shown
    # the README has the short forms of some
    short = {"--help", "--config", "--learning", "--batch"}
    assert [option for option in shown - short if option not in README] == []


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
