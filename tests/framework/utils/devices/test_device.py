import pytest
import torch

from utils.devices import device as device_module
from utils.devices.device import can_pin_memory, prepare_device
from utils.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs there seem to be."""
    device_module._warn_once.cache_clear()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("wanted", "present", "name", "ids"), [
    (0, 0, "cpu", []), (0, 2, "cpu", []), (1, 0, "cpu", []), (1, 2, "cuda:0", [0]),
    (2, 2, "cuda:0", [0, 1]), (4, 2, "cuda:0", [0, 1])])
def test_first_gpus_are_taken_as_far_as_there_are(gpus, wanted, present, name, ids):
    gpus(present)
    assert prepare_device(wanted) == (torch.device(name), ids)


@pytest.mark.parametrize(("present", "text"), [
    (0, "no usable GPU: using the CPU"), (2, "only 2: using those")])
def test_too_few_gpus_are_a_warning_once(gpus, caplog, present, text):
    gpus(present)
    prepare_device(4)
    prepare_device(4)
    assert len(caplog.records) == 1 and text in caplog.text


def test_apples_gpu_serves_without_cuda(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert prepare_device(1) == (torch.device("mps"), [])


@pytest.mark.parametrize(("asked", "visible", "present", "text"), [
    ("0", 0, 0, "no GPU 0; it has: cpu"), ("cuda", 0, 0, "no cuda; it has: cpu"),
    ("mps", 0, 2, "no mps; it has: cpu, cuda, 0, 1"),
    ("1,2,5", 1, 2, "no GPU 2, 5; it has: cpu, cuda, 0, 1")])
def test_device_that_is_asked_for_has_to_be_there(gpus, monkeypatch, asked, visible, present, text):
    gpus(visible)
    monkeypatch.setattr(device_module, "_num_gpus", lambda: present)
    with pytest.raises(ConfigError, match=f"--device {asked}: this machine has {text}"):
        prepare_device(1, asked)


@pytest.mark.parametrize("asked", ["cpu", "cuda", "1", "0,1"])
def test_device_that_is_there_is_taken(gpus, asked):
    gpus(1 + ("," in asked))
    assert prepare_device(1, asked) == (torch.device("cuda:0"), [0])


@pytest.mark.parametrize("answer", [True, False])
def test_memory_is_pinned_where_there_is_cuda(monkeypatch, answer):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: answer)
    assert can_pin_memory() is answer
