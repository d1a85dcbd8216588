"""Passes that are not to count."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook

from repertoire.ops import Memory, frozen_memories

__all__ = ["not_counting", "nothing_counts"]


@contextlib.contextmanager
def not_counting(module: nn.Module) -> Iterator[None]:
    """Keeps the running statistics of batch normalisation as they are, though the layers stay in training mode, and
    lets memories remember nothing: for passes that look at a batch again."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(m.momentum, m.num_batches_tracked) for m in layers]
    for layer in layers:
        layer.momentum = 0.0
        layer.num_batches_tracked = None
    try:
        with frozen_memories(module):
            yield
    finally:
        for layer, (momentum, tracked) in zip(layers, kept, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked = tracked


@contextlib.contextmanager
def nothing_counts() -> Iterator[None]:
    """Does the same for whatever module is called meanwhile, where nobody knows which those are."""
    with contextlib.ExitStack() as stack:
        met: set[int] = set()

        def freeze(module: nn.Module, inputs: object) -> None:
            if isinstance(module, _BatchNorm | Memory) and id(module) not in met:
                met.add(id(module))
                stack.enter_context(not_counting(module))

        handle = register_module_forward_pre_hook(freeze)
        try:
            yield
        finally:
            handle.remove()
