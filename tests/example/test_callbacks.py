from types import SimpleNamespace

import pytest
import torch
from torch import nn

from logger.trackers import Trackers
from trainer.callbacks import MAX_IMAGES, InputImages, ParameterHistograms, first_images


class Writer:
    mode = "train"

    def __init__(self, enabled=True):
        self.enabled = enabled
        self.shown = []

    def add_images(self, tag, images):
        self.shown.append((tag, images))

    def add_histogram(self, name, values, bins):
        self.shown.append((name, values))


def trainer_of(model=None, enabled=True):
    return SimpleNamespace(writer=Writer(enabled), model=model, counters=SimpleNamespace(step=7),
                           trackers=Trackers(), settings=SimpleNamespace(tensorboard=True))


def test_images_come_once_an_epoch():
    trainer, batch = trainer_of(), (torch.rand(4, 1, 8, 8), None)
    for batch_idx in range(3):
        InputImages().on_step_end(trainer, batch_idx, batch)
    assert len(trainer.writer.shown) == 1


def test_images_are_stretched_to_the_full_range():
    generator = torch.Generator().manual_seed(1)
    images = first_images(torch.randn(3, 1, 4, 4, generator=generator) * 9)
    assert images.amin((1, 2, 3)).tolist() == [0] * 3 and images.amax((1, 2, 3)).tolist() == [1] * 3


def test_only_the_first_images_are_shown():
    assert len(first_images(torch.rand(MAX_IMAGES + 5, 3, 2, 2))) == MAX_IMAGES


@pytest.mark.parametrize("data", [
    torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), torch.nan),
    torch.ones(2, 1, 2, 2, dtype=torch.uint8)])
def test_flat_and_nan_images_are_shown_in_range(data):
    assert first_images(data).isfinite().all()


@pytest.mark.parametrize("batch", [
    {"x": torch.rand(2, 3, 4, 4)}, [1, "a", torch.rand(2, 3, 4, 4)],
    (torch.rand(5), {"inner": (torch.rand(2, 3, 4, 4),)})])
def test_images_are_found_in_a_batch_of_any_shape(batch):
    assert first_images(batch).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("data", [torch.rand(4, 10), torch.rand(4, 2, 8, 8), ["text"], {"a": 1}])
def test_inputs_that_are_no_images_are_passed_over(data):
    assert first_images(data) is None


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_each_parameter_has_a_histogram_by_its_bare_name(wrap):
    trainer = trainer_of(wrap(nn.Linear(2, 3)))
    ParameterHistograms().on_epoch_end(trainer, 1, {})
    assert [(name, len(values)) for name, values in trainer.writer.shown] == [
        ("weight", 6), ("bias", 3)]


def test_histogram_leaves_out_what_is_not_finite(caplog):
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0], model.weight[1, 1] = torch.nan, torch.inf
        model.bias.fill_(torch.nan)
    trainer = trainer_of(model)
    ParameterHistograms().on_epoch_end(trainer, 5, {})
    assert [(name, len(values)) for name, values in trainer.writer.shown] == [("weight", 2)]
    assert "epoch 5: 2 values of weight are not finite" in caplog.text


def test_histogram_of_short_floats_is_of_numbers_that_numpy_knows():
    trainer = trainer_of(nn.Linear(2, 2, dtype=torch.bfloat16))
    ParameterHistograms().on_epoch_end(trainer, 1, {})
    assert trainer.writer.shown[0][1].numpy().shape == (4,)


@pytest.mark.parametrize("call", [
    lambda trainer: InputImages().on_step_end(trainer, 0, (torch.rand(4, 1, 8, 8), None)),
    lambda trainer: ParameterHistograms().on_epoch_end(trainer, 1, {})])
def test_nothing_is_computed_for_a_writer_that_is_off(call):
    trainer = trainer_of(nn.Linear(1, 1), enabled=False)
    call(trainer)
    assert trainer.writer.shown == []
