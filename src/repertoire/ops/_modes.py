"""Training and evaluation mode, changed for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating", "keeping_modes"]


@contextmanager
def keeping_modes(*modules: nn.Module) -> Iterator[None]:
    """Gives every submodule back the mode that it had, whatever happens in between.

    Each has a flag of its own: a network in training mode may hold batch normalisations that are frozen.

    Args:
        modules: any number of modules, each with all that is in it.

    Example:
        >>> from torch import nn
        >>> from repertoire.ops import keeping_modes
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with keeping_modes(net):
        ...     _ = net.train()
        >>> [module.training for module in net]
        [True, False]
    """
    modes = {each: each.training for module in modules for each in module.modules()}
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Puts modules in evaluation mode, and gives every submodule back the mode that it had, also after an error.

    Args:
        modules: any number of modules, each with all that is in it.

    Example:
        >>> from torch import nn
        >>> from repertoire.ops import evaluating
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluating(net):
        ...     print(net[0].training)
        False
        >>> [module.training for module in net]
        [True, False]
    """
    with keeping_modes(*modules):
        for module in modules:
            module.eval()
        yield
