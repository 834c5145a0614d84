"""What is measured; each function takes a number of rounds and returns named numbers."""

import functools
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base.checkpoint.saver import Saver
from benchmarks.bare import BareLoop, plain_trainer, tiny_steps
from benchmarks.timing import (
    epochs_of,
    extremes,
    in_turns,
    noise,
    ratios_of,
    rounds_of,
    seconds,
)
from data_loader.data_loaders import MnistDataLoader
from model.metric import accuracy as accuracy_metric
from model.metric import top_k_acc
from model.model import MnistModel
from parse_config import ConfigParser
from train import MODULES, build
from trainer import Trainer
from utils.config.merging import read_config
from utils.runs.checkpoint_file import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
STEPS = 5000
EPOCHS_TO_99 = 25
# the classic template has 99% after 21 epochs, each at 2.8 epochs of the contiguous bare loop
CLASSIC_EPOCHS = 21 * 2.8
CLASSIC_BATCH_SIZE, CLASSIC_LR = 128, 0.001
# importing torch, and what torch imports at an optimizer's first step
BARE_STEP = ("import torch; model = torch.nn.Linear(2, 2)\n"
             "model(torch.zeros(1, 2)).sum().backward()\n"
             "torch.optim.Adam(model.parameters()).step()")


def example_trainer(folder: str, **settings: Any) -> Trainer:
    """The trainer of config.json, as train.py builds it, with some settings changed."""
    given = read_config(ROOT / "config.json")
    given["trainer"].update(save_dir=folder, epochs=10000, early_stop=0, **settings)
    given["data_loader"]["args"]["data_dir"] = str(DATA)
    given["n_gpu"] = 0
    return build(ConfigParser(given, modules=MODULES))


def example_options() -> tuple[int, dict[str, Any]]:
    """Batch size and optimizer arguments of config.json, for a bare loop that does the same."""
    config = read_config(ROOT / "config.json")
    return config["data_loader"]["args"]["batch_size"], config["optimizer"]["args"]


def epoch(rounds: int) -> dict[str, Any]:
    """(a) An epoch of config.json with metrics, TensorBoard, bar and checkpoint."""
    batch_size, options = example_options()
    loops = {"bare": BareLoop(DATA, batch_size, channels_last=True, **options),
             "contiguous": BareLoop(DATA, batch_size, channels_last=False,
                                    **options | {"fused": False}),
             "classic": BareLoop(DATA, CLASSIC_BATCH_SIZE, channels_last=False, lr=CLASSIC_LR,
                                 amsgrad=True)}
    with tempfile.TemporaryDirectory() as folder:
        times = in_turns(rounds, example_trainer(folder), 20,
                         {name: loop.steps for name, loop in loops.items()})
    ratios = {name: ratios_of(times["template"], times[name]) for name in loops}
    return {"bare loop, s": statistics.median(times["bare"]),
            "contiguous bare loop, s": statistics.median(times["contiguous"]),
            "contiguous bare loop of the classic recipe, s": statistics.median(times["classic"]),
            "template, everything on, s": statistics.median(times["template"]),
            "ratio to bare": statistics.median(ratios["bare"]),
            "its lowest and highest round": extremes(ratios["bare"]),
            "ratio to contiguous": statistics.median(ratios["contiguous"]),
            "ratio to the classic recipe's": statistics.median(ratios["classic"]),
            "noise of the bare loop": noise(times["bare"])}


def tensorboard(rounds: int) -> dict[str, Any]:
    """(m) What TensorBoard costs of an epoch of config.json, with the defaults.

    Two trainers with it stand between two without, for the place in the order makes 1% alone.
    """
    order = ("without", "with", "with again", "without again")
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: example_trainer(folder, tensorboard="without" not in name)
                    for name in order}
        model = nn.Linear(1, 1)  # only says whose turn it is
        turns = plain_trainer(folder, model, nn.functional.mse_loss, torch.optim.SGD(
            model.parameters(), lr=0.0), [(torch.ones(1, 1), torch.ones(1, 1))] * len(
                trainers["with"].data_loader), [], tensorboard=False)
        times = in_turns(rounds, turns, 20, {
            name: epochs_of(trainer) for name, trainer in trainers.items()})
        for trainer in trainers.values():
            trainer.writer.close()
    on, off = ([one + other for one, other in zip(times[name], times[f"{name} again"], strict=True)]
               for name in ("with", "without"))
    ratios = ratios_of(on, off)
    return {"epoch with TensorBoard, s": statistics.median(on) / 2,
            "epoch without, s": statistics.median(off) / 2,
            "ratio of with to without": statistics.median(ratios),
            "its lowest and highest round": extremes(ratios),
            "noise of an epoch without": noise([*times["without"], *times["without again"]])}


def step(rounds: int) -> dict[str, Any]:
    """(b) Microseconds per step over the bare loop, one Linear(8, 8), 5,000 ready batches."""
    generator = torch.Generator().manual_seed(1)
    batches = [(torch.randn(16, 8, generator=generator),
                torch.randint(0, 8, (16,), generator=generator)) for _ in range(STEPS)]

    def over_bare(metrics: list[Any], **settings: Any) -> tuple[list[float], list[float]]:
        model = nn.Linear(8, 8)
        with tempfile.TemporaryDirectory() as folder:
            trainer = plain_trainer(folder, model, nn.functional.cross_entropy, torch.optim.SGD(
                model.parameters(), lr=0.01), batches, metrics, **settings)
            # short epochs: twice the rounds cost seconds only
            times = in_turns(2 * rounds, trainer, 100,
                             {"bare": lambda: tiny_steps(batches, metrics)})
        bare = [taken / STEPS * 1e6 for taken in times["bare"]]
        return [ours / STEPS * 1e6 - own for ours, own in zip(
            times["template"], bare, strict=True)], bare

    full, bare = over_bare([accuracy_metric, top_k_acc])
    plain, bare_plain = over_bare([], tensorboard=False)
    return {"bare step with two metrics, us": statistics.median(bare),
            "over it with logging, us": statistics.median(full),
            "its lowest and highest round": [round(end(full), 1) for end in (min, max)],
            "bare step without metrics, us": statistics.median(bare_plain),
            "over that with metrics off, us": statistics.median(plain),
            "off, lowest and highest round": [round(end(plain), 1) for end in (min, max)],
            "noise of the bare loop": noise(bare)}


def start(rounds: int) -> dict[str, Any]:
    """(c) Seconds from the command to the first optimizer step, against importing torch."""
    commands = {
        "import torch": ["-c", "import torch"],
        "bare step": ["-c", BARE_STEP],
        "help": ["train.py", "--help"],
        "first step": ["-m", "benchmarks.first_step"],
    }
    times = rounds_of(rounds, {name: functools.partial(
        subprocess.run, [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        for name, arguments in commands.items()})
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    reading = seconds(lambda: MnistDataLoader(str(DATA), 64))
    return {"--help, s": medians["help"], "import torch, s": medians["import torch"],
            "a bare script's first step, s": medians["bare step"],
            "reading the data, s": reading, "command to first step, s": medians["first step"],
            "ratio of (first step - reading) to import torch": (
                medians["first step"] - reading) / medians["import torch"],
            "ratio of (first step - reading) to the bare script": (
                medians["first step"] - reading) / medians["bare step"],
            "noise of import torch": noise(times["import torch"])}


def memory(rounds: int) -> dict[str, Any]:
    """(d) Peak memory of a process that trains one epoch, and growth over 200 tiny epochs."""
    def peak(code: str) -> float:
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True,
                                capture_output=True, text=True)
        return float(result.stdout.split()[-1])

    # not ru_maxrss, which a child has from its parent
    show = ("\nimport re; print(int(re.search('VmHWM: +([0-9]+)',"
            "open('/proc/self/status').read().replace('\\t', ' '))[1]) / 1024)")
    batch_size, options = example_options()
    bare = ("from pathlib import Path; from benchmarks.bare import *; torch.set_num_threads(2)\n"
            f"BareLoop(Path('data'), {batch_size}, channels_last=True, **{options}).epoch()" + show)
    peaks: dict[str, list[float]] = {"bare loop": [], "template": []}
    with tempfile.TemporaryDirectory() as folder:
        command = ["train.py", "-c", "config.json", "trainer.epochs=1",
                   f"trainer.save_dir={folder}"]
        ours = (f"import runpy, sys, torch; torch.set_num_threads(2); sys.argv = {command}\n"
                "runpy.run_path('train.py', run_name='__main__')" + show)
        for _ in range(rounds):
            peaks["bare loop"].append(peak(bare))
            peaks["template"].append(peak(ours))
    medians = {f"{name}, MB": statistics.median(values) for name, values in peaks.items()}
    growth = subprocess.run([sys.executable, "-m", "benchmarks.growth"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split()
    return {**medians, "difference, MB": medians["template, MB"] - medians["bare loop, MB"],
            "growth per epoch, KB": float(growth[-1])}


def save(rounds: int) -> dict[str, Any]:
    """(f) Seconds for which saving 100 million parameters (400 MB) stops training."""
    state = {"state_dict": {str(i): torch.randn(10_000_000) for i in range(10)}}
    with tempfile.TemporaryDirectory() as folder:
        waiting = Saver(lambda: Path(folder))
        background = Saver(lambda: Path(folder), async_save=True)
        finite = [("state_dict", key) for key in state["state_dict"]]
        buffers = {key: torch.empty_like(value) for key, value in state["state_dict"].items()}

        def copy() -> None:
            for key, value in state["state_dict"].items():
                buffers[key].copy_(value)

        def behind() -> float:
            taken = seconds(lambda: background.save_latest(state, finite))
            background.wait()
            return taken

        times: dict[str, list[float]] = {"copy": [], "waiting": [], "background": []}
        for index in range(rounds + 1):
            taken = {"copy": seconds(copy), "background": behind(),
                     "waiting": seconds(lambda: waiting.save_latest(state, finite))}
            for name, value in taken.items():
                times[name] += [value] if index else []
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"copy to host memory, s": medians["copy"],
            "async_save stops training, s": medians["background"],
            "plain save stops training, s": medians["waiting"],
            "noise of the copy": noise(times["copy"])}


def accuracy(rounds: int, seeds: Sequence[int] = (123,)) -> dict[str, Any]:
    """(g) Seconds, from the command on, until config.json's model has 99% on the test set."""
    bare = BareLoop(DATA, CLASSIC_BATCH_SIZE, channels_last=False, lr=CLASSIC_LR, amsgrad=True)
    bare_epoch = statistics.median(rounds_of(rounds, {"bare": bare.epoch})["bare"])
    test_set = list(MnistDataLoader(str(DATA), 1000, shuffle=False, training=False))
    model = MnistModel().to(memory_format=torch.channels_last).eval()

    def reaches_99(file: Path) -> bool:
        model.load_state_dict(read_checkpoint(file)["state_dict"])
        with torch.inference_mode():
            return sum((model(data).argmax(1) == target).sum().item()
                       for data, target in test_set) >= 9900

    epochs: list[int | None] = []
    taken: list[float] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            started = time.time()
            subprocess.run([sys.executable, "train.py", "-c", "config.json", f"seed={seed}",
                            "trainer.verbosity=0", f"trainer.epochs={EPOCHS_TO_99}",
                            f"trainer.save_dir={folder}"], cwd=ROOT, check=True,
                           capture_output=True)
            files = sorted(Path(folder).glob("models/*/*/checkpoint-epoch*.pth"),
                           key=lambda file: int(re.findall(r"[0-9]+", file.stem)[-1]))
            number = next((n for n, file in enumerate(files, 1) if reaches_99(file)), None)
            epochs.append(number)
            if number is not None:
                taken.append(files[number - 1].stat().st_mtime - started)
    return {"seeds": list(seeds), "epochs to 99% of the test set": epochs,
            "seconds to 99%": [round(value, 1) for value in taken],
            "classic template's, estimated": round(CLASSIC_EPOCHS * bare_epoch, 1),
            "the slowest seed's share of that": (
                max(taken) / (CLASSIC_EPOCHS * bare_epoch) if len(taken) == len(seeds) else None)}
