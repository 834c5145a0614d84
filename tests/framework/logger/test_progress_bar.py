"""The bar on a terminal of 80 columns: whole, with what one wants to know."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from logger.progress_bar import ProgressBar, write_above
from tests.framework.conftest import ROOT

pty = pytest.importorskip("pty")
BAR = """
import time
from logger.progress_bar import ProgressBar
bar = ProgressBar()
bar.open("epoch 12", {total}, done={done})
bar.show("loss 0.1234  123456 samples/s")
for _ in range(3):
    time.sleep(0.15)
    bar.update()
bar.close()
"""


def on_a_terminal(code: str, folder: Path = ROOT) -> str:
    """What a program writes to a pseudo-terminal of 80 columns."""
    import fcntl
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=follower,
                               stderr=follower)
    os.close(follower)
    written = b""
    while True:
        try:
            written += (part := os.read(leader, 65536))
        except OSError:  # how Linux tells the end
            break
        if not part:
            break
    os.close(leader)
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_bar_at_80_columns_has_loss_rate_bar_and_the_time_left_in_one_line() -> None:
    lines = on_a_terminal(BAR.format(total=10, done=4)).split("\r")
    assert all(len(line) <= 80 for line in lines)
    shown = [line for line in lines if "loss" in line]
    whole = (r"epoch 12  loss 0\.1234  123456 samples/s \|[\u2588-\u258f ]{20,}\| +\d+% "
             r"\d\d:\d\d left *")
    assert shown and all(re.fullmatch(whole, line) for line in shown)


def test_without_a_total_the_bar_counts_batches() -> None:
    shown = on_a_terminal(BAR.format(total=None, done=4)).split("\r")
    assert any(re.match(r"epoch 12  loss .*samples/s  \d+ batches  00:0\d", line) for line in shown)


def test_bar_leaves_nothing_behind() -> None:
    last = on_a_terminal(BAR.format(total=10, done=0)).split("\r")[-2]
    assert last.strip() == ""


def test_there_is_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    bar.open("epoch 1", total=2)
    bar.update()
    bar.show("loss 1")
    assert not write_above("text", sys.stdout)
    bar.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_validation_of_a_run_has_a_whole_bar_below_that_of_training(tmp_path: Path) -> None:
    code = ("from pathlib import Path; from tests.framework.tiny_run import train; "
            f"train(Path({str(tmp_path)!r}), verbosity=2, epochs=1)")
    lines = re.split("[\r\n]|\x1b\\[A", on_a_terminal(code))
    bars = [line for line in lines if "|" in line]
    assert any(line.startswith("validation |") for line in bars)
    assert all(len(line) <= 80 and re.search(r"%.* left *$", line) for line in bars)
    assert "%" not in "".join(lines[-3:])
