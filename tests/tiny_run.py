"""A small run with everything random in it: dropout, augmentation, shuffling, clipping."""

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from base import BaseDataLoader, Callback
from parse_config import ConfigParser
from trainer import Trainer
from utils.checkpoint_file import read_checkpoint
from utils.rng import set_seed
from utils.run_lock import unlock_folder

SAMPLES, BATCH = 44, 8  # 36 for training: four batches of 8 and one of 4
STEPS_PER_EPOCH = 5


class NoisyData(Dataset[Any]):
    """Samples that differ each time they are read, by all three generators."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.data = torch.randn(SAMPLES, 6, generator=generator)
        self.target = (self.data.sum(1) > 0).long()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(6) * 0.1 + float(np.random.normal()) * 0.1 + random.gauss(0, 0.1)
        return self.data[index] + noise, self.target[index]


class ClippingTrainer(Trainer):
    """Clips gradients, and counts its steps in a callback's state."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        data, target = self.split_batch(batch)
        optimizers = self.optimizer.values() if isinstance(self.optimizer, dict) else (
            [self.optimizer])
        for optimizer in optimizers:
            optimizer.zero_grad()
        output = self.model(data)
        loss = self.criterion(output, target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        for optimizer in optimizers:
            optimizer.step()
        return output, target, loss

    def _lr(self) -> float:
        optimizer = self.optimizer["body"] if isinstance(self.optimizer, dict) else self.optimizer
        return float(optimizer.param_groups[0]["lr"])

    def _step_scheduler(self, log: dict[str, Any]) -> None:
        if isinstance(self.lr_scheduler, dict):
            for scheduler in self.lr_scheduler.values():
                scheduler.step()
        else:
            super()._step_scheduler(log)


class StopAt(Callback):
    """Does what a signal does, after a number of steps of the whole run."""

    def __init__(self, step: int | None) -> None:
        self.stop_step = step

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if trainer.progress.step == self.stop_step:
            trainer._signals.received = signal.SIGTERM


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def make_schedule(kind: str, optimizer: Any) -> Any:
    schedulers = torch.optim.lr_scheduler
    if kind == "OneCycleLR":
        return schedulers.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * STEPS_PER_EPOCH)
    if kind == "ReduceLROnPlateau":
        return schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
    return schedulers.StepLR(optimizer, step_size=1, gamma=0.5)


def train(folder: Path, *, stop_step: int | None = None, resume: Path | None = None,
          num_workers: int = 0, schedule: str = "StepLR", optimizers: int = 1,
          validation: float = 0.2, callbacks: tuple[Callback, ...] = (),
          status: int = 128 + signal.SIGTERM, **settings: Any) -> Path:
    """Trains (or goes on) in-process, may stop with ``status``; returns the checkpoints' folder."""
    monitor = "min val_loss" if validation else "min loss"
    config = ConfigParser({"name": "tiny", "seed": 7, "trainer": {
        "epochs": 2, "save_dir": str(folder), "monitor": monitor, "verbosity": 0,
        "tensorboard": False, "log_steps": 1, **settings}}, resume,
        run_id=None if resume else "run")
    config.config["lr_scheduler"] = {"type": schedule}
    set_seed(config.run.seed)
    loader = BaseDataLoader(NoisyData(), BATCH, shuffle=True, validation_split=0.2,
                            num_workers=num_workers)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    if optimizers == 2:
        optimizer: Any = {"body": torch.optim.Adam(model[0].parameters(), lr=0.05),
                          "head": torch.optim.SGD(model[3].parameters(), lr=0.1, momentum=0.9)}
        scheduler: Any = {name: make_schedule(schedule, part) for name, part in optimizer.items()}
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05, amsgrad=True)
        scheduler = make_schedule(schedule, optimizer)
    trainer = ClippingTrainer(
        model, nn.functional.cross_entropy, [accuracy], optimizer, config, torch.device("cpu"),
        loader, loader.split_validation() if validation else None, scheduler,
        callbacks=(StopAt(stop_step), *callbacks))
    try:
        trainer.train()
    except SystemExit as stop:
        assert stop.code == status
    unlock_folder(config.save_dir)
    return config.save_dir


def final_state(checkpoints: Path, name: str = "latest.pth") -> dict[str, Any]:
    """What a run ended with, without what tells one folder from another."""
    state = read_checkpoint(checkpoints / name)
    del state["config"], state["log_bytes"]
    return state


def history(checkpoints: Path) -> bytes:
    log = checkpoints.parent.parent.parent / "log" / checkpoints.parent.name / checkpoints.name
    return (log / "history.jsonl").read_bytes()


def same(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and bool(
            torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
