"""The claim of *Learning useful representations for shifting tasks and distributions* (2022)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones import ConvNet
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, pixels
from repertoire.claims.beds._named import get

SIZE = 14
RUNS, SHOTS = 5, 5
RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)


class Characters(NamedTuple):
    """Drawings `[N, 1, 14, 14]` of characters to learn, of others to choose on, and of others for the test."""

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor


@functools.lru_cache(maxsize=1)
def _drawings(budget: Budget) -> tuple[Tensor, Tensor]:
    splits = replace(get("omniglot-all"), size=SIZE).splits(budget, 0)
    parts = [pixels(part) for part in (splits.train, splits.val, splits.test)]
    x, y = (torch.cat([part[k] for part in parts]) for k in (0, 1))
    return x.view(len(x), -1, SIZE, SIZE)[:, :1], y


def characters(budget: Budget, seed: int) -> Characters:
    """Every fourth character is for the test, the same for every seed; the seed draws two thirds of as many to learn,
    and as many others to choose on."""
    x, y = _drawings(budget)
    classes = int(y.max()) + 1
    tested = np.arange(3, classes, 4) if classes > 20 else np.arange(3, classes, 2)
    others = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(classes), tested))
    count = min(2 * len(tested) // 3, len(others) // 2)

    def of(chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        numbers = torch.full((classes,), -1)
        numbers[torch.from_numpy(chosen)] = torch.arange(len(chosen))
        kept = numbers[y] >= 0
        return x[kept].to(budget.device), numbers[y[kept]].to(budget.device)

    return Characters(*of(others[:count]), *of(others[count : 2 * count]), *of(tested))


def trained(data: Characters, seed: int, width: int, epochs: int) -> nn.Module:
    """A convolutional network without its head, trained to tell the characters apart."""
    torch.manual_seed(seed)
    backbone = ConvNet(in_channels=1, image_size=SIZE, width=width, depth=3)
    network = nn.Sequential(backbone, nn.Linear(backbone.out_features, int(data.y.max()) + 1)).to(data.x.device)
    fit_tensors(network, data.x, data.y, F.cross_entropy, epochs=epochs, learning_rate=3e-3, batch_size=64)
    return backbone


def probed(features: Tensor, labels: Tensor, ridge: float, shots: int = SHOTS) -> float:
    """Accuracy of a linear probe by least squares that learned the first rows of each class, on all the others."""
    classes, y = labels.unique(return_inverse=True)
    order = y.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(y), device=y.device) - torch.searchsorted(y[order], y[order])
    seen = rank < shots
    known = features[seen].double()
    mean, std = known.mean(0), known.std(0).clamp_min(1e-6)
    x = (known - mean) / std
    targets = F.one_hot(y[seen], len(classes)).double()
    bias = targets.mean(0)
    within = x @ x.T / x.shape[1]
    within.diagonal().add_(ridge)
    weights = x.T @ torch.linalg.solve(within, targets - bias) / x.shape[1]
    scores = (features[~seen].double() - mean) / std @ weights + bias
    return float((scores.argmax(1) == y[~seen]).double().mean())


@torch.no_grad()
def transferred(bodies: Sequence[nn.Module], data: Characters) -> float:
    """Accuracy on unseen characters, of features side by side; the ridge is chosen on others that are unseen, too."""

    def side_by_side(x: Tensor) -> Tensor:
        return torch.cat([body(x) for body in bodies], 1)

    val = side_by_side(data.val_x)
    best = max(RIDGES, key=lambda ridge: probed(val, data.val_y, ridge))
    return probed(side_by_side(data.test_x), data.test_y, best)


@claim(
    "rich-features-cat",
    statement=(
        "The features of five networks of different seeds, side by side, tell unseen characters apart by five labels "
        "each more accurately than those of one network of the same width in all."
    ),
    metric="accuracy of a linear probe on unseen characters",
    method="five networks side by side",
    baseline="one network as wide",
    bed="omniglot-all",
    data="Omniglot at 14 pixels, unseen characters",
    threshold=0.01,
    learned=0.05,
    ceiling=1.0,
    guard="the same probe on pixels; the rival has five times as many weights as the five networks together",
)
def side_by_side(budget: Budget, seed: int) -> Measured:
    """Zhang and Bottou, *Learning useful representations for shifting tasks and distributions* (2022). All networks
    learn the same drawings with the same settings. `extra` has one of the five. The trivial answer is that of the same
    probe on pixels. The wide network has as many features as the five together, and five times as many weights: on
    pilot seed 1000 it comes to 0.807 and the five to 0.789, but one with as many weights as they have, of width 18, to
    0.729.
    """
    data = characters(budget, seed)
    width, epochs = budget.pick(smoke=2, small=8, full=16), budget.pick(smoke=1, small=20, full=100)
    several = [trained(data, 100 * seed + number, width, epochs) for number in range(RUNS)]
    wide = trained(data, 100 * seed, RUNS * width, epochs)
    return Measured(
        transferred(several, data),
        transferred([wide], data),
        extra={"one of the five": transferred(several[:1], data)},
        trivial=transferred([nn.Flatten()], data),
    )
