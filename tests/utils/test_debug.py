"""What --dry-run shows, and which batches --debug and --overfit take."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from utils.debug import describe, first_batches, shapes


@pytest.fixture(autouse=True)
def no_anomaly_detection():
    yield
    torch.autograd.set_detect_anomaly(False)


def config(num_batches=None, is_overfit=False, len_epoch=None):
    return SimpleNamespace(
        config={"name": "x"}, num_batches=num_batches, is_overfit=is_overfit,
        trainer=SimpleNamespace(len_epoch=len_epoch),
        get_logger=lambda name, verbosity: logging.getLogger("debug-test"))


def described(caplog, *args, **kwargs):
    with caplog.at_level("INFO", logger="debug-test"):
        describe(config(**kwargs), nn.Linear(3, 2), *args)
    return [record.getMessage() for record in caplog.records]


def test_description_has_config_model_shapes_and_steps(caplog):
    batch = (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    lines = described(caplog, [batch] * 5, [batch] * 2, len_epoch=7)
    assert lines == ['{\n    "name": "x"\n}', str(nn.Linear(3, 2)), "parameters: 8",
                     "batch: (float32 (4, 3), int64 (4,))", "training: 5 batches per epoch",
                     "validation: 2 batches per epoch", "trainer.len_epoch: 7 batches per epoch"]


def test_loaders_without_length_or_batches_are_described_too(caplog):
    assert described(caplog, iter([]), None)[-1] == "parameters: 8"


@pytest.mark.parametrize(("batch", "text"), [
    (torch.zeros(2, 3, dtype=torch.uint8), "uint8 (2, 3)"), (torch.tensor(1.0), "float32 ()"),
    ({"data": torch.zeros(1), "target": [torch.zeros(2)]},
     "{data: float32 (1,), target: (float32 (2,))}"), ("text", "str"), (None, "NoneType")])
def test_shapes_follow_the_structure(batch, text):
    assert shapes(batch) == text


def test_debugging_takes_the_first_batches_of_both_and_detects_anomalies():
    assert first_batches(config(2), range(9), range(5, 9)) == ([0, 1], [5, 6])
    assert torch.is_anomaly_enabled()


def test_debugging_works_without_validation():
    assert first_batches(config(2), range(9), None) == ([0, 1], None)


def test_overfitting_trains_and_validates_on_the_same_batches_in_order():
    train, valid = first_batches(config(3, is_overfit=True), range(9), range(5, 9))
    assert train == valid == [0, 1, 2]
    assert not torch.is_anomaly_enabled()
