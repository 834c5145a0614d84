"""A copy of a state in host memory, so that training goes on while it is written."""

import copy
from typing import Any

import torch


def copy_to_host(state: Any, buffers: Any = None) -> Any:
    """A copy of nested state with its tensors in host memory, equal to it in every other way.

    Args:
        buffers: an earlier copy whose tensors are written over where they fit.
    """
    if isinstance(state, torch.Tensor):
        if state.is_meta:  # another process has its content
            return state
        if state.layout is not torch.strided or state.is_quantized:
            return state.detach().cpu().clone()
        fits = (isinstance(buffers, torch.Tensor) and buffers.shape == state.shape
                and buffers.dtype == state.dtype and buffers.stride() == state.stride())
        host = buffers if fits else torch.empty_like(
            state, device="cpu", requires_grad=False, memory_format=torch.preserve_format)
        return host.copy_(state.detach())  # waits for the device
    if isinstance(state, dict):
        kept = buffers if isinstance(buffers, dict) else {}
        host = copy.copy(state)  # with its type, and the attributes that a state_dict has
        for key, value in state.items():
            host[key] = copy_to_host(value, kept.get(key))
        return host
    if type(state) in (list, tuple):
        old = buffers if isinstance(buffers, (list, tuple)) else ()
        return type(state)(copy_to_host(value, old[index] if index < len(old) else None)
                           for index, value in enumerate(state))
    return copy.deepcopy(state)
