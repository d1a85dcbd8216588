"""Projectors and predictors: the perceptrons between features and the loss."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

__all__ = ["mlp"]


def mlp(*widths: int, batch_norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them.

    Args:
        widths: of the input, of each hidden layer, and of the output.
        batch_norm: batch normalisation before each ReLU, in place of a bias.
        last_norm: batch normalisation of the output as well, without scale and shift.
    """
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        last = number == len(widths) - 2
        layers.append(nn.Linear(inputs, outputs, bias=not (last_norm if last else batch_norm)))
        if last and last_norm:
            layers.append(nn.BatchNorm1d(outputs, affine=False))
        elif not last:
            layers += [nn.BatchNorm1d(outputs), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers)
