"""Precision of what losses are computed from."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_float32"]


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32, and anything wider as it is, so that a method in float64 stays in it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
