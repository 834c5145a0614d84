"""What --dry-run shows, and which batches --debug and --overfit take."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from base import Callback
from base.debug import describe, limited
from tests.framework.tiny_run import ClippingTrainer, make_trainer, same
from utils.errors import ConfigError


@pytest.fixture(autouse=True)
def no_anomaly_detection() -> Any:
    yield
    torch.autograd.set_detect_anomaly(False)


def config(overfit_batches: int | None = None, is_debug: bool = False) -> Any:
    trainer = SimpleNamespace(overfit_batches=overfit_batches, precision="fp32")
    return SimpleNamespace(is_debug=is_debug, trainer=trainer)


def described(trainer: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level("INFO", logger="train"):
        describe(trainer)
    return [line for text in caplog.messages for line in text.splitlines()]


def test_description_has_config_batches_shapes_and_an_epochs_log(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path, len_epoch=3)
    lines = described(trainer, caplog)
    assert trainer.counters.batch == 1
    assert '    "name": "tiny",' in lines
    for line in ("training: 5 batches per epoch", "validation: 1 batches per epoch",
                 "trainer.len_epoch: 3 batches per epoch",
                 "parameters   146, of which 146 are trained",
                 "batch: (float32 (8, 6), int64 (8,))", "output: float32 (8, 2)"):
        assert line in lines
    shown = lines[lines.index("the epoch's log, after one batch:") + 1:]
    assert [line.split()[0] for line in shown] == [
        "loss", "accuracy", "val_loss", "val_accuracy", "lr"]


class Unwanted(Callback):
    def on_step_end(self, *args: Any) -> None:
        raise AssertionError

    on_valid_batch_end = on_epoch_end = on_step_end


def test_description_writes_nothing_and_calls_no_callback(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    described(make_trainer(tmp_path, callbacks=(Unwanted(),), tensorboard=True), caplog)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"is_stream": True}, {"validation": 0.0}])
def test_loaders_without_length_or_validation_are_described_too(
        tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]) -> None:
    lines = described(make_trainer(tmp_path, **options), caplog)
    assert ("training: an unknown number of batches per epoch" in lines) is ("is_stream" in options)
    assert any("validation:" in line for line in lines) is ("is_stream" in options)


def test_layers_that_wait_for_a_batch_are_described_too(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model = torch.nn.LazyLinear(2)
    assert "parameters   14, of which 14 are trained" in described(trainer, caplog)


class OtherClasses(ClippingTrainer):
    """Validates on targets that the model has no output for."""

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        self.criterion(torch.zeros(1, 2), torch.tensor([5]))
        return {}


def test_what_fails_in_training_or_validation_is_found(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="Target 5 is out of bounds"):
        describe(make_trainer(tmp_path, kind=OtherClasses))
    trainer = make_trainer(tmp_path)
    trainer.model = torch.nn.Linear(5, 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        describe(trainer)


def test_monitored_value_that_does_not_come_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"watches 'val_acc', but.*val_accuracy, lr"):
        describe(make_trainer(tmp_path, monitor="max val_acc"))
    describe(make_trainer(tmp_path, monitor="max added", callbacks=(Unwanted(),)))


def test_debugging_takes_the_first_batches_of_both_and_detects_anomalies() -> None:
    assert limited(config(is_debug=True), range(9), range(5, 9)) == ([0, 1], [5, 6])
    assert torch.is_anomaly_enabled()


def test_debugging_works_without_validation() -> None:
    assert limited(config(is_debug=True), range(9), None) == ([0, 1], None)


def test_overfitting_trains_and_validates_on_the_same_batches_in_order() -> None:
    train, valid = limited(config(3), range(9), range(5, 9))
    assert list(train) == list(valid) == [0, 1, 2] and len(train) == 3
    assert not torch.is_anomaly_enabled()


def test_what_a_model_does_in_place_does_not_stay_in_the_batches() -> None:
    train, _ = limited(config(1), [torch.ones(2)], None)
    for batch in train:
        batch.zero_()
    assert next(iter(train)).tolist() == [1.0, 1.0]


def test_otherwise_the_loaders_are_as_they_were() -> None:
    loaders = range(9), range(3)
    assert same(limited(config(), *loaders), loaders)
