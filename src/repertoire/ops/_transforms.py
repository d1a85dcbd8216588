"""Whether a function of torch.func is at work."""

from __future__ import annotations

import torch

__all__ = ["transformed"]


def transformed() -> bool:
    """True if `torch.func` transforms what runs: `grad`, `vmap`, `jvp` and what is made of them.

    Streamed reductions have derivatives of their own, which no transform can look into. Where one is at work, they go
    through the whole matrix instead, with operations that every transform knows.
    """
    return not torch.compiler.is_compiling() and bool(torch._C._are_functorch_transforms_active())
