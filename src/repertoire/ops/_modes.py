"""Modules in another mode for a while, or with inputs of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["evaluating", "handing_copies", "keeping_modes"]


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
            if each.training is not training:
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


@contextmanager
def handing_copies(*modules: nn.Module) -> Iterator[None]:
    """Hands modules copies of the tensors that they are called with, which they may overwrite.

    A network that normalises its input in place (`x -= mean`) would otherwise change the caller's images, and be given
    something else when the same images pass once more.

    Args:
        modules: those that are called; what they call themselves gets no copies.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.ops import handing_copies
        >>> relu, x = nn.ReLU(inplace=True), torch.tensor([-1.0, 1.0])
        >>> with handing_copies(relu):
        ...     relu(x), x
        (tensor([0., 1.]), tensor([-1.,  1.]))
    """

    def copies(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return tree_map_only(Tensor, Tensor.clone, (args, kwargs))

    handles = [module.register_forward_pre_hook(copies, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
