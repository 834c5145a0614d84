"""Projects of the classic shape run when only the framework files are replaced."""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from base import BaseDataLoader, BaseModel, BaseTrainer
from logger import TensorboardWriter
from parse_config import ConfigParser
from utils import MetricTracker, inf_loop
from utils.runs.checkpoint_file import read_checkpoint


class Net(BaseModel):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class PointsLoader(BaseDataLoader):
    """Sets its data set and batch size before the base constructor, as some do."""

    def __init__(self, batch_size: int, shuffle: bool = True, validation_split: float = 0.0,
                 num_workers: int = 0) -> None:
        generator = torch.Generator().manual_seed(3)
        points = torch.randn(64, 4, generator=generator)
        self.dataset = TensorDataset(points, (points[:, 0] > 0).long())
        self.batch_size = batch_size
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)


class OwnTrainer(BaseTrainer):
    """Loader, scheduler and trackers come after ``super().__init__``; the device is the base's."""

    def __init__(self, model: Any, criterion: Any, metric_ftns: Any, optimizer: Any, config: Any,
                 data_loader: Any, valid_data_loader: Any = None, lr_scheduler: Any = None,
                 len_epoch: int | None = None) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config)
        self.data_loader = data_loader
        if len_epoch is None:
            self.len_epoch = len(self.data_loader)
        else:
            self.data_loader = inf_loop(data_loader)
            self.len_epoch = len_epoch
        self.valid_data_loader = valid_data_loader
        self.do_validation = self.valid_data_loader is not None
        self.lr_scheduler = lr_scheduler
        self.log_step = int(np.sqrt(data_loader.batch_size))
        self.train_metrics = MetricTracker("loss", *[m.__name__ for m in self.metric_ftns],
                                           writer=self.writer)
        self.valid_metrics = MetricTracker("loss", *[m.__name__ for m in self.metric_ftns],
                                           writer=self.writer)
        self.devices_seen: set[str] = set()

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        self.train_metrics.reset()
        for batch_idx, (data, target) in enumerate(self.data_loader):
            data, target = data.to(self.device), target.to(self.device)
            self.devices_seen.add(str(data.device))
            self.optimizer.zero_grad()
            output = self.model(data)
            loss = self.criterion(output, target)
            loss.backward()
            self.optimizer.step()
            self.writer.set_step((epoch - 1) * self.len_epoch + batch_idx)
            self.train_metrics.update("loss", loss.item())
            for metric in self.metric_ftns:
                self.train_metrics.update(metric.__name__, metric(output, target))
            if batch_idx % self.log_step == 0:
                self.logger.debug("Train Epoch: %d %s Loss: %.6f", epoch, batch_idx, loss.item())
            if batch_idx + 1 == self.len_epoch:
                break
        log = self.train_metrics.result()
        if self.do_validation:
            log.update(**{"val_" + key: value for key, value in self._valid_epoch(epoch).items()})
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        log.update({"gradient_norm": np.float32(1.5), "tensor": torch.tensor(2.0)})
        return log

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.eval()
        self.valid_metrics.reset()
        with torch.no_grad():
            for batch_idx, (data, target) in enumerate(self.valid_data_loader):
                output = self.model(data.to(self.device))
                self.writer.set_step((epoch - 1) * len(self.valid_data_loader) + batch_idx, "valid")
                self.valid_metrics.update("loss", self.criterion(output, target).item())
                for metric in self.metric_ftns:
                    self.valid_metrics.update(metric.__name__, metric(output, target))
        for name, parameter in self.model.named_parameters():
            self.writer.add_histogram(name, parameter, bins="auto")
        return self.valid_metrics.result()


def accuracy(output: torch.Tensor, target: torch.Tensor) -> float:
    with torch.no_grad():
        return torch.sum(output.argmax(dim=1) == target).item() / len(target)


def old_config(folder: Path, **trainer: Any) -> dict[str, Any]:
    return {
        "name": "Points", "n_gpu": 0, "arch": {"type": "Net", "args": {"width": 8}},
        "data_loader": {"type": "PointsLoader",
                        "args": {"batch_size": 16, "validation_split": 0.25}},
        "optimizer": {"type": "Adam", "args": {"lr": 0.01}}, "loss": "cross_entropy",
        "metrics": ["accuracy"], "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}},
        "valid_data_loader": {"type": "Unused"}, "my_section": {"deep": [1, 2]},
        "trainer": {"epochs": 3, "save_dir": str(folder), "save_period": 1, "verbosity": 2,
                    "monitor": "min val_loss", "early_stop": 10, "tensorboard": True,
                    "own_key": "x", **trainer},
    }


MODULE = argparse.Namespace(Net=Net, PointsLoader=PointsLoader)


def build(config: ConfigParser, *, scheduler: bool = True, **options: Any) -> OwnTrainer:
    """What a classic train.py does."""
    torch.manual_seed(123)
    np.random.seed(123)
    loader = config.init_obj("data_loader", MODULE)
    model = config.init_obj("arch", MODULE)
    trainable = filter(lambda p: p.requires_grad, model.parameters())
    optimizer = config.init_obj("optimizer", torch.optim, trainable)
    lr_scheduler = config.init_obj("lr_scheduler", torch.optim.lr_scheduler, optimizer) if (
        scheduler) else None
    return OwnTrainer(model, nn.functional.cross_entropy, [accuracy], optimizer, config=config,
                      data_loader=loader, valid_data_loader=loader.split_validation(),
                      lr_scheduler=lr_scheduler, **options)


@pytest.fixture
def trained(tmp_path: Path) -> OwnTrainer:
    trainer = build(ConfigParser(old_config(tmp_path)))
    trainer.train()
    return trainer


def test_classic_trainer_trains_and_saves(trained: OwnTrainer) -> None:
    folder = trained.checkpoint_dir
    assert {"checkpoint-epoch1.pth", "checkpoint-epoch3.pth", "model_best.pth", "config.json"} <= {
        file.name for file in folder.iterdir()}
    assert trained.devices_seen == {"cpu"}
    assert folder.parent.name == "Points"


def test_attributes_of_the_classic_base_trainer_are_there(trained: OwnTrainer) -> None:
    for name in ("config", "logger", "model", "criterion", "metric_ftns", "optimizer", "device",
                 "epochs", "save_period", "monitor", "mnt_mode", "mnt_metric", "mnt_best",
                 "early_stop", "start_epoch", "checkpoint_dir", "writer"):
        assert hasattr(trained, name)
    assert (trained.mnt_mode, trained.mnt_metric) == ("min", "val_loss")


@pytest.mark.parametrize(("name", "value"), [
    ("mnt_best", 0.5), ("mnt_metric", "loss"), ("mnt_mode", "max"), ("early_stop", 3),
    ("epochs", 1), ("save_period", 5), ("start_epoch", 3), ("checkpoint_dir", Path("elsewhere")),
    ("device", torch.device("cpu")), ("writer", None), ("monitor", "off")])
def test_attributes_may_be_overwritten(tmp_path: Path, name: str, value: Any) -> None:
    trainer = build(ConfigParser(old_config(tmp_path)))
    setattr(trainer, name, value)
    assert getattr(trainer, name) == value


def test_documented_keys_of_a_checkpoint(trained: OwnTrainer) -> None:
    checkpoint = torch.load(trained.checkpoint_dir / "model_best.pth")
    assert {"arch", "epoch", "state_dict", "optimizer", "monitor_best", "config"} <= set(checkpoint)
    assert checkpoint["arch"] == "Net"
    assert checkpoint["config"]["arch"]["type"] == "Net"
    assert type(checkpoint["monitor_best"]) is float
    assert list(checkpoint["state_dict"]) == list(Net().state_dict())


def test_classic_run_resumes_by_epoch(tmp_path: Path) -> None:
    whole = build(ConfigParser(old_config(tmp_path / "whole")))
    whole.train()
    first = build(ConfigParser(old_config(tmp_path / "parts", epochs=2)))
    first.train()
    checkpoint = first.checkpoint_dir / "checkpoint-epoch2.pth"
    second = build(ConfigParser(old_config(tmp_path / "parts"), resume=checkpoint))
    assert second.start_epoch == 3
    second.train()
    assert second.checkpoint_dir.resolve() == first.checkpoint_dir.resolve()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


def test_trainer_without_scheduler(tmp_path: Path) -> None:
    config = old_config(tmp_path)
    del config["lr_scheduler"]
    build(ConfigParser(config), scheduler=False).train()


def test_iteration_based_training_by_inf_loop(tmp_path: Path) -> None:
    trainer = build(ConfigParser(old_config(tmp_path)), len_epoch=5)
    trainer.train()
    assert trainer.counters.epoch == 3


def test_loop_of_the_subclass_itself_may_use_start_epoch(tmp_path: Path) -> None:
    first = build(ConfigParser(old_config(tmp_path, epochs=1)))
    first.train()
    config = ConfigParser(old_config(tmp_path), resume=first.checkpoint_dir / "latest.pth")
    trainer = build(config)
    epochs = []
    for epoch in range(trainer.start_epoch, trainer.epochs + 1):
        trainer._train_epoch(epoch)
        trainer._save_checkpoint(epoch, save_best=False)
        epochs.append(epoch)
    assert epochs == [2, 3]
    assert (trainer.checkpoint_dir / "checkpoint-epoch3.pth").exists()


def test_overridden_save_checkpoint_is_called(tmp_path: Path) -> None:
    calls = []

    class Own(OwnTrainer):
        def _save_checkpoint(self, epoch: int, save_best: bool = False) -> None:
            calls.append((epoch, save_best))

    config = ConfigParser(old_config(tmp_path, save_period=2, monitor="off"))
    trainer = build(config)
    trainer.__class__ = Own
    trainer.train()
    assert calls == [(2, False), (3, False)]


def test_resume_checkpoint_may_be_called_by_name(tmp_path: Path, trained: OwnTrainer) -> None:
    other = build(ConfigParser(old_config(tmp_path / "other", epochs=4)))
    other._resume_checkpoint(trained.checkpoint_dir / "checkpoint-epoch2.pth")
    assert other.start_epoch == 3
    other.train()
    assert other.counters.epoch == 4


def test_unknown_monitored_name_warns_and_goes_on(tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    trainer = build(ConfigParser(old_config(tmp_path, monitor="max val_f1")))
    trainer.train()
    assert trainer.counters.epoch == 3
    log = (trainer.config.log_dir / "info.log").read_text()
    assert "val_f1" in log
    assert "val_accuracy" in log


@pytest.mark.parametrize("early_stop", [0, -1])
def test_early_stop_of_zero_or_less_means_never(tmp_path: Path, early_stop: int) -> None:
    trainer = build(ConfigParser(old_config(tmp_path, early_stop=early_stop)))
    trainer.mnt_best = -1.0  # never beaten
    trainer.train()
    assert trainer.counters.epoch == 3


def test_criterion_and_metrics_are_not_looked_into(tmp_path: Path) -> None:
    class Bare(BaseTrainer):
        def _train_epoch(self, epoch: int) -> dict[str, Any]:
            return {"loss": 1.0, "many": np.arange(3)}

    model = Net()
    for criterion, metrics in ((None, None), ({"a": 1}, {}), ([1], "x")):
        config = ConfigParser(old_config(tmp_path, monitor="off"))
        trainer = Bare(model, criterion, metrics, torch.optim.SGD(model.parameters(), 0.1), config)
        trainer.train()
        assert trainer.counters.epoch == 3


def test_model_that_is_data_parallel_is_not_wrapped_again(tmp_path: Path) -> None:
    model = nn.DataParallel(Net())
    config = ConfigParser(old_config(tmp_path))
    trainer = OwnTrainer(model, nn.functional.cross_entropy, [accuracy],
                         torch.optim.SGD(model.parameters(), 0.1), config, PointsLoader(16))
    assert trainer.model is model
    trainer._save_checkpoint(1)
    saved = torch.load(trainer.checkpoint_dir / "latest.pth")
    assert list(saved["state_dict"]) == list(Net().state_dict())


def test_without_n_gpu_the_device_is_where_the_model_is(tmp_path: Path) -> None:
    config = old_config(tmp_path)
    del config["n_gpu"]
    assert build(ConfigParser(config)).device == torch.device("cpu")


def test_plain_data_loaders_are_enough(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(20, 4), torch.randint(0, 2, (20,)))
    model = Net()
    trainer = OwnTrainer(model, nn.functional.cross_entropy, [accuracy],
                         torch.optim.SGD(model.parameters(), 0.1),
                         ConfigParser(old_config(tmp_path)), DataLoader(data, batch_size=5),
                         DataLoader(data, batch_size=5))
    trainer.train()
    assert trainer.counters.epoch == 3


def test_train_metrics_reach_the_writer_at_each_update(tmp_path: Path) -> None:
    written = []

    class Writer(TensorboardWriter):
        def add_scalar(self, tag: str, data: Any, *args: Any, **kwargs: Any) -> None:
            written.append((tag, self.mode, self.step))

    trainer = build(ConfigParser(old_config(tmp_path, epochs=1)))
    trainer.writer = Writer(tmp_path, trainer.logger, True)
    trainer.train_metrics.writer = trainer.writer
    trainer.train()
    assert [entry for entry in written if entry[0] == "loss"] == [
        ("loss", "train", step) for step in range(3)]
    assert list(trainer.train_metrics.keys) == ["loss", "accuracy"]


class OwnSplit(PointsLoader):
    """Splits by its own rule, and has its say about the samplers afterwards."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sampler.indices = [index for index in self.sampler.indices if index % 4 != 1]

    def _split_sampler(self, split: float) -> Any:
        if split == 0.0:
            return super()._split_sampler(split)
        indices = list(range(self.n_samples))
        return SubsetRandomSampler(indices[::2]), SubsetRandomSampler(indices[1::2][:8])


@pytest.mark.parametrize(("split", "train", "valid"), [
    (0.5, set(range(0, 64, 2)), set(range(1, 17, 2))), (0.0, set(range(64)) - set(range(1, 64, 4)),
                                                        None)])
def test_loader_that_splits_by_itself_is_asked_for_its_samplers(split: float, train: set[int],
                                                                valid: set[int] | None) -> None:
    loader = OwnSplit(4, validation_split=split)
    loader.dataset.tensors[1].copy_(torch.arange(64))
    kept = loader.split_validation()
    assert {int(index) for _, target in loader for index in target} == train
    assert (None if kept is None else {int(index) for _, target in kept for index in target}
            ) == valid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_lets_a_classic_run_finish_its_epoch_and_save(tmp_path: Path, number: int) -> None:
    trainer = build(ConfigParser(old_config(tmp_path)))
    step = trainer.optimizer.step

    def signalled() -> None:
        trainer.optimizer.step = step  # a second SIGINT would quit at once
        os.kill(os.getpid(), number)
        step()
    trainer.optimizer.step = signalled
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 128 + number
    assert read_checkpoint(trainer.checkpoint_dir / "latest.pth")["epoch"] == 1


def test_what_works_around_our_loop_leaves_a_loop_of_its_own_alone_and_says_so(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"precision": "bf16", "accumulate": 2, "ema_decay": 0.9, "valid_steps": 2}
    plain, other = (build(ConfigParser(old_config(tmp_path / str(len(more)), **more)))
                    for more in ({}, settings))
    for trainer in (plain, other):
        trainer.train()
    assert "no effect" in capsys.readouterr().out
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])
