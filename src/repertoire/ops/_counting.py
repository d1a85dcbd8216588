"""Passes that are not to count: no running statistics, no memories, and the same random numbers once more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire.ops._memory import frozen_memories

__all__ = ["not_counting", "rewinding"]


@contextlib.contextmanager
def not_counting(module: nn.Module) -> Iterator[None]:
    """Keeps the running statistics of batch normalisation as they are, though the layers stay in training mode, and
    lets memories remember nothing: for passes that look at a batch again.

    Args:
        module: what is called, with all that is in it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.ops import not_counting
        >>> layer = nn.BatchNorm1d(2)
        >>> with not_counting(layer):
        ...     _ = layer(torch.randn(8, 2) + 5)
        >>> layer.running_mean, int(layer.num_batches_tracked)
        (tensor([0., 0.]), 0)
    """
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


def rewinding(device: torch.device) -> Callable[[], None]:
    """Notes torch's random state, and gives a function that goes back to it: what is drawn then is drawn once more.

    Passes that are to have the same dropout masks each begin with a call of it.

    Args:
        device: where random numbers are drawn.

    Example:
        >>> import torch
        >>> from repertoire.ops import rewinding
        >>> rewind = rewinding(torch.device("cpu"))
        >>> first = torch.rand(3)
        >>> rewind()
        >>> torch.equal(torch.rand(3), first)
        True
    """
    if device.type != "cuda":
        state = torch.random.get_rng_state()
        return lambda: torch.random.set_rng_state(state)
    on_device = torch.cuda.get_rng_state(device)
    return lambda: torch.cuda.set_rng_state(on_device, device)
