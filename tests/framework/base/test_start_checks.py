"""What is found before the first step, while nothing is on the disk yet."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassF1Score

from base import BaseDataLoader, Callback
from tests.framework.tiny_run import (
    ClippingTrainer,
    NoisyData,
    final_state,
    history,
    make_trainer,
    same,
    train,
)
from utils.errors import CheckpointError, ConfigError, RunError
from utils.metric_tracker import make_tracker


class Counts(Callback):
    """Adds a value to the log, as a callback may."""

    def __init__(self) -> None:
        self.num_validated = 0

    def on_valid_batch_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self.num_validated += 1

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        log["val_own"] = 1.0


class WholeSet(ClippingTrainer):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        metric = MulticlassF1Score(num_classes=2, average=None)
        metric.__name__ = "F1"
        self.valid_metrics = make_tracker([metric], "cpu")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["val_acc", "val_F1", "val_F1_2", "los"])
def test_monitored_value_that_will_not_come_is_refused_before_the_folder_is_made(
        tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}', but.*loss, .*val_F1_0, val_F1_1"):
        train(tmp_path, kind=WholeSet, monitor=f"max {name}")
    assert not files_below(tmp_path)


def test_each_value_of_a_vector_can_be_monitored(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, kind=WholeSet, monitor="max val_F1_1")
    trainer.train()
    assert trainer.best_monitor.has_best


def test_value_that_a_callback_adds_can_be_monitored(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, monitor="max val_own", callbacks=(Counts(),))
    trainer.train()
    assert trainer.mnt_best == 1.0


def test_value_that_never_comes_ends_the_run_with_its_epoch_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"watches 'val_other'.*log has epoch, loss.*val_own.*"
                                          "saved: go on with another"):
        train(tmp_path, monitor="max val_other", callbacks=(Counts(),))
    assert (tmp_path / "models" / "tiny" / "run" / "checkpoint-epoch1.pth").is_file()


def test_trial_of_the_validation_calls_no_callback(tmp_path: Path) -> None:
    callback = Counts()
    trainer = make_trainer(tmp_path, callbacks=(callback,), epochs=1, sanity_batches=2)
    trainer.train()
    assert callback.num_validated == 1 and trainer.history.rows()[0]["val_own"] == 1.0


class Fails(ClippingTrainer):
    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        raise RunError("no such class")


@pytest.mark.parametrize("sanity_batches", [0, 1])
def test_validation_that_fails_is_found_before_the_training(tmp_path: Path,
                                                            sanity_batches: int) -> None:
    with pytest.raises(RunError, match="no such class"):
        train(tmp_path, kind=Fails, sanity_batches=sanity_batches)
    assert bool(files_below(tmp_path)) is (sanity_batches == 0)


@pytest.mark.parametrize("is_trained", [True, False])
def test_parameters_of_the_criterion_are_trained_or_told_not_to_be(
        tmp_path: Path, is_trained: bool, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.criterion = nn.CrossEntropyLoss(weight=torch.ones(2))
    trainer.criterion.scale = nn.Parameter(torch.ones(()))
    if is_trained:
        trainer.optimizer.add_param_group({"params": trainer.criterion.parameters()})
    trainer.train()
    told = [text for text in caplog.messages if "no optimizer trains" in text]
    assert told == ([] if is_trained else [
        "loss: no optimizer trains scale; give them to one, or freeze them"])


def test_patience_without_a_monitor_is_told(tmp_path: Path,
                                            caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, monitor="off", early_stop=3, epochs=1)
    assert "trainer.early_stop has no effect without trainer.monitor" in caplog.text


class Warns(ClippingTrainer):
    """As some metrics do: of few samples there may be none of a class."""

    shown: list[bool] = []  # noqa: RUF012

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("few samples", UserWarning, stacklevel=1)
        self.shown.append(bool(caught))
        return super()._valid_epoch(epoch)


@pytest.mark.filterwarnings("always:few samples")
def test_warnings_of_the_trial_are_not_shown(tmp_path: Path) -> None:
    train(tmp_path, kind=Warns, epochs=1)
    assert Warns.shown == [False, True]


class DrawsAndCounts(ClippingTrainer):
    """Its validation draws from a generator of its own and counts, in the model as well."""

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        model.register_buffer("num_validated", torch.zeros(()))
        super().__init__(model, *args, **options)
        self.generators = [torch.Generator().manual_seed(3)]
        self.own = Counter()

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.num_validated += 1
        self.own.count += 1
        drawn = torch.rand((), generator=self.generators[0])
        return {**super()._valid_epoch(epoch), "drawn": drawn, "count": self.own.count}


class CountsCalls(Callback):
    """Counts what the model is called with, as its hook."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_start(self, trainer: Any) -> None:
        trainer.model.register_forward_hook(self)

    def __call__(self, *call: Any) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_trial_of_the_validation_changes_no_state_so_that_a_resume_is_exact(
        tmp_path: Path) -> None:
    def run(folder: str, **options: Any) -> Path:
        return train(tmp_path / folder, kind=DrawsAndCounts, callbacks=(CountsCalls(),), **options)

    whole, folder = run("whole", sanity_batches=0), run("parts", stop_batch=7)
    run("parts", resume=folder / "latest.pth")
    assert history(folder) == history(whole)
    assert [row["val_count"] for row in history(folder)] == [1, 2]
    assert same(final_state(folder), final_state(whole))


class OfSamples(ClippingTrainer):
    """Its batches are lists of samples, of which the model gets the first four numbers."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        data, target = torch.utils.data.default_collate(batch)
        return super()._train_step((data[:, :4], target), batch_idx)


class SaysHowMany(OfSamples):
    num_samples = staticmethod(len)


def alike(samples: list[Any]) -> list[Any]:
    """(4,), (4,): as two fields of a batch may be."""
    return [(data[:4], data[:4].softmax(0)) for data, _ in samples]


@pytest.mark.parametrize("make_loader", [BaseDataLoader, DataLoader])
@pytest.mark.parametrize(("kind", "is_told"), [(OfSamples, True), (SaysHowMany, False)])
def test_batch_that_does_not_tell_its_size_is_told(
        tmp_path: Path, kind: Any, make_loader: Any, is_told: bool, capsys: Any) -> None:
    trainer = make_trainer(tmp_path, kind=kind, validation=0.0, epochs=1)
    trainer.model = nn.Linear(4, 4)
    trainer.train_metrics = make_tracker([], "cpu")
    trainer.data_loader = make_loader(NoisyData(), 8, collate_fn=alike)
    trainer.train()
    text = "warning: a batch that was made of 8 samples, ((float32 (4,), float32 (4,)), "
    printed = capsys.readouterr().out
    assert (text in printed) is is_told
    assert printed.count("is taken for one of 4, and") == is_told


class Unsteady(ClippingTrainer):
    """Has what cannot be put back, or not compared, after the trial."""

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        self.bank = nn.Module()
        self.bank.register_buffer("seen", torch.zeros(0, 2))
        self.late, self.numpy = Late(), Late({"v": np.zeros(2)})

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        self.bank.seen = torch.cat([self.bank.seen, torch.zeros(1, 2)])
        self.late.state = {"v": 1}
        return super()._valid_epoch(epoch)


class Late:
    """A state that is there once it is needed, and that it needs then."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state or {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = {"v": state["v"]}


def test_state_that_cannot_be_put_back_is_told_and_the_run_goes_on(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, kind=Unsteady)
    trainer.without_state = ("numpy",)
    trainer.train()
    for text in ("Module, whose state cannot be put back (RuntimeError: ", "Late, whose state"):
        assert f"the trial of the validation changed a {text}" in caplog.text
    trainer = make_trainer(tmp_path / "numpy", kind=Unsteady)
    with pytest.raises(CheckpointError, match=r"numpy\.v: a numpy\.ndarray cannot be saved"):
        trainer.train()


def test_monitored_value_that_a_row_has_by_itself_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"watches 'seconds', which .* your own is own_seconds"):
        train(tmp_path, monitor="min seconds")
    assert not files_below(tmp_path)
