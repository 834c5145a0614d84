"""Prints by how many KB a tiny run grows per epoch, over the second half of 200 epochs."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base.callback import Callback
from model.metric import accuracy
from parse_config import ConfigParser
from trainer import Trainer

EPOCHS = 200


class Resident(Callback):
    """Notes the process's resident memory after each epoch."""

    def __init__(self) -> None:
        self.kilobytes: list[int] = []

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.kilobytes.append(pages * 4)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = ConfigParser({"name": "growth", "n_gpu": 0, "trainer": {
            "epochs": EPOCHS, "save_dir": folder, "verbosity": 0, "keep_last": 1}})
        batches = [(torch.randn(16, 8), torch.randint(0, 8, (16,))) for _ in range(10)]
        model, resident = nn.Linear(8, 8), Resident()
        Trainer(model, nn.functional.cross_entropy, [accuracy],
                torch.optim.Adam(model.parameters()), config, torch.device("cpu"), batches,
                batches, callbacks=(resident,)).train()
    half = torch.tensor(resident.kilobytes[EPOCHS // 2:], dtype=torch.float64)
    steps = torch.arange(len(half), dtype=torch.float64)
    steps -= steps.mean()
    print(float((steps * (half - half.mean())).sum() / (steps ** 2).sum()))


if __name__ == "__main__":
    main()
