"""A model that says how large it is."""

from abc import abstractmethod
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy


class BaseModel(nn.Module):
    """Base class of all models; printing one shows its layers and its trainable parameters.

    Raises:
        TypeError: on construction, for a class that does not define ``forward``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "BaseModel":
        if getattr(cls.forward, "__isabstractmethod__", False):
            raise TypeError(f"{cls.__name__} must define forward()")
        return super().__new__(cls)

    @abstractmethod
    def forward(self, *inputs: Any) -> Any:
        """Computes the output of a batch."""

    def num_trainable_parameters(self) -> int:
        """How many numbers training changes, without those of layers that wait for a batch."""
        return sum(parameter.numel() for parameter in self.parameters()
                   if parameter.requires_grad and not is_lazy(parameter))

    def __str__(self) -> str:
        return f"{super().__str__()}\nTrainable parameters: {self.num_trainable_parameters()}"
