"""A small run with everything random in it: dropout, augmentation, shuffling, clipping."""

import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from base import BaseDataLoader, Callback
from parse_config import ConfigParser
from tests.framework.toy.trainer import Trainer
from utils.rng import set_seed
from utils.runs.checkpoint_file import read_checkpoint

TIMES = ("time", "seconds", "samples_per_second", "memory_mb")  # of a row, by the clock
SAMPLES, BATCH = 44, 8  # 36 for training: four batches of 8 and one of 4
STEPS_PER_EPOCH = 5


def noisy(data: torch.Tensor) -> torch.Tensor:
    """Differs each time, by all three generators."""
    return (data + torch.randn(data.shape) * 0.1 + float(np.random.normal()) * 0.1
            + random.gauss(0, 0.1))


class NoisyData(Dataset[Any]):
    """Samples that differ each time they are read."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.data = torch.randn(SAMPLES, 6, generator=generator)
        self.target = (self.data.sum(1) > 0).long()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return noisy(self.data[index]), self.target[index]


class NoisyStream(IterableDataset[Any]):
    """The same as a stream, of which each worker reads its part."""

    def __init__(self) -> None:
        self.samples = NoisyData()

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(first, 36, step):
            yield self.samples[index]


class ClippingTrainer(Trainer):
    """Clips gradients; several optimizers step one after the other."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        data, target = batch
        optimizers = list(self.optimizer.values()) if isinstance(self.optimizer, dict) else (
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


class StopAt(Callback):
    """Does what a signal does, after a number of batches of the whole run."""

    def __init__(self, stop_batch: int | None) -> None:
        self.stop_batch = stop_batch
        self.num_batches = 0

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self.num_batches += 1
        if self.num_batches == self.stop_batch:
            trainer.stop.received = signal.SIGTERM

    def state_dict(self) -> dict[str, Any]:
        return {"num_batches": self.num_batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_batches = state["num_batches"]


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def make_schedule(kind: str, optimizer: Any) -> Any:
    schedulers = torch.optim.lr_scheduler
    if kind == "OneCycleLR":
        return schedulers.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * STEPS_PER_EPOCH)
    if kind == "ReduceLROnPlateau":
        return schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
    return schedulers.StepLR(optimizer, step_size=1, gamma=0.5)


def make_trainer(folder: Path, *, resume: Path | None = None, num_workers: int = 0,
                 schedule: str = "StepLR", optimizers: int = 1, validation: float = 0.2,
                 batch_size: int = BATCH, is_stream: bool = False, kind: Any = ClippingTrainer,
                 make_loader: Callable[[], Any] | None = None,
                 callbacks: tuple[Callback, ...] = (), new_run: bool = False,
                 **settings: Any) -> Trainer:
    """A trainer of the tiny run, new or resumed."""
    monitor = "min val_loss" if validation else "min loss"
    config = ConfigParser({"name": "tiny", "seed": 7, "trainer": {
        "epochs": 2, "save_dir": str(folder), "monitor": monitor, "verbosity": 0,
        "tensorboard": False, "log_steps": 1, **settings}}, resume,
        run_id=None if resume else "run", new_run=new_run)
    config.config["lr_scheduler"] = {"type": schedule}
    set_seed(config.run.seed)
    loader = BaseDataLoader(NoisyStream() if is_stream else NoisyData(), batch_size,
                            shuffle=not is_stream, num_workers=num_workers,
                            validation_split=0.0 if is_stream else 0.2)
    valid_loader = BaseDataLoader(NoisyData(), BATCH) if is_stream else loader.split_validation()
    if make_loader is not None:
        loader = make_loader()
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    if optimizers == 2:
        optimizer: Any = {"body": torch.optim.Adam(model[0].parameters(), lr=0.05),
                          "head": torch.optim.SGD(model[3].parameters(), lr=0.1, momentum=0.9)}
        scheduler: Any = {name: make_schedule(schedule, part) for name, part in optimizer.items()}
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05, amsgrad=True)
        scheduler = make_schedule(schedule, optimizer)
    return kind(model, nn.functional.cross_entropy, [accuracy], optimizer, config,
                torch.device("cpu"), loader, valid_loader if validation else None, scheduler,
                callbacks=callbacks)


def train(folder: Path, *, stop_batch: int | None = None, status: int = 128 + signal.SIGTERM,
          callbacks: tuple[Callback, ...] = (), **options: Any) -> Path:
    """Trains (or goes on) in-process, may stop with ``status``; returns the checkpoints' folder."""
    trainer = make_trainer(folder, callbacks=(StopAt(stop_batch), *callbacks), **options)
    try:
        trainer.train()
    except SystemExit as stop:
        assert stop.code == status
    return trainer.config.save_dir


def final_state(checkpoints: Path, name: str = "latest.pth") -> dict[str, Any]:
    """What a run ended with, without what tells one folder or hour from another."""
    state = read_checkpoint(checkpoints / name)
    del state["config"]
    state["parts"]["history"] = timeless(state["parts"]["history"]["rows"])
    return state


def history(checkpoints: Path) -> list[dict[str, Any]]:
    log = checkpoints.parent.parent.parent / "log" / checkpoints.parent.name / checkpoints.name
    return timeless((log / "history.jsonl").read_text())


def timeless(lines: str) -> list[dict[str, Any]]:
    """The rows of a history without the times in them."""
    rows = [json.loads(line) for line in lines.splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES}
            for row in rows]


def same(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and bool(
            torch.equal(one.to_dense(), other.to_dense()))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
