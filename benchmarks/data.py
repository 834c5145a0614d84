"""What reading data costs; each function takes a number of rounds and returns named numbers."""

import gzip
import importlib.util
import itertools
import json
import statistics
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from base import BaseDataLoader, InMemoryDataset
from benchmarks.bare import (
    FolderLoop,
    GptLoop,
    TokenLoop,
    next_token_loss,
    plain_trainer,
    small_network,
)
from benchmarks.timing import extremes, in_turns, noise, ratios_of, rounds_of
from data_loader.data_loaders import MnistDataLoader
from trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
DATA, EXAMPLES = ROOT / "data", ROOT / "examples"


class TokenTrainer(Trainer):
    @staticmethod
    def split_batch(batch: Any) -> tuple[Any, Any]:
        return batch[0], batch[0]


def images(rounds: int) -> dict[str, Any]:
    """(h) An epoch over a folder of images, read one by one by 2 workers."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    with tempfile.TemporaryDirectory() as folder:
        random = torch.Generator().manual_seed(1)
        for number in range(1000):
            place = Path(folder) / "images" / str(number % 10)
            place.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=random)
            transforms.functional.to_pil_image(pixels).save(place / f"{number}.png")
        dataset = ImageFolder(str(Path(folder) / "images"), transforms.Compose([
            transforms.RandomResizedCrop(64), transforms.RandomHorizontalFlip(),
            transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]))
        model = small_network()
        trainer = plain_trainer(folder, model, nn.functional.cross_entropy, torch.optim.SGD(
            model.parameters(), lr=0.01), BaseDataLoader(dataset, 32, shuffle=True, num_workers=2),
            verbosity=0)
        bare = FolderLoop(dataset, 32, num_workers=2)
        numbers = itertools.count(1)
        times = rounds_of(2 * rounds, {"bare": bare.epoch,
                                       "template": lambda: trainer._run_epoch(next(numbers))})
        trainer.writer.close()
    ratios = ratios_of(times["template"], times["bare"])
    return {"bare loop, s": statistics.median(times["bare"]),
            "template, s": statistics.median(times["template"]),
            "ratio": statistics.median(ratios), "its lowest and highest round": extremes(ratios),
            "noise of the bare loop": noise(times["bare"])}


def tokens(rounds: int) -> dict[str, Any]:
    """(i) An epoch of a small Transformer over an array of tokens."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 96, (2000, 64), dtype=torch.uint8, generator=generator)
    bare = TokenLoop(blocks, 16)

    with tempfile.TemporaryDirectory() as folder:
        ours = TokenLoop(blocks, 16)
        dataset = InMemoryDataset(blocks, transform=torch.Tensor.long, is_random=False)
        trainer = plain_trainer(folder, ours.model, next_token_loss, ours.optimizer,
                                BaseDataLoader(dataset, 16, shuffle=True), kind=TokenTrainer,
                                verbosity=0)
        times = in_turns(rounds, trainer, 5, {"bare": bare.steps})
    return _rates(times, blocks.numel())


def gpt(rounds: int) -> dict[str, Any]:
    """(j) Steps of the example of a GPT, its trainer and model, in its sizes."""
    model, trainer_of = (_of_example("gpt", file) for file in ("model/model.py",
                                                               "trainer/__init__.py"))
    config = json.loads((EXAMPLES / "gpt" / "config.json").read_text(encoding="utf-8"))
    args = config["arch"]["args"]
    windows = torch.randint(0, 256, (40 * 16, args["context"] + 1), dtype=torch.uint8,
                            generator=torch.Generator().manual_seed(1))
    max_norm = config["trainer"]["clip_grad_norm"]
    bare = GptLoop(model.Gpt(**args), windows, 16, max_norm)
    with tempfile.TemporaryDirectory() as folder:
        own = model.Gpt(**args)
        trainer = plain_trainer(
            folder, own, nn.functional.cross_entropy, torch.optim.AdamW(own.parameters(), lr=1e-3),
            BaseDataLoader(InMemoryDataset(windows), 16, shuffle=True),
            kind=trainer_of.Trainer, verbosity=0, tensorboard=False, clip_grad_norm=max_norm)
        times = in_turns(rounds, trainer, 5, {"bare": bare.steps})
    return _rates(times, windows.numel())


def _rates(times: dict[str, list[float]], num_tokens: int) -> dict[str, Any]:
    ratios = ratios_of(times["template"], times["bare"])
    return {"bare loop, tokens/s": num_tokens / statistics.median(times["bare"]),
            "ratio of times": statistics.median(ratios),
            "its lowest and highest round": extremes(ratios),
            "noise of the bare loop": noise(times["bare"])}


def _of_example(name: str, file: str) -> ModuleType:
    """A module of an example, whose folders have the names of the template's."""
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / name / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loader(rounds: int) -> dict[str, Any]:
    """(e) Samples per second of loaders alone."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import MNIST

    def drain(batches: Any) -> None:
        for _ in batches:
            pass

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in (DATA / "MNIST" / "raw").glob("*.gz"):
            (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        usual = MNIST(folder, transform=transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]))
    part = torch.utils.data.Subset(usual, range(12000))
    in_memory = MnistDataLoader(str(DATA), 128)
    times = rounds_of(rounds, {
        "in memory": lambda: drain(in_memory),
        "0 workers": lambda: drain(DataLoader(part, 128, shuffle=True)),
        "2 workers": lambda: drain(DataLoader(part, 128, shuffle=True, num_workers=2))})
    rates = {name: statistics.median(
        (60000 if name == "in memory" else len(part)) / taken for taken in values)
        for name, values in times.items()}
    return {"in memory, samples/s": rates["in memory"],
            "torchvision 0 workers, samples/s": rates["0 workers"],
            "torchvision 2 workers, samples/s": rates["2 workers"],
            "ratio to torchvision": rates["in memory"] / max(
                rates["0 workers"], rates["2 workers"]),
            "noise": noise(times["in memory"])}
