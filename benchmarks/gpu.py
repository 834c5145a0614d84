"""What a GPU costs: torchvision's ResNet-50 on synthetic images, against a bare loop."""

import itertools
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.bare import plain_trainer
from benchmarks.timing import extremes, noise, ratios_of, rounds_of
from utils.devices.parallel import place_model

STEPS = 40
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {}, "bf16": {"precision": "bf16"}, "bf16, compiled": {
        "precision": "bf16", "compile": True}}


def gpu(rounds: int, device: str = "cuda", batch_size: int = 128,
        size: int = 224) -> dict[str, Any]:
    """(m) Steps on batches that lie in pinned memory, channels last."""
    if device == "cuda" and not torch.cuda.is_available():
        return {"left out": "this machine has no GPU"}
    batches = [(images.pin_memory(), target.pin_memory()) if device == "cuda" else (images, target)
               for images, target in (_batch(batch_size, size) for _ in range(4))]
    epoch = [batch for batch, _ in zip(itertools.cycle(batches), range(STEPS), strict=False)]
    result: dict[str, Any] = {}
    for name, settings in SETTINGS.items():
        works = {"bare": _bare(epoch, device, **settings)}
        with tempfile.TemporaryDirectory() as folder:
            works["template"] = _template(folder, epoch, device, **settings)
            times = rounds_of(rounds, works)
        ratios = ratios_of(times["bare"], times["template"])
        result |= {f"{name}: images/s of the bare loop":
                   STEPS * batch_size / statistics.median(times["bare"]),
                   f"{name}: ratio of throughputs": statistics.median(ratios),
                   f"{name}: its lowest and highest round": extremes(ratios),
                   f"{name}: noise of the bare loop": noise(times["bare"])}
    return result


def _batch(batch_size: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 1000, (batch_size,))


def _model(device: str, compiled: bool) -> nn.Module:
    from torchvision.models import resnet50

    return place_model(resnet50(), torch.device(device), [], channels_last=True, compiled=compiled)


def _bare(epoch: list[Any], device: str, *, precision: str = "fp32",
          compile: bool = False) -> Callable[[], None]:
    model = _model(device, compile)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        total = torch.zeros((), device=device)
        for data, target in epoch:
            data, target = (part.to(device, non_blocking=True) for part in (data, target))
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                loss = nn.functional.cross_entropy(model(data), target)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(target)
        total.item()  # waits for the device

    return run


def _template(folder: str, epoch: list[Any], device: str, *, precision: str = "fp32",
              compile: bool = False) -> Callable[[], None]:
    model = _model(device, compile)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trainer = plain_trainer(folder, model, nn.functional.cross_entropy, optimizer, epoch,
                            device=device, verbosity=0, tensorboard=False, channels_last=True,
                            precision=precision)
    numbers = itertools.count(1)
    return lambda: trainer._run_epoch(next(numbers))
