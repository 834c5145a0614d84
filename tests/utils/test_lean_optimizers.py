import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.lean_optimizers import drop_gradients

ROOT = Path(__file__).parents[2]
# every optimizer of torch for a few steps with a scheduler, saved and loaded in between
STEPS = """
import copy, sys, torch
if sys.argv[1] == "lean":
    from utils.lean_optimizers import spare_compiler
    spare_compiler()
weights = {}
for name in ("Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "LBFGS", "Muon",
             "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"):
    kind = getattr(torch.optim, name)
    torch.manual_seed(1)
    layer = torch.nn.Linear(4, 3, bias=False)
    optimizer = kind(layer.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for step in range(4):
        def closure():
            optimizer.zero_grad()
            loss = layer(torch.ones(2, 4)).square().sum()
            loss.backward()
            return loss
        closure()
        optimizer.step(closure)
        scheduler.step()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert not layer(torch.ones(1, 4)).isnan().any() and layer.weight.requires_grad, name
    weights[name] = layer.weight.detach().clone()
torch.save(weights, sys.argv[2])
print("torch._dynamo" in sys.modules)
"""


def test_optimizers_do_the_same_without_importing_the_compiler(tmp_path):
    loaded, weights = {}, {}
    for kind in ("plain", "lean"):
        result = subprocess.run([sys.executable, "-c", STEPS, kind, str(tmp_path / kind)],
                                cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        loaded[kind] = result.stdout.strip()
        weights[kind] = torch.load(tmp_path / kind, weights_only=True)
    assert loaded == {"plain": "True", "lean": "False"}
    for name, weight in weights["plain"].items():
        assert torch.equal(weight, weights["lean"][name]), name


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_dropped_gradients_are_none_in_every_group(kind):
    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = kind([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=0.1)
    (first.sum() + second.sum()).backward()
    drop_gradients(optimizer)
    assert first.grad is None and second.grad is None


def test_an_optimizer_with_a_zero_grad_of_its_own_is_asked():
    asked = []

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            asked.append(set_to_none)

    drop_gradients(Own([torch.ones(1, requires_grad=True)], lr=0.1))
    wrapped = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    wrapped.zero_grad = lambda set_to_none: asked.append("wrapped")
    drop_gradients(wrapped)
    assert asked == [True, "wrapped"]
