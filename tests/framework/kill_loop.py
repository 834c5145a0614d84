"""Kills runs at random moments and lets them go on; a process of its own, for it forks.

``python -m tests.framework.kill_loop FOLDER KILLS SEED`` prints what happened as JSON.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # what the first optimizer imports, so that no child has to

from base.checkpoint import saver
from tests.framework.tiny_run import final_state, history, same, train
from utils.runs.find_checkpoint import find_checkpoint
from utils.runs.folder import is_finished

RUN = Path("models/tiny/run")
PADDING = torch.zeros(3_000_000)  # makes a save take longer than a step


def run_child(folder: Path, pipe: int) -> None:
    """Trains or goes on, telling the pipe when a save begins (S) and ends (E)."""
    write = saver.write_checkpoint

    def telling(path: Path, state: dict[str, object]) -> None:
        os.write(pipe, b"S")
        write(path, state | {"padding": PADDING})
        os.write(pipe, b"E")

    saver.write_checkpoint = telling
    run = folder / RUN
    resume = find_checkpoint(run)[0] if any(run.glob("*.pth")) else None
    if resume is None and run.is_dir():  # killed before its first save
        run.rename(folder / f"early-{time.time_ns()}")
    train(folder, resume=resume, save_steps=1)


def attempt(folder: Path, seconds: float | None) -> tuple[bool, bool]:
    """One process, killed after ``seconds``; (whether it was killed, whether inside a save)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run_child(folder, writing)
        except BaseException as error:
            print(f"child failed: {error!r}", file=sys.stderr)
            os._exit(3)
        os._exit(0)
    os.close(writing)
    told, deadline = b"", time.monotonic() + (seconds or 60)
    while (left := deadline - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            news = os.read(reading, 100)
            if not news:
                break
            told += news
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    told += os.read(reading, 10000)
    os.close(reading)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run failed after a kill")
    return os.WIFSIGNALED(status), told.endswith(b"S")


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    moments = random.Random(seed)
    if os.fork() == 0:  # this process stays without threads, so that it can fork
        train(folder / "whole", save_steps=1)
        os._exit(0)
    os.wait()
    whole = folder / "whole" / RUN
    killed = in_save = rounds = equal = 0
    while killed < kills and rounds < 4 * kills:
        parts = folder / f"round-{rounds}"
        is_killed = True
        while is_killed:
            # the longer the more kills there were: a slow machine gets to the end as well
            seconds = moments.uniform(0.03, 0.25) * (1 + killed / kills)
            is_killed, is_in_save = attempt(parts, seconds)
            killed += is_killed
            in_save += is_killed and is_in_save
        run = parts / RUN
        states = [final_state(run), final_state(run, "model_best.pth")]
        for state in states:
            del state["padding"]
        rounds += 1
        equal += same(states, [final_state(whole), final_state(whole, "model_best.pth")]) and (
            history(run) == history(whole)) and is_finished(run)
    print(json.dumps({"killed": killed, "in_save": in_save, "rounds": rounds, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
