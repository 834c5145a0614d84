"""torch's optimizers without what they do beside their work.

That is an import of torch's compiler, over a second, and labels for its profiler, 10 us a step.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


def spare_compiler() -> None:
    """Spares torch's optimizers what they do for ``torch.compile`` alone; the rest stays as it is.

    They import ``torch._dynamo`` to tell it what not to trace, also where nothing is traced. Call
    it before the first optimizer is made: what it does not recognise it leaves alone.
    """
    hidden = torch._disable_dynamo(lambda: None).__code__
    for method in vars(Optimizer).values():
        if getattr(method, "__code__", None) is hidden:
            # where torch keeps what it would have got from torch._dynamo
            setattr(method.__wrapped__, "__dynamo_disable", method.__wrapped__)
    for kind in vars(torch.optim).values():
        step = vars(kind).get("step") if isinstance(kind, type) else None
        if getattr(step, "__name__", "") and step.__code__.co_name == "_use_grad":
            kind.step = _without_graph_break(step.__wrapped__)


def drop_gradients(optimizer: Any) -> None:
    """What ``optimizer.zero_grad(set_to_none=True)`` does, but without a label in the profiler."""
    if getattr(optimizer.zero_grad, "__func__", None) is not Optimizer.zero_grad:
        optimizer.zero_grad(set_to_none=True)  # one of its own
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def _without_graph_break(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer's ``step`` in the gradient mode that it asks for."""

    @functools.wraps(step)
    def lean_step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return lean_step
