"""What a run writes is shown by TensorBoard itself, in a browser."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which(
    "google-chrome")
WAIT_SECONDS = 60
RUN = "Mnist_LeNet/one"

pytestmark = [pytest.mark.browser, pytest.mark.slow,
              pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")]


def until(found: Callable[[], Any], what: str) -> Any:
    """What a function gives once it gives anything."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.2)
    return pytest.fail(f"there is no {what} after {WAIT_SECONDS} seconds")


@pytest.fixture
def address(tmp_path: Path, config_dict: dict[str, Any],
            in_process: Callable[..., int]) -> Iterator[str]:
    """Of TensorBoard, which shows a finished run, on a free port of this machine."""
    (tmp_path / "config.json").write_text(json.dumps(config_dict))
    assert in_process("train.py", "-c", tmp_path / "config.json", "--run-id", "one",
                      "trainer.log_graph=true") == 0
    assert in_process("test.py", "-r", tmp_path / "saved" / "models" / RUN) == 0
    said = tmp_path / "said.txt"
    with open(said, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "saved" / "log"),
             "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"],
            stdout=file, stderr=subprocess.STDOUT)
    try:
        yield until(lambda: re.search(r"http://127\.0\.0\.1:\d+/", said.read_text()),
                    "address of TensorBoard")[0]
    finally:
        process.terminate()
        process.wait(10)


def given(address: str, path: str, **query: str) -> Any:
    """What the page would be told."""
    with build_opener(ProxyHandler({})).open(f"{address}data/plugin/{path}?{urlencode(query)}",
                                             timeout=10) as answer:
        return json.load(answer)


def shown(address: str, folder: Path, tag: str) -> str:
    """The page, as a browser makes it, of the tags with that name."""
    return subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
         "--disable-background-networking", f"--user-data-dir={folder / 'browser'}",
         "--window-size=1600,3000", "--virtual-time-budget=30000", "--dump-dom",
         f"{address}?tagFilter={quote(tag, safe='')}"],
        capture_output=True, text=True, timeout=60, check=True).stdout


def test_scalars_images_histograms_curves_and_graph_of_a_run_are_found(
        address: str, tmp_path: Path) -> None:
    until(lambda: f"{RUN}/test" in given(address, "pr_curves/tags"), "curve")
    rows = [json.loads(line) for line in (
        tmp_path / "saved" / "log" / RUN / "history.jsonl").read_text().splitlines()]
    points = given(address, "scalars/scalars", run=RUN, tag="loss/valid")
    assert [[step, value] for _, step, value in points] == [
        [row["step"], pytest.approx(row["val_loss"], rel=1e-6)] for row in rows]
    assert "fc1.weight" in given(address, "histograms/tags")[RUN]
    assert {"input/train", "input/valid"} <= given(address, "images/tags")[RUN].keys()
    assert list(given(address, "images/tags")[f"{RUN}/test"]) == ["model_best-test/confusion"]
    assert len(given(address, "pr_curves/tags")[f"{RUN}/test"]) == 10
    assert given(address, "graphs/info")[RUN]["run_graph"]


@pytest.mark.parametrize(("kind", "tag", "content"), [
    ("scalar", "loss/valid", r"<line-chart"), ("image", "input/train", r'<img [^>]*src="data/'),
    ("histogram", "fc1.bias", r"<tb-histogram")])
def test_page_has_a_card_with_it(address: str, tmp_path: Path, kind: str, tag: str,
                                 content: str) -> None:
    card = re.compile(rf'<{kind}-card .*?title="{tag}".*?{content}', re.DOTALL)
    until(lambda: card.search(shown(address, tmp_path, tag)), f"{kind} card")
