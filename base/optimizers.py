"""The optimizers of a run: what they train, and when they have made a step."""

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


def trainable(*modules: Any) -> list[nn.Parameter]:
    """The parameters that an optimizer gets: those of the modules that are not frozen."""
    return [parameter for module in modules if isinstance(module, nn.Module)
            for parameter in module.parameters() if parameter.requires_grad]


def each(optimizers: Any) -> Iterator[tuple[str, Any]]:
    """(name, optimizer) of one (its name is empty), or of a dict or list of them."""
    if isinstance(optimizers, dict):
        yield from ((str(name), one) for name, one in optimizers.items())
    elif isinstance(optimizers, (list, tuple)):
        yield from ((str(index), one) for index, one in enumerate(optimizers))
    elif optimizers is not None:
        yield "", optimizers


def learning_rates(optimizers: Any) -> dict[str, float]:
    """The lr of each optimizer's first parameter group: ``lr``, or ``lr_NAME`` of several."""
    return {f"lr_{name}" if name else "lr": float(one.param_groups[0]["lr"])
            for name, one in each(optimizers) if getattr(one, "param_groups", None)}


def warn_of_untrained(module: Any, label: str, optimizers: Any) -> None:
    """Tells of parameters that want gradients but that no optimizer has."""
    if not isinstance(module, nn.Module) or optimizers is None:
        return
    trained = {id(parameter) for _, one in each(optimizers)
               for group in getattr(one, "param_groups", ()) for parameter in group["params"]}
    left = [name for name, parameter in module.named_parameters()
            if parameter.requires_grad and id(parameter) not in trained]
    if left and trained:
        logger.warning("%s: no optimizer trains %s%s; give them to one, or freeze them", label,
                       ", ".join(left[:5]), f" and {len(left) - 5} more" if len(left) > 5 else "")


class StepWatch:
    """Notices which optimizers have made a step since it was last asked.

    An optimizer of torch tells by itself; any other is taken to step at each batch.

    Args:
        optimizers: one, or a dict or list of them.

    Attributes:
        is_waiting: whether one made no step at the last batch, so that gradients wait for it.
    """

    def __init__(self, optimizers: Any) -> None:
        self.is_waiting = False
        self._names = {name for name, _ in each(optimizers)}
        self._silent = {name for name, one in each(optimizers)
                        if not hasattr(one, "register_step_post_hook")}
        self._stepped: set[str] = set()
        for name, one in each(optimizers):
            if name not in self._silent:
                one.register_step_post_hook(lambda *_, name=name: self._stepped.add(name))

    def take(self) -> set[str]:
        """Names of those that have, since the last call."""
        stepped, self._stepped = self._stepped | self._silent, set()
        self.is_waiting = stepped != self._names
        return stepped
