"""Perceptrons that several claims look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims._training import fit_tensors, perceptron


def fitted_perceptron(seed: int, x: Tensor, y: Tensor, width: int, epochs: int, outputs: int = 10) -> nn.Module:
    """A perceptron trained with cross-entropy from weights that are a function of the seed."""
    torch.manual_seed(seed)
    return fit_tensors(perceptron(x.shape[1], outputs, width).to(x.device), x, y, F.cross_entropy, epochs=epochs)


@torch.no_grad()
def share_right(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((network(x).argmax(1) == y).float().mean())


@torch.no_grad()
def hidden_features(network: nn.Module, x: Tensor) -> Tensor:
    """The features before the last layer of a chain."""
    assert isinstance(network, nn.Sequential)
    return network[:-1](x)
