"""What a run notes of its command, its packages and its code."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.runs import environment as module
from utils.runs.environment import environment


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit that holds the module."""
    (tmp_path / "utils" / "runs").mkdir(parents=True)
    (tmp_path / "utils" / "runs" / "environment.py").write_text("")
    for command in (["init", "-q"], ["add", "."],
                    ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "utils" / "runs" / "environment.py"))
    return tmp_path


def test_facts_are_plain_values() -> None:
    facts = environment("train.py -c config.json")
    assert json.loads(json.dumps(facts)) == facts


def test_command_and_versions_are_there() -> None:
    facts = environment("train.py -c 'a b.json'")
    assert facts["command"] == "train.py -c 'a b.json'"
    assert facts["packages"]["torch"] == torch.__version__ or (
        torch.__version__.startswith(facts["packages"]["torch"]))


def test_absent_package_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("no-such-package",))
    assert environment("x")["packages"] == {"no-such-package": None}


def test_commit_is_that_of_the_code_wherever_it_is_started(repository: Path,
                                                           tmp_path_factory: pytest.TempPathFactory,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True,
                          text=True, check=True).stdout.strip()
    assert environment("x")["git_commit"] == head


@pytest.mark.parametrize(("content", "is_dirty"), [("", False), ("changed", True)])
def test_dirty_tree_is_told(repository: Path, content: str, is_dirty: bool) -> None:
    (repository / "utils" / "runs" / "environment.py").write_text(content)
    assert environment("x")["git_is_dirty"] is is_dirty


def test_outside_a_repository_there_is_no_commit(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "utils").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "utils" / "runs" / "environment.py"))
    facts = environment("x")
    assert (facts["git_commit"], facts["git_is_dirty"]) == (None, None)


@pytest.mark.parametrize("error", [
    FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_git_that_does_not_work_is_no_error(monkeypatch: pytest.MonkeyPatch,
                                            error: Exception) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise error
    monkeypatch.setattr(subprocess, "run", run)
    assert environment("x")["git_commit"] is None
