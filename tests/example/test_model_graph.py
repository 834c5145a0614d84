"""The graph of the model in TensorBoard: there, and nothing else is changed by it."""

import copy
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from logger import TensorboardWriter
from tests.framework.tiny_run import same
from trainer.callbacks import ModelGraph
from utils.rng import RandomState
from utils.runs.checkpoint_file import read_checkpoint

BATCH = torch.ones(2, 4), torch.zeros(2)


class Changing(nn.Module):
    """All that a forward may change: buffers, attributes, random streams, its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.dropout = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout()
        self.register_buffer("count", torch.zeros(1))
        self.last: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        x.mul_(2)
        self.last = self.dropout(self.norm(self.layer(x)))
        return self.last + torch.rand(1)


class Pairs(nn.Module):
    """Two inputs as one argument, a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, pair: Any) -> dict[str, torch.Tensor]:
        return {"sum": self.layer(pair[0]) + pair[1]}


class Refusing(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise ZeroDivisionError("mine\nand more")
        return super().forward(x)


class Texts(nn.Linear):
    def forward(self, texts: list[str]) -> torch.Tensor:
        return super().forward(torch.ones(len(texts), 4))


def graph_of(folder: Path) -> set[str]:
    """The names of its nodes."""
    events = EventAccumulator(str(folder)).Reload()
    return {node.name for node in events.Graph().node} if events.Tags()["graph"] else set()


def draw(folder: Path, model: Any, batch: Any = BATCH, times: int = 1) -> set[str]:
    writer = TensorboardWriter(folder, logging.getLogger("test"), True)
    trainer = SimpleNamespace(writer=writer, model=model, counters=SimpleNamespace(step=0))
    callback = ModelGraph()
    for number in range(times):
        callback.on_epoch_start(trainer, number)
        state, streams = copy.deepcopy(model.state_dict()), RandomState().state_dict()
        modes, data = [one.training for one in model.modules()], copy.deepcopy(batch[0])
        with torch.no_grad():
            model.eval()(data)
        for module, is_training in zip(model.modules(), modes, strict=True):
            module.training = is_training
        model.load_state_dict(state)  # that it was called changes nothing here
        RandomState().load_state_dict(streams)
        callback.on_step_end(trainer, number, batch)
    writer.close()
    return graph_of(folder)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel, pytest.param(
    torch.compile, marks=pytest.mark.slow)])
def test_graph_has_the_layers_by_their_bare_names(tmp_path: Path, wrap: Any) -> None:
    nodes = draw(tmp_path, wrap(nn.Sequential(nn.Linear(4, 3), nn.ReLU())))
    assert any("Linear[0]" in node for node in nodes)


def test_model_batch_and_random_streams_stay_as_they_are(tmp_path: Path) -> None:
    model = Changing()
    model.norm.eval()  # a frozen layer
    model.layer.weight.grad = torch.ones(3, 4)
    modes = [module.training for module in model.modules()]
    batch = torch.ones(2, 4), torch.zeros(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    streams = RandomState().state_dict()
    assert draw(tmp_path, model, batch)
    assert same(before, model.state_dict()) and same(streams, RandomState().state_dict())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.layer.weight.grad, torch.ones(3, 4))
    assert model.norm.weight.grad is None
    assert torch.equal(batch[0], torch.ones(2, 4))


def test_several_inputs_and_a_dict_as_output_have_a_graph(tmp_path: Path) -> None:
    assert draw(tmp_path, Pairs(), ((torch.ones(2, 4), torch.ones(3)), torch.zeros(2)))


def test_graph_is_drawn_once(tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(TensorboardWriter, "add_graph", lambda *args, **_: calls.append(args),
                        raising=False)
    draw(tmp_path, nn.Linear(4, 3), times=3)
    assert len(calls) == 1


@pytest.mark.parametrize(("model", "batch", "text"), [
    (Refusing(4, 3), BATCH, r"ZeroDivisionError: mine\)"),
    (Texts(4, 3), (["text"], 0), "AttributeError|TypeError|RuntimeError")])
def test_model_that_cannot_be_traced_is_told_in_one_line(
        tmp_path: Path, caplog: Any, capsys: pytest.CaptureFixture[str], model: Any, batch: Any,
        text: str) -> None:
    assert draw(tmp_path, model, batch, times=2) == set()
    message, = (record.getMessage() for record in caplog.records
                if record.name == "trainer.callbacks")  # TensorBoard's reader tells as well
    assert message.startswith("trainer.log_graph: there is no graph") and "\n" not in message
    assert re.search(text, message)
    assert capsys.readouterr() == ("", "")


def test_several_processes_have_no_graph(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("trainer.callbacks.num_processes", lambda: 2)
    model = Refusing(4, 3)
    assert draw(tmp_path, model) == set()
    assert caplog.messages == ["trainer.log_graph: several processes train, there is no graph"]


@pytest.mark.parametrize("settings", [[], ["trainer.precision=bf16", "trainer.ema_decay=0.9"]],
                         ids=str)
def test_run_with_a_graph_ends_as_one_without(
        tmp_path: Path, config_dict: dict[str, Any], in_process: Callable[..., int],
        settings: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_dict))
    states = []
    for name in ("true", "false"):
        assert in_process("train.py", "-c", tmp_path / "config.json", "--run-id", name,
                          "trainer.epochs=1", f"trainer.log_graph={name}", *settings) == 0
        logs = tmp_path / "saved" / "log" / "Mnist_LeNet" / name
        assert bool(graph_of(logs)) == (name == "true")
        states.append(read_checkpoint(
            tmp_path / "saved" / "models" / "Mnist_LeNet" / name / "latest.pth"))
    for part in ("state_dict", "optimizer", "rank_parts"):
        assert same(states[0][part], states[1][part])
    assert "random" in states[0]["rank_parts"][0]
