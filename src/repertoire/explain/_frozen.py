"""Parameters that take no gradients for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["frozen"]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Takes gradients from all parameters, and gives them back to those that had them.

    What only the weights' gradients need, the inputs of linear layers, is then not kept. Weights that something else
    computes (parametrised ones) are no leaves, and are left alone.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.is_leaf]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
