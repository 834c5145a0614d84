"""The pages in docs/ say what is so: each block is executed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from base import BaseDataLoader, InMemoryDataset
from base.data.inputs import read_rows
from logger.trackers import Tracker
from tests.framework.conftest import ROOT
from utils.config.settings import table

CONFIG, RECIPES, WATCH = ((ROOT / "docs" / name).read_text(encoding="utf-8")
                          for name in ("config.md", "recipes.md", "watch.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHORT = {"epochs": 2, "len_epoch": 3, "save_steps": None}


def sections(page: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The headings of a page with the blocks below them."""
    for part in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]:
        if blocks := BLOCK.findall(part):
            yield part.splitlines()[0], blocks


def merged(config: dict[str, Any], blocks: list[tuple[str, str]]) -> dict[str, Any]:
    """A config with what JSON blocks change of it."""
    for kind, text in blocks:
        for key, value in json.loads(text).items() if kind == "json" else ():
            if isinstance(value, dict) and "type" not in value and key == "trainer":
                value = config[key] | value
            config[key] = value
    return config


def run(project: Path, *arguments: str) -> None:
    result = subprocess.run([sys.executable, *arguments], cwd=project, capture_output=True,
                            text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    run(tmp_path, str(ROOT / "new_project.py"), "Mine")
    return tmp_path / "Mine"


@pytest.mark.slow
@pytest.mark.parametrize(("heading", "blocks"), list(sections(RECIPES)), ids=lambda item: (
    item if isinstance(item, str) else ""))
def test_recipe_trains_and_is_tested(
        project: Path, tiny_mnist: Path, heading: str, blocks: list[tuple[str, str]]) -> None:
    shutil.rmtree(project / "data")
    shutil.copytree(tiny_mnist, project / "data")
    config = json.loads((project / "config.json").read_text())
    config = merged(config, blocks)
    config["trainer"] |= SHORT
    config["data_loader"]["args"]["batch_size"] = 16
    (project / "config.json").write_text(json.dumps(config))
    init = []
    if any("--init-from" in text for _, text in blocks):
        plain = {"freeze": [], "optimizer": {"type": "SGD"}, "name": "before"}
        (project / "before.json").write_text(json.dumps(config | plain))
        run(project, "train.py", "-c", "before.json")
        init = ["--init-from", str(next(project.glob("saved/models/before/*")))]
    for kind, text in blocks:
        if kind == "python":
            (project / text.splitlines()[0].removeprefix("# ")).write_text(text)
    run(project, "train.py", "-c", "config.json", *init)
    run(project, "test.py", "--resume", "latest")


@pytest.mark.parametrize(("heading", "blocks"), [
    (heading, blocks) for heading, blocks in sections(CONFIG)
    if heading not in ("Sections", "Changing it")], ids=lambda item: (
        item if isinstance(item, str) else ""))
def test_config_of_the_page_works(tmp_path: Path, config_dict: dict[str, Any],
                                  in_process: Callable[..., int], heading: str,
                                  blocks: list[tuple[str, str]]) -> None:
    for block in blocks:
        (tmp_path / "page.json").write_text(json.dumps(merged(config_dict | {}, [block])))
        config_dict.pop("lr_scheduler", None)
        assert in_process("train.py", "-c", tmp_path / "page.json", "--dry-run") == 0


def test_nested_schedule_of_the_page_works(tmp_path: Path, config_dict: dict[str, Any],
                                           in_process: Callable[..., int]) -> None:
    blocks = dict(sections(CONFIG))["Sections"]
    (tmp_path / "page.json").write_text(json.dumps(merged(config_dict, blocks[1:])))
    assert in_process("train.py", "-c", tmp_path / "page.json", "--dry-run") == 0


def test_table_of_keys_equals_the_code() -> None:
    rows = [line for line in CONFIG.splitlines() if line.startswith("| `") and line.count("|") >= 5]
    assert rows == ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                    for row in table()]


@pytest.mark.parametrize("line", dict(sections(CONFIG))["Changing it"][0][1].splitlines())
def test_overrides_of_the_page_work(in_process: Callable[..., int], line: str) -> None:
    _, script, *arguments = shlex.split(line)
    assert in_process(script, *arguments, "--dry-run") == 0


def test_config_with_a_base_works(tmp_path: Path, in_process: Callable[..., int],
                                  capsys: pytest.CaptureFixture[str]) -> None:
    text = dict(sections(CONFIG))["Changing it"][1][1]
    config = json.loads(text) | {"base": str(ROOT / "config.json")}
    (tmp_path / "small.json").write_text(json.dumps(config))
    assert in_process("train.py", "-c", tmp_path / "small.json", "--dry-run") == 0
    assert '"momentum": 0.9' in capsys.readouterr().out


def test_links_of_all_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"),
                 *(ROOT / "examples").glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_tracker_of_the_page_sends_what_a_run_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the service, as far as the page uses it."""
    block = next(text for kind, text in BLOCK.findall(WATCH) if "class Mlflow" in text)
    said: list[Any] = []

    class Service:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: said.append((name, args, kwargs))

        def search_runs(self, filter_string: str) -> list[Any]:
            return []

    monkeypatch.setitem(sys.modules, "mlflow", Service())
    names: dict[str, Any] = {"Tracker": Tracker}
    exec(block, names)
    tracker = names["Mlflow"]()
    tracker.start({"seed": 1}, name="Toy", run_id="first", folder=Path())
    tracker.scalars({"val_loss": 0.5}, 10)
    tracker.images("input/train", None, 10)
    tracker.close("finished")
    assert [name for name, _, _ in said] == ["set_tracking_uri", "set_experiment", "start_run",
                                             "log_dict", "log_metrics", "end_run"]
    assert said[2][2] == {"run_name": "first"} and said[4][2] == {"step": 10}


def test_inputs_of_the_page_are_read(tmp_path: Path) -> None:
    block = next(text for kind, text in BLOCK.findall(WATCH) if "def inputs_of" in text)
    names: dict[str, Any] = {"Any": Any, "InMemoryDataset": InMemoryDataset, "Path": Path,
                             "np": np, "read_rows": read_rows}
    exec(textwrap.dedent(block), names)
    (tmp_path / "rows.csv").write_text("1,2,3,4\n5,6,7,8.5\n")
    dataset, rows = names["inputs_of"](None, tmp_path / "rows.csv")
    assert rows == ["0", "1"]
    assert next(iter(BaseDataLoader(dataset, 2)))[0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8.5]]


def test_pictures_of_the_pages_are_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            picture = page.parent / name
            assert picture.read_bytes().startswith(b"\x89PNG") and (
                picture.stat().st_size < 150_000), name
