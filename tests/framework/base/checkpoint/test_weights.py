import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from base.checkpoint.weights import bare_keys, load_partly, load_weights, start_from
from tests.framework.tiny_run import (
    ClippingTrainer,
    final_state,
    history,
    make_schedule,
    same,
    train,
)
from utils.errors import CheckpointError, ConfigError
from utils.runs.checkpoint_file import write_checkpoint


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.body(x)))


def net(seed: int, classes: int = 3) -> Net:
    torch.manual_seed(seed)
    return Net(classes)


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def config(init_from: Path | str | None = None, freeze: tuple[str, ...] = (),
           resume: Path | None = None) -> Any:
    run = SimpleNamespace(init_from=None if init_from is None else str(init_from),
                          freeze=list(freeze))
    return SimpleNamespace(run=run, resume=resume)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "old.pth", {"state_dict": net(1).state_dict(), "epoch": 9})
    return tmp_path / "old.pth"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_whole_state_is_loaded() -> None:
    model = net(2)
    load_weights(model, net(1).state_dict(), "x")
    assert equal(model, net(1))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.",
                                    "_orig_mod.module."])
def test_prefixes_of_wrappers_do_not_matter(prefix: str) -> None:
    model = net(2)
    load_weights(model, {prefix + key: value for key, value in net(1).state_dict().items()}, "x")
    assert equal(model, net(1))


def test_wrapped_model_takes_bare_keys() -> None:
    model = nn.DataParallel(net(2))
    load_weights(model, net(1).state_dict(), "x")
    assert equal(model.module, net(1))


def test_prefix_of_some_keys_only_is_a_name() -> None:
    state = {"module.a": 1, "b": 2}
    assert bare_keys(state) == state


def test_empty_state_has_no_prefix() -> None:
    assert bare_keys({}) == {}


def test_prefix_that_the_model_has_itself_is_a_name() -> None:
    own = {"module.a": 1}
    assert bare_keys({"module.a": 1}, own) == own


def test_state_of_another_model_is_refused_with_the_reasons() -> None:
    state = net(1, classes=5).state_dict()
    del state["body.bias"]
    with pytest.raises(CheckpointError, match=r"^file: is of another model than this Net: Missing "
                                              r"key.*body\.bias.*size mismatch for head.*"
                                              r"--init-from instead of --resume$"):
        load_weights(net(2), state, "file")


@pytest.mark.parametrize("value", [[1.0], "x", None, 3])
def test_entry_that_is_no_tensor_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="file: is of another model than this Net"):
        load_weights(net(2), net(1).state_dict() | {"head.bias": value}, "file")


def test_empty_state_is_refused() -> None:
    with pytest.raises(CheckpointError, match="of another model"):
        load_weights(net(2), {}, "file")


def test_tensor_that_cannot_be_copied_is_told() -> None:
    state = net(1).state_dict() | {"head.bias": torch.zeros(3, device="meta")}
    with pytest.raises(CheckpointError, match="file: its weights cannot be copied into this Net"):
        load_partly(net(2), state, "file")


class Inside(nn.Module):
    """A child of the name that wrappers give theirs."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.module = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


class Growing(Inside):
    """A buffer that grows with each training batch."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.register_buffer("seen", torch.zeros(0, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen = torch.cat([self.seen, x.mean(0, keepdim=True)])
        return self.module(x - self.seen.mean(0))

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        self.seen = torch.zeros_like(state[f"{prefix}seen"])
        super()._load_from_state_dict(state, prefix, *args)


class Extra(Inside):
    """A state beside its tensors."""
    count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += self.training
        return self.module(x) * (1 + 0.1 * self.count)

    def get_extra_state(self) -> dict[str, Any]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Renaming(Inside):
    """Its keys in a state are not those of its attributes."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.register_state_dict_post_hook(self._rename)
        self.register_load_state_dict_pre_hook(self._rename_back)

    @staticmethod
    def _rename(module: nn.Module, state: Any, prefix: str, _: Any) -> None:
        for key in list(state):
            state[key.replace("module.", "encoder/")] = state.pop(key)

    @staticmethod
    def _rename_back(module: nn.Module, state: Any, prefix: str, *_: Any) -> None:
        for key in list(state):
            state[key.replace("encoder/", "module.")] = state.pop(key)


def waiting(body: nn.Sequential) -> nn.Module:
    """A layer that gets its size from the first batch."""
    return nn.Sequential(nn.LazyLinear(6), body)


def tied(body: nn.Sequential) -> nn.Module:
    middle = nn.Linear(6, 6)
    return nn.Sequential(middle, nn.Tanh(), middle, body)


def normed(body: nn.Sequential) -> nn.Module:
    nn.utils.parametrizations.weight_norm(body[0])
    return body


def kind_of(make: Any) -> type[ClippingTrainer]:
    """The tiny run with another model around its own."""
    class Kind(ClippingTrainer):
        def __init__(self, model: Any, criterion: Any, metrics: Any, optimizer: Any, *args: Any,
                     **options: Any) -> None:
            model = make(model)
            optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
            super().__init__(model, criterion, metrics, optimizer, *args[:-1],
                             make_schedule("StepLR", optimizer), **options)
    return Kind


@pytest.mark.parametrize("make", [Inside, nn.DataParallel, Growing, Extra, Renaming, waiting, tied,
                                  normed], ids=lambda make: make.__name__)
def test_every_model_that_torch_saves_and_loads_can_be_resumed(tmp_path: Path, make: Any) -> None:
    whole = train(tmp_path / "whole", kind=kind_of(make))
    folder = train(tmp_path / "parts", kind=kind_of(make), stop_batch=7)
    train(tmp_path / "parts", kind=kind_of(make), resume=folder / "latest.pth")
    assert same(final_state(folder), final_state(whole))
    assert history(folder) == history(whole)


def test_partial_loading_takes_what_fits(log: pytest.LogCaptureFixture) -> None:
    model, source = net(2), net(1, classes=5)
    load_partly(model, source.state_dict(), "file")
    assert torch.equal(model.body.weight, source.body.weight)
    assert torch.equal(model.head.weight, net(2).head.weight)


def test_partial_loading_reports_loaded_missing_unexpected_and_mismatched(
        log: pytest.LogCaptureFixture) -> None:
    state = net(1, classes=5).state_dict()
    del state["body.bias"]
    state["other"] = torch.zeros(1)
    load_partly(net(2), state, "file")
    assert log.messages == [
        "weights from file: loaded 6 of 9; missing: body.bias; unexpected: other; "
        "of another shape: head.weight, head.bias"]


def test_report_of_a_whole_state_is_short(log: pytest.LogCaptureFixture) -> None:
    load_partly(net(2), net(1).state_dict(), "file")
    assert log.messages == ["weights from file: loaded 9 of 9"]


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"nothing in it fits this Net: missing: body"):
        load_partly(net(2), {"other": torch.zeros(1)}, "file")


def test_new_run_starts_from_weights(path: Path) -> None:
    model = net(2)
    start_from(model, config(path))
    assert equal(model, net(1))


def test_of_a_folder_the_best_is_taken(path: Path) -> None:
    write_checkpoint(path.with_name("model_best.pth"), {"state_dict": net(3).state_dict()})
    write_checkpoint(path.with_name("latest.pth"), {"state_dict": net(4).state_dict()})
    model = net(2)
    start_from(model, config(path.parent))
    assert equal(model, net(3))


def test_resumed_run_does_not_start_from_weights_again(path: Path) -> None:
    model = net(2)
    start_from(model, config(path, resume=Path("latest.pth")))
    assert equal(model, net(2))


def test_without_init_from_the_model_stays() -> None:
    model = net(2)
    start_from(model, config())
    assert equal(model, net(2))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        start_from(net(2), config(tmp_path / "gone.pth"))


@pytest.mark.parametrize(("patterns", "frozen"), [
    (("body*",), {"body.weight", "body.bias"}),
    (("*.bias",), {"body.bias", "norm.bias", "head.bias"}),
    (("body.weight", "norm.?eight"), {"body.weight", "norm.weight"})])
@pytest.mark.parametrize("resume", [None, Path("latest.pth")])
def test_patterns_freeze_parameters(
        patterns: tuple[str, ...], frozen: set[str], resume: Path | None) -> None:
    model = net(2)
    start_from(model, config(freeze=patterns, resume=resume))
    assert {name for name, parameter in model.named_parameters()
            if not parameter.requires_grad} == frozen


@pytest.mark.parametrize("pattern", ["conv*", "BODY*", "body", ""])
def test_pattern_that_matches_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(ConfigError, match=rf"freeze: '{pattern.replace('*', '.')}' names no parame"
                                          r"ter; there are: body\.weight, body\.bias, norm"):
        start_from(net(2), config(freeze=("head*", pattern)))
