"""Digits of eight pixels as rows, scenes made of them, and perceptrons that several claims look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import load


def digit_rows(seed: int, device: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test digits as rows, with their labels."""
    splits = load("digits", seed=seed)
    seen, unseen = pixels(splits.train), pixels(splits.test)
    return (seen[0].to(device), seen[1].to(device)), (unseen[0].to(device), unseen[1].to(device))


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
