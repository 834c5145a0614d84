"""The worked examples: each starts a project that trains, is tested, and passes its own tests."""

import ast
import re
import shutil
from pathlib import Path

import pytest

from new_project import example_names
from tests.example.test_new_project import run
from tests.framework.conftest import ROOT

EXAMPLES = ROOT / "examples"
FRAMEWORK = ("base", "logger", "utils", "parse_config.py", "train.py", "test.py")
MOST_LINES = {"gan": 120, "gpt": 160, "segmentation": 110, "tabular": 70, "transfer": 100,
              "byol": 130}
SHORT = {"gpt": ["trainer.max_steps=4", "trainer.valid_steps=2"]}
PREPARE = {"transfer": ["-m", "data_loader.draw"]}


def num_lines(path: Path) -> int:
    """Lines of code, without blank ones, comments of their own and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, (ast.stmt, ast.expr, ast.arg, ast.excepthandler)) and not is_text:
            first = node.lineno
            last = node.end_lineno if not hasattr(node, "body") else first
            lines |= set(range(first, (last or first) + 1))
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)
             and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    for node in texts:
        lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_every_example_is_known_here() -> None:
    assert set(example_names()) == set(MOST_LINES)


@pytest.mark.parametrize("name", MOST_LINES)
def test_example_is_short_and_leaves_the_framework_alone(name: str) -> None:
    files = list((EXAMPLES / name).rglob("*.py"))
    assert sum(map(num_lines, files)) <= MOST_LINES[name]
    assert not [path for path in (EXAMPLES / name).iterdir() if path.name in FRAMEWORK]


@pytest.mark.parametrize("name", MOST_LINES)
def test_page_has_the_command_and_a_figure_that_was_measured(name: str) -> None:
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert f"python new_project.py ../{name} --example {name}" in page
    assert re.search(r"\d\.\d{2}", page.split("## Result")[1]) and "2 CPU cores" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", MOST_LINES)
def test_example_trains_is_tested_and_passes_the_projects_tests(tmp_path: Path, name: str) -> None:
    run(tmp_path, str(ROOT / "new_project.py"), name, "--example", name)
    project = tmp_path / name
    assert (project / "README.md").read_text(encoding="utf-8").startswith(f"# {name}\n")
    if name in PREPARE:
        run(project, *PREPARE[name])
    short = SHORT.get(name, ["trainer.epochs=1", "trainer.len_epoch=3"])
    run(project, "train.py", "-c", "config.json", *short)
    run(project, "test.py", "--resume", "latest")
    assert " passed" in run(project, "-m", "pytest", "-q")


@pytest.mark.slow
def test_weights_of_the_gpt_are_those_of_a_bare_loop(tmp_path: Path) -> None:
    run(tmp_path, str(ROOT / "new_project.py"), "gpt", "--example", "gpt")
    project = tmp_path / "gpt"
    run(project, "train.py", "-c", "config.json", "--run-id", "r", "trainer.max_steps=8",
        "trainer.valid_steps=5")
    latest = "saved/models/Gpt_Python/r/latest.pth"
    shutil.copy(Path(__file__).parent / "gpt_bare_loop.py", project)
    assert "equal: True" in run(project, "gpt_bare_loop.py", latest)
