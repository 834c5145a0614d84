"""Runs that one process does alone, or several under torchrun, with the same result.

As a script: ``jobs.py FOLDER NAME ...`` runs them, and the main process writes what they gave.
"""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.distributed import DistributedSampler
from torchmetrics.classification import BinaryAUROC

import base.together
from base import BaseDataLoader
from base.average import average_of
from base.evaluation import Copies, first_batches
from parse_config import ConfigParser
from tests.framework.tiny_run import StopAt
from tests.framework.toy.trainer import Trainer
from utils.devices.parallel import place_model
from utils.devices.processes import gathered, is_main_process, joined, num_processes, rank
from utils.devices.sharding import whole
from utils.errors import CheckpointError, ConfigError, RunError
from utils.metric_tracker import MetricTracker
from utils.rng import set_seed
from utils.runs.one_run import one_run

SAMPLES, VALID, GLOBAL_BATCH = 101, 37, 24


class Rows(Dataset[Any]):
    def __init__(self, count: int = SAMPLES) -> None:
        self.rows = torch.randn(count, 6, generator=torch.Generator().manual_seed(count))
        self.target = (self.rows.sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index], self.target[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        rows = Rows(96)
        return (rows[index] for index in range(96))


class TwoNetworks(Trainer):
    """The second one is no part of the model, and each has its optimizer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        torch.manual_seed(5)
        self.other = nn.Linear(6, 2)
        self.optimizer = {"one": self.optimizer,
                          "other": torch.optim.SGD(self.other.parameters(), lr=0.3)}

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        rows, target = batch
        self.zero_grad()
        output = self.model(rows) + self.other(rows)
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        return output, target, loss


class Bypasses(Trainer):
    """Calls a part of the model, not the model."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        rows, target = batch
        self.zero_grad()
        output = getattr(self.model, "module", self.model)(rows)
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        return output, target, loss


class GoesBackByItself(Trainer):
    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


class Clips(Trainer):
    """By itself, where gradients are still those of one process."""

    def backward(self, loss: torch.Tensor) -> None:
        super().backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)


class StepsEverySecond(Trainer):
    """Gradients wait for their step where backward has left them."""

    def zero_grad(self, optimizer: Any = None) -> None:
        if self.counters.batch % 2 == 0:
            super().zero_grad(optimizer)

    def step(self, optimizer: Any = None) -> None:
        if self.counters.batch % 2:
            super().step(optimizer)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 2, sparse=True)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.table((rows[:, 0] > 0).long())


class LogsWeights(Trainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        weight = next(self.model.parameters()).detach()
        self.train_metrics.update("square", weight.pow(2).sum(), len(target))
        return output, target, loss


class AddsItsOwn(Trainer):
    """Values of its own: a mean by the tracker, and one that knows of no other process."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        self.train_metrics.update("ones", target.float().mean(), len(target))
        return output, target, loss

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        return {**super()._train_epoch(epoch), "own": torch.rand(1).item()}


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


class Auroc(BinaryAUROC):
    def update(self, output: Any, target: Any) -> None:  # type: ignore[override]
        super().update(output.softmax(1)[:, 1], target)


def trained(folder: Path, *, kind: Any = Trainer, resume: Path | None = None,
            batches: int = 1, shuffle: bool = True, dropout: float = 0.0,
            is_stream: bool = False, metrics: Any = None, callbacks: Any = (),
            unused: bool = False, loader: Any = None, overfit: int = 0, model: Any = None,
            **settings: Any) -> dict[str, Any]:
    """What came of a run. Of each global batch every process has its share, in so many batches."""
    config = ConfigParser({"name": "x", "seed": 3, "trainer": {
        "epochs": 2, "save_dir": str(folder), "verbosity": 2, "tensorboard": False,
        "log_steps": 1, "monitor": "min val_loss", **settings}}, resume,
        run_id=None if resume else "run")
    with one_run(config):
        set_seed(3)
        size = GLOBAL_BATCH // num_processes() // batches
        loader = loader or BaseDataLoader(Stream() if is_stream else Rows(), size,
                                          shuffle=shuffle and not is_stream)
        valid = BaseDataLoader(Rows(VALID), 8)
        if overfit:
            loader = Copies(first_batches(loader, overfit))
        model = model() if model else nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))
        if unused:
            model[0].unused = nn.Parameter(torch.ones(3))
        is_divided = config.trainer.strategy == "fsdp2"
        average = average_of(model, config.trainer.ema_decay) if is_divided else None
        place = functools.partial(place_model, device=torch.device("cpu"), device_ids=[],
                                  strategy=config.trainer.strategy,
                                  precision=config.trainer.precision)
        placed = place(model, find_unused=config.trainer.find_unused_parameters)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        trainer = kind(placed, nn.functional.cross_entropy, metrics or [accuracy, Auroc()],
                       optimizer, config, torch.device("cpu"), loader, valid, schedule,
                       callbacks=callbacks)
        if average is not None:
            average.module = place(average.module)
            trainer.average = average
        trainer.train()
        return result_of(trainer)


def resumed(folder: Path, **options: Any) -> dict[str, Any]:
    """Stopped after three batches, which is inside the first epoch, and resumed."""
    options = {"dropout": 0.3, "save_freq": 1, **options}
    whole = trained(folder / "whole", callbacks=(StopAt(None),), **options)
    code = None
    try:
        trained(folder / "parts", callbacks=(StopAt(3),), **options)
    except SystemExit as stop:
        code = stop.code
    latest = folder / "parts" / "models" / "x" / "run" / "latest.pth"
    after = trained(folder / "parts", callbacks=(StopAt(None),), resume=latest, **options)
    return {"whole": whole, "resumed": after, "code": code}


class Normed(nn.Module):
    """With running means, in blocks of which two are one, if so asked."""

    def __init__(self, *, is_tied: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([
            nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), nn.Tanh())
            for _ in range(2)])
        if is_tied:
            self.blocks[1][0][0] = self.blocks[0][0][0]
        self.head = nn.Linear(6, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            rows = block(rows)
        return self.head(rows)


def strategy_changed(folder: Path, before: str, after: str, **options: Any) -> dict[str, Any]:
    """Inside a group of batches that wait for their step."""
    options = {"batches": 2, "accumulate": 3, **options}
    try:
        trained(folder, callbacks=(StopAt(4),), strategy=before, **options)
    except SystemExit:
        latest = folder / "models" / "x" / "run" / "latest.pth"
        return fails(folder, callbacks=(StopAt(None),), strategy=after, resume=latest, **options)
    return {}


def unwritable(folder: Path) -> dict[str, Any]:
    """The last process cannot make the folder of its shards."""
    class Full(type(folder)):  # type: ignore[misc]
        def mkdir(self, *args: Any, **options: Any) -> None:
            if "shards" in self.parts and rank() == num_processes() - 1:
                raise OSError(28, "No space left on device")
            super().mkdir(*args, **options)

    class Unwritable(Trainer):
        checkpoint_dir = property(lambda self: Full(self.saver.directory))

    return fails(folder, strategy="fsdp2", sharded_checkpoints=True, kind=Unwritable)


def sampled() -> Any:
    """A sampler that gives each process a share already."""
    return BaseDataLoader(Rows(), 12, sampler=DistributedSampler(
        Rows(), num_replicas=num_processes(), rank=rank()))


def evaluated_by_all(folder: Path) -> dict[str, Any]:
    """Of a loader that gives each process everything."""
    class EvaluatesAll(Trainer):
        def train(self) -> None:
            self.evaluate(DataLoader(Rows(VALID), 8))

    return fails(folder, kind=EvaluatesAll)


def scales(runs: dict[str, Any]) -> dict[str, Any]:
    return {name: gathered(runs[name]["scale"]) for name in ("whole", "resumed")}


def fails(folder: Path, **options: Any) -> dict[str, Any]:
    """What is said of a run that all processes end together."""
    try:
        trained(folder, **options)
    except (RunError, ConfigError, CheckpointError, SystemExit) as error:
        return {"error": f"{type(error).__name__}: {error}", "all": gathered(str(error))}
    return {}


class KeepsABuffer(Trainer):
    """Each process gives the model a number of its own, which its output depends on."""

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        model.register_buffer("own", torch.zeros(()))
        super().__init__(model, *args, **options)

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        assert not batch_idx or self.model.own == batch_idx - 1
        self.model.own.fill_(batch_idx + rank())
        return super()._train_step(batch, batch_idx)


class Pictures(Trainer):
    """Weights in channels-last memory, and an optimizer that reads memory as it lies."""

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        torch.manual_seed(5)
        self.images = nn.Sequential(nn.Conv2d(2, 4, 2), nn.Flatten(), nn.Linear(8, 2)).to(
            memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.images.parameters(), 0.01, fused=True)
        self.other = self.images

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        rows, target = batch
        images = torch.cat([rows, rows], 1).view(len(rows), 2, 2, 3).contiguous(
            memory_format=torch.channels_last)
        self.zero_grad()
        output = self.images(images)
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        return output, target, loss


class StepsAnother(Trainer):
    """An optimizer that is an attribute of its own, and a network that is none."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.kept = (lambda: None, nn.Linear(6, 2))
        self.optimizer_2 = torch.optim.SGD(self.kept[1].parameters(), lr=0.3)

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        result = super()._train_step(batch, batch_idx)
        self.optimizer_2.step()
        return result


class HiddenNetwork(Trainer):
    """Trained by the one optimizer, though no attribute holds it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        torch.manual_seed(5 + rank())  # the main process's weights count
        self.hidden = SimpleNamespace(net=nn.Linear(6, 2))
        self.optimizer.add_param_group({"params": list(self.hidden.net.parameters())})

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        rows, target = batch
        self.zero_grad()
        output = self.model(rows) + self.hidden.net(rows)
        loss = self.criterion(output, target)
        self.backward(loss)
        self.step()
        self.train_metrics.update("hidden", self.hidden.net.weight.detach().sum(), 1)
        return output, target, loss


class DrawsItsOwn(Trainer):
    """From a generator, into a tracker, of its own in each process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.noise = torch.Generator().manual_seed(5 + rank())
        self.seen = MetricTracker()

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.update("noise", torch.rand((), generator=self.noise), 1)
        return super()._train_step(batch, batch_idx)

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        log = {**super()._train_epoch(epoch), **self.seen.result()}
        self.seen.reset()
        return log


class GoesOverItsData(Trainer):
    """Validates by a loop of its own; at the end other data, where a share is not whole."""

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        self.seen = 0
        with self.evaluation():
            for rows, target in self.valid_data_loader:
                output = self.model(rows)
                loss = self.criterion(output, target)
                self.valid_metrics.update_batch(output, target, loss, len(target))
                self.seen += len(target)
        return {**self.valid_metrics.result(), "seen": sum(gathered(self.seen))}

    def train(self) -> None:
        super().train()
        self.of_another = self.evaluate(BaseDataLoader(Rows(33), 8))


class Overflows(Trainer):
    """In fp16, in the last process only, once."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        if rank() == num_processes() - 1 and self.counters.step == 0 and batch_idx == 0:
            self.updates.scaler.load_state_dict({
                **self.updates.scaler.state_dict(), "scale": 2.0 ** 14})
        return super()._train_step(batch, batch_idx)


class GetsNaN(Trainer):
    """In the last process only."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        is_last = rank() == num_processes() - 1
        return output, target, loss * (float("nan") if is_last and batch_idx == 2 else 1)


class Diverges(Trainer):
    """Changes weights by itself, in one process."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        result = super()._train_step(batch, batch_idx)
        with torch.no_grad():
            next(self.model.parameters()).add_(rank())
        return result


class SlowLast(Trainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.3 * rank())
        return super()._train_step(batch, batch_idx)


def result_of(trainer: Any) -> dict[str, Any]:
    networks = [getattr(trainer, name) for name in ("model", "other") if hasattr(trainer, name)]
    return {"weights": torch.cat([whole(one.detach()).flatten() for network in networks
                                  for one in network.parameters()]),
            "rows": trainer.history.rows(), "step": trainer.counters.step,
            "counters": trainer.counters.state_dict(), "evaluated": trainer.num_evaluated,
            "trained": trainer.train_data.num_samples, "scale": getattr(
                trainer.updates.scaler, "get_scale", lambda: None)(),
            "other": getattr(trainer, "of_another", None)}


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "plain": lambda folder: trained(folder),
    "accumulated": lambda folder: trained(folder, batches=2, accumulate=2),
    "channels last, fused": lambda folder: trained(folder, kind=Pictures),
    "clipped": lambda folder: trained(folder, clip_grad_norm=0.05),
    "averaged": lambda folder: trained(folder, ema_decay=0.5),
    "two networks": lambda folder: trained(folder, kind=TwoNetworks),
    "bypass": lambda folder: trained(folder, kind=Bypasses),
    "own backward": lambda folder: trained(folder, kind=GoesBackByItself),
    "own values": lambda folder: trained(folder, kind=AddsItsOwn),
    "stream": lambda folder: trained(folder, is_stream=True),
    "len_epoch": lambda folder: trained(folder, len_epoch=3, epochs=4),
    "valid_steps": lambda folder: trained(folder, valid_steps=3, early_stop=5),
    "resumed": lambda folder: resumed(folder),
    "resumed, bf16": lambda folder: resumed(folder, precision="bf16", clip_grad_norm=0.1),
    "half precision of ddp: bf16": lambda folder: resumed(folder, precision="bf16", strategy="ddp"),
    "half precision of ddp: fp16": lambda folder: resumed(folder, precision="fp16", strategy="ddp"),
    "resumed, fp16": lambda folder: resumed(folder, precision="fp16", batches=2, accumulate=2),
    "ddp, averaged": lambda folder: trained(folder, strategy="ddp", ema_decay=0.5),
    "resumed stream": lambda folder: resumed(folder, is_stream=True, len_epoch=3),
    "resumed, accumulated": lambda folder: resumed(folder, batches=2, accumulate=2,
                                                   ema_decay=0.9),
    "ddp": lambda folder: trained(folder, strategy="ddp"),
    "ddp, clipped": lambda folder: trained(folder, strategy="ddp", clip_grad_norm=0.05),
    "ddp, accumulated": lambda folder: trained(folder, strategy="ddp", batches=2, accumulate=2),
    "ddp, two networks": lambda folder: trained(folder, strategy="ddp", kind=TwoNetworks),
    "ddp, bypass": lambda folder: trained(folder, strategy="ddp", kind=Bypasses),
    "ddp, own backward": lambda folder: trained(folder, strategy="ddp", kind=GoesBackByItself),
    "ddp, unused": lambda folder: trained(folder, strategy="ddp", unused=True,
                                          find_unused_parameters=True),
    "fsdp2": lambda folder: trained(folder, strategy="fsdp2"),
    "logs weights": lambda folder: trained(folder, kind=LogsWeights),
    "fsdp2, logs weights": lambda folder: trained(folder, strategy="fsdp2", kind=LogsWeights),
    "sparse": lambda folder: fails(folder, model=Sparse),
    "clips": lambda folder: trained(folder, kind=Clips),
    "fsdp2, clipped": lambda folder: trained(folder, strategy="fsdp2", clip_grad_norm=0.05),
    "fsdp2, accumulated": lambda folder: trained(folder, strategy="fsdp2", batches=2,
                                                 accumulate=2),
    "fsdp2, averaged": lambda folder: trained(folder, strategy="fsdp2", ema_decay=0.5),
    "fsdp2, len_epoch": lambda folder: trained(folder, strategy="fsdp2", len_epoch=3, epochs=4),
    "fsdp2, valid_steps": lambda folder: trained(folder, strategy="fsdp2", valid_steps=3,
                                                 early_stop=5),
    "resumed, fsdp2": lambda folder: resumed(
        folder, strategy="fsdp2", batches=2, accumulate=2, ema_decay=0.9),
    "resumed stream, fsdp2": lambda folder: resumed(
        folder, strategy="fsdp2", is_stream=True, len_epoch=3),
    "shards": lambda folder: trained(folder, strategy="fsdp2", sharded_checkpoints=True,
                                     ema_decay=0.5, keep_last=1),
    "shards of another number": lambda folder: trained(
        folder, strategy="fsdp2", sharded_checkpoints=True, ema_decay=0.5, epochs=3,
        resume=folder.parent / "shards/models/x/run/latest.pth"),
    "resumed, shards": lambda folder: resumed(
        folder, strategy="fsdp2", batches=2, accumulate=2, ema_decay=0.9, sharded_checkpoints=True,
        async_save=True, keep_last=1),
    "fsdp2 goes back by itself": lambda folder: fails(folder, strategy="fsdp2",
                                                      kind=GoesBackByItself),
    "resumed, fsdp2 in bf16": lambda folder: resumed(
        folder, strategy="fsdp2", precision="bf16", model=Normed, loader=BaseDataLoader(
            Rows(96), GLOBAL_BATCH // num_processes(), shuffle=True, seed=1)),
    "fsdp2, tied": lambda folder: fails(folder, strategy="fsdp2",
                                        model=functools.partial(Normed, is_tied=True)),
    "to fsdp2": lambda folder: strategy_changed(folder, "auto", "fsdp2"),
    "to fsdp2, by hand": lambda folder: strategy_changed(
        folder, "auto", "fsdp2", accumulate=1, kind=StepsEverySecond),
    "from fsdp2": lambda folder: strategy_changed(folder, "fsdp2", "ddp"),
    "fsdp2, full disk": unwritable,
    "fsdp2 in fp16": lambda folder: fails(folder, strategy="fsdp2", precision="fp16"),
    "fsdp2, two nets": lambda folder: fails(folder, strategy="fsdp2", kind=TwoNetworks),
    "buffers": lambda folder: trained(folder, kind=KeepsABuffer),
    "resumed overfit": lambda folder: resumed(folder, overfit=6),
    "resumed, own state": lambda folder: resumed(folder, kind=DrawsItsOwn),
    "first half": lambda folder: trained(folder, kind=DrawsItsOwn, epochs=1),
    "second half": lambda folder: trained(
        folder.parent / "first_half", kind=DrawsItsOwn,
        resume=folder.parent / "first_half/models/x/run/latest.pth"),
    "goes over its data": lambda folder: trained(folder, kind=GoesOverItsData),
    "scales": lambda folder: scales(resumed(folder, kind=Overflows, precision="fp16",
                                            batches=2, accumulate=2)),
    "hidden network": lambda folder: trained(folder, kind=HiddenNetwork),
    "another optimizer": lambda folder: fails(folder, kind=StepsAnother),
    "sampler of shares": lambda folder: fails(folder, loader=sampled()),
    "evaluates all": evaluated_by_all,
    "nan": lambda folder: fails(folder, kind=GetsNaN),
    "diverges": lambda folder: fails(folder, kind=Diverges),
    "torch's loader": lambda folder: fails(folder, loader=DataLoader(Rows(), 12)),
    "time is up": lambda folder: fails(folder, kind=SlowLast, max_seconds=0.5, epochs=100),
    "unused": lambda folder: trained(folder, unused=True),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    base.together.TELL_SECONDS = 0  # a stop is agreed on at once
    folder, *names = sys.argv[1:]
    with joined(on_gpu=False):
        for name in names:
            result = JOBS[name](Path(folder) / name.replace(" ", "_"))
            if is_main_process():
                torch.save(result, Path(folder) / f"{name}.pt")
