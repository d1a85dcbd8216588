"""Every weight in two bytes: the compressor that any other has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from repertoire.registry import register
from repertoire.weights import Stored, form

__all__ = ["half", "half_form"]

_LARGEST = torch.finfo(torch.float16).max


@register("compressors", "half")
def half(model: nn.Module, dtype: Literal["float16", "bfloat16"] = "float16") -> Stored:
    """Half precision: every number of 32 bits in 16, rounded to the nearest.

    The network computes in 32 bits again once it is opened, so that its answers do not depend on what the processor can
    do with 16. A tensor with a number that float16 cannot hold stays as it is.

    Args:
        model: the network; it stays as it is.
        dtype: "float16" keeps 11 bits of each number and "bfloat16" 8, of a wider range.

    Returns:
        The stored network, of form "half".

    Example:
        >>> import torch
        >>> from repertoire.compress import half
        >>> half(torch.nn.Linear(100, 10)).tensors["weight"].dtype
        torch.float16
    """
    narrow = getattr(torch, dtype)
    tensors = {}
    for name, value in model.state_dict().items():
        fits = value.dtype == torch.float32 and (dtype == "bfloat16" or bool((value.abs() <= _LARGEST).all()))
        tensors[name] = value.to(narrow) if fits else value.clone()
    return Stored("half", tensors)


@form("half")
def half_form(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The numbers of 16 bits, in the precision of the network."""
    own = model.state_dict()
    return Stored("dense", {k: v.to(own[k].dtype) if k in own else v for k, v in tensors.items()}).build(model)
