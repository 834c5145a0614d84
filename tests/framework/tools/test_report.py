"""A page about runs: whole in one file, with everything that was found, whatever the names are."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.framework.commands.conftest import trained  # noqa: F401
from tests.framework.commands.files import log_dir, rows
from tools import report
from utils.errors import ConfigError, RunError


class Page(HTMLParser):
    """Texts, and the addresses that a browser would ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(*folders: Path) -> Page:
    return Page(report.page(folders))


def test_page_has_what_there_is_to_say_of_a_run(trained: Path) -> None:  # noqa: F811
    page = page_of(trained)
    text = " ".join(page.texts)
    for words in ("Toy", "finished", "Curves", "Last values", "val_accuracy", "data_loader.args",
                  "train.py", "torch", "History"):
        assert words in text
    assert f"{rows(trained)[-1]['val_loss']:.4g}" in text
    assert page.sources and all(one.startswith("data:image/png;base64,") for one in page.sources)
    assert "script" not in page.tags and "link" not in page.tags


def test_runs_stand_side_by_side_and_what_differs_is_marked(trained: Path) -> None:  # noqa: F811
    other = trained.with_name("other")
    shutil.copytree(trained, other)
    shutil.copytree(log_dir(trained), log_dir(other))
    config = json.loads((other / "config.json").read_text())
    config["optimizer"]["args"]["lr"] = 0.5
    (other / "config.json").write_text(json.dumps(config))
    text = report.page([trained, other])
    marked = re.findall(r'<tr class="other"><th>(.*?)</th>', text)
    assert "optimizer.args.lr" in marked and "data_loader.type" not in marked
    assert f"<th>{trained.name}</th><th>other</th>" in text


def test_names_and_values_are_text_and_nothing_else(trained: Path) -> None:  # noqa: F811
    attack = "<script>alert(1)</script><img src=x onerror=y>"
    config = json.loads((trained / "config.json").read_text())
    config[attack] = attack
    (trained / "config.json").write_text(json.dumps(config))
    history = log_dir(trained) / "history.jsonl"
    history.write_text(json.dumps({"epoch": 1, "step": 1, "seconds": 1, attack: 1.0}) + "\n")
    (trained / "status.json").write_text(json.dumps({"state": "failed", "reason": attack}))
    page = page_of(trained)
    assert "script" not in page.tags
    assert all(one.startswith("data:image/png;base64,") for one in page.sources)
    assert any(attack in text for text in page.texts)


def test_broken_run_has_a_page_that_says_so(trained: Path) -> None:  # noqa: F811
    (trained / "config.json").write_text("{")
    (log_dir(trained) / "history.jsonl").write_text('{"epoch": 1, "step": 2}\n{"epo')
    assert "config damaged" in " ".join(page_of(trained).texts)


def test_command_writes_the_page_into_the_run(trained: Path, tmp_path: Path,  # noqa: F811
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["report", *map(str, arguments)])
        report.main()

    run(tmp_path / "saved")
    assert (trained / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    shutil.copytree(trained, trained.with_name("other"))
    page = (trained / "report.html").read_bytes()
    run(trained, trained.with_name("other"))
    assert (trained / "comparison.html").is_file()
    assert (trained / "report.html").read_bytes() == page
    run(trained, "--out", tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()
    _refused(run, tmp_path, trained)


def _refused(run: Callable[..., None], tmp_path: Path, trained: Path) -> None:  # noqa: F811
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="there is no run"):
        run(tmp_path / "empty")
    with pytest.raises(ConfigError, match="expected a folder"):
        run(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="is a folder"):
        run(trained, "--out", tmp_path)


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which(
    "google-chrome")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_page_is_shown_by_a_browser(trained: Path, tmp_path: Path) -> None:  # noqa: F811
    """As it is, with pictures that have a size and without a word in its console."""
    page = tmp_path / "page.html"
    text = report.page([trained])
    check = ("<script>document.title = Array.from(document.images).map(one => "
             "one.naturalWidth > 300).join() + ' ' + document.querySelectorAll('tr').length"
             "</script></body>")
    page.write_text(text.replace("</body>", check), encoding="utf-8")
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'browser'}",
         "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    pictures, lines = title[1].split()
    assert set(pictures.split(",")) == {"true"} and int(lines) > 30
