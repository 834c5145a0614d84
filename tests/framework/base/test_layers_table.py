from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from base.layers import MAX_ROWS, layer_table, state_bytes_of


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


class Blocks(nn.Module):
    """Calls one layer twice, gives a tuple and a dict, and works outside of its layers too."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.pair = Pair()
        self.unused = nn.Linear(3, 3)

    def forward(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        first, _ = self.pair(self.shared(self.shared(data)))
        return {"out": first @ first.T, "first": first}


class Pair(nn.Module):
    def forward(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return data * 2, data[:, :1]


class Vmapped(nn.Module):
    """Uses what does not go with the hooks that count."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 2)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        torch.func.grad(lambda one: (one ** 2).sum())(data.detach())
        return self.linear(data)


def step(model: Any, rows: int = 4) -> Callable[[], None]:
    """A training step on random numbers."""
    def run() -> None:
        output = model(torch.randn(rows, 6))
        output = output["out"] if isinstance(output, dict) else output
        output.sum().backward()

    return run


def row(table: str, name: str) -> list[str]:
    return next(line.split() for line in table.splitlines() if line.split()[0] == name)


def is_hooked(model: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layers_have_type_shape_parameters_and_flops() -> None:
    model = net()
    table = layer_table(model, step(model))
    assert row(table, "0") == ["0", "Linear", "(4,", "16)", "112", "768"]  # 2 * 4 * 6 * 16 FLOPs
    assert row(table, "1") == ["1", "ReLU", "(4,", "16)", "0", "0"]
    assert row(table, "2") == ["2", "Linear", "(4,", "2)", "34", "256"]


def test_totals_tell_what_is_trained_and_what_is_needed() -> None:
    model = net()
    model[0].requires_grad_(False)
    table = layer_table(model, step(model), state_bytes=100)
    assert "parameters   146, of which 34 are trained" in table
    assert "FLOPs        1.02k in one forward" in table
    assert "memory       at least 4.27 KiB on cpu to train with this batch:" in table
    assert "weights 584 B, gradients 136 B" in table
    # of 34 parameters; kept is the output of ReLU, 4 x 16 numbers, which the last layer needs too
    assert "optimizer 3.32 KiB, activations 256 B" in table


def test_optimizer_state_is_counted_by_the_parameter() -> None:
    model = net()
    adam = torch.optim.Adam(model.parameters())
    assert state_bytes_of(adam) == 0
    step(model)()
    adam.step()
    assert state_bytes_of({"a": adam}) == pytest.approx(8, abs=0.2)  # and a count for each tensor


def test_module_that_is_called_twice_has_one_row() -> None:
    model = Blocks()
    table = layer_table(model, step(model))
    assert row(table, "shared") == ["shared", "Linear", "x2", "(4,", "6)", "42", "576"]
    assert row(table, "pair") == ["pair", "Pair", "(4,", "6)", "+1", "0", "0"]
    assert "unused" not in table
    assert "192 of them outside of the layers" in table


def test_module_that_calls_no_child_is_a_layer() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    data = torch.randn(2, 3, 8)
    table = layer_table(attention, lambda: attention(data, data, data)[0].sum().backward())
    assert "MultiheadAttention" in table.splitlines()[1]
    assert "parameters   288, of which 288 are trained" in table


def test_only_the_first_forward_counts() -> None:
    model = net()

    def twice() -> None:
        step(model)()
        model.eval()
        with torch.no_grad():
            model(torch.randn(100, 6))

    assert layer_table(model, twice) == layer_table(model.train(), step(model))


def test_parts_that_are_called_themselves_count() -> None:
    model = net()
    table = layer_table(model, lambda: model[2](model[0](torch.randn(4, 6))).sum().backward())
    assert row(table, "0")[-1] == "768"
    assert "FLOPs        1.02k in one forward" in table


@pytest.mark.parametrize("wrap", [
    lambda model: torch.compile(model, backend="eager"), nn.DataParallel], ids=["compile", "dp"])
def test_wrapped_model_is_looked_into(wrap: Any, recwarn: pytest.WarningsRecorder) -> None:
    model = net()
    assert layer_table(wrap(model), step(wrap(model))) == layer_table(model, step(model))
    assert not recwarn.list


def test_without_flops_where_they_cannot_be_counted() -> None:
    model = Vmapped()
    table = layer_table(model, step(model))
    assert row(table, "linear") == ["linear", "Linear", "(4,", "2)", "14", "-"]
    assert "FLOPs        not counted" in table
    assert "weights 56 B" in table


def test_error_of_the_batch_is_raised_and_no_hook_left() -> None:
    model = net()
    calls = []

    def fail() -> None:
        calls.append(model(torch.randn(4, 6)))
        raise ValueError(f"broken batch {len(calls)}")

    with pytest.raises(ValueError, match="broken batch 1"):
        layer_table(model, fail)
    assert not is_hooked(model)


def test_hooks_are_gone_and_results_are_the_same() -> None:
    torch.manual_seed(1)
    model = net()
    torch.manual_seed(2)
    layer_table(model, step(model))
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    torch.manual_seed(2)
    step(model)()
    assert not is_hooked(model)
    assert all(torch.equal(one, parameter.grad) for one, parameter in zip(
        found, model.parameters(), strict=True))


def test_long_tables_show_the_largest_layers_at_80_columns() -> None:
    model = nn.Sequential()
    for index in range(MAX_ROWS + 10):
        model.add_module(f"a_layer_with_a_very_long_name_{'x' * 40}_{index:03}",
                         nn.Linear(6, 6, bias=index % 2 == 0))
    lines = layer_table(model, step(model)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("a_layer_with") and "..." in lines[1] and "_000 " in lines[1]
    assert len([line for line in lines if "Linear" in line]) == MAX_ROWS
    assert "... and 10 smaller layers: 360 parameters, 2.88k FLOPs" in lines


def test_recomputed_activations_are_not_kept() -> None:
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*(nn.Linear(6, 6) for _ in range(8)))

        def forward(self, data: torch.Tensor) -> Any:
            return checkpoint(self.body, data.requires_grad_(), use_reentrant=False)

    model = Recomputed()
    table = layer_table(model, step(model))
    assert row(table, "body.0")[-1] == "288"  # of the forward, not of what the backward repeats
    assert "activations 96 B" in table  # the input alone


def test_model_that_is_not_called_has_no_rows() -> None:
    table = layer_table(net(), lambda: None)
    assert table.startswith("no layers: the model was not called")
    assert "activations 0 B" in table


def test_padded_sequences_of_a_transformer_are_counted_in_validation_too() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 1)

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return self.body(data, src_key_padding_mask=torch.arange(5).expand(3, 5) > 3)

    model = Padded()

    def validate() -> None:
        with torch.no_grad():
            model.eval()(torch.ones(3, 5, 8))

    assert "not counted" not in layer_table(model, validate)
    assert torch.backends.mha.get_fastpath_enabled()
