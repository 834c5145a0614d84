import pytest
import torch
from torch import nn

from utils.devices.parallel import place_if_unplaced, place_model, unwrap_model
from utils.errors import ConfigError

CPU = torch.device("cpu")


def compiled(model):
    """As torch.compile wraps it, without loading the compiler."""
    wrapper = nn.Module()
    wrapper._orig_mod = model
    return wrapper


@pytest.mark.parametrize(("ids", "kind"), [([], nn.Linear), ([0], nn.Linear),
                                           ([0, 1], nn.DataParallel)])
def test_more_than_one_gpu_is_data_parallel(ids, kind):
    assert type(place_model(nn.Linear(1, 1), CPU, ids)) is kind


def test_model_is_not_wrapped_twice():
    wrapped = nn.DataParallel(nn.Linear(1, 1))
    assert place_model(wrapped, CPU, [0, 1]) is wrapped


def test_channels_last_is_a_setting():
    model = place_model(nn.Conv2d(3, 4, 3), CPU, [], channels_last=True)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrap", [
    lambda model: model, nn.DataParallel, compiled,
    lambda model: nn.DataParallel(compiled(model)), lambda model: compiled(nn.DataParallel(model))])
def test_unwrapped_model_is_the_model_itself(wrap):
    model = nn.Linear(1, 1)
    assert unwrap_model(wrap(model)) is model


def test_attribute_called_module_is_not_taken_for_a_wrapper():
    model = nn.Linear(1, 1)
    model.module = nn.Linear(2, 2)
    assert unwrap_model(model) is model


@pytest.mark.parametrize("n_gpu", [0, 1, None])
def test_model_that_somebody_has_placed_is_left_alone(n_gpu):
    model = nn.Linear(1, 1, device="meta")
    assert place_if_unplaced(model, n_gpu) == (torch.device("meta"), model)


@pytest.mark.parametrize("n_gpu", [0, None])
def test_unplaced_model_is_on_the_cpu_without_gpus(n_gpu):
    model = nn.Linear(1, 1)
    assert place_if_unplaced(model, n_gpu) == (CPU, model)


def test_unplaced_model_is_placed_on_as_many_gpus_as_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr("utils.devices.parallel.prepare_device",
                        lambda n_gpu: asked.append(n_gpu) or (torch.device("meta"), []))
    device, model = place_if_unplaced(nn.Linear(1, 1), 3)
    assert (asked, device, model.weight.device) == ([3], torch.device("meta"), device)


def test_model_without_parameters_is_on_the_cpu():
    model = nn.ReLU()
    assert place_if_unplaced(model, None) == (CPU, model)


@pytest.mark.parametrize("options", [{"mode": "fastest"}, {"mod": "default"}])
def test_options_that_the_compiler_refuses_are_told(options):
    with pytest.raises(ConfigError, match=r"trainer\.compile: torch\.compile refuses"):
        place_model(nn.Linear(1, 1), torch.device("cpu"), [], compiled=options)
