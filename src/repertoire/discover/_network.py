"""A small network on frozen features: rows are moved, compared with prototypes on the sphere, and grouped by them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.discover._base import Discoverer, Found, reduced
from repertoire.discover._kmeans import counted
from repertoire.discover._number import By
from repertoire.ops import pinned_kmeans

__all__ = ["Network", "OnPrototypes", "agreement", "spread_out", "train"]

Objective = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Of two views `[B, d]`, the labels `[B]`, -1 for none, which rows they are `[B]`, and the share of the training that
is over: a scalar."""


class Network(nn.Module):
    r"""Moves rows and compares them with prototypes.

    A row x becomes :math:`z = u(x + W_2\,\mathrm{relu}(W_1 x + b))`, where u makes its length 1. At first nothing is
    moved: :math:`W_2` is zero.

    Args:
        prototypes: float `[K, d]`, where these start.
        hidden: units of the hidden layer.
        generator: draws the weights.
    """

    def __init__(self, prototypes: Tensor, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        width = prototypes.shape[1]
        self.into = nn.Parameter(torch.randn(hidden, width, generator=generator) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Parameter(torch.zeros(width, hidden))
        self.contrasted = nn.Parameter(torch.randn(64, width, generator=generator) / math.sqrt(width))
        self.prototypes = nn.Parameter(prototypes.clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Unit rows `[N, d]`."""
        return F.normalize(rows + F.relu(rows @ self.into.T + self.bias) @ self.out.T)

    def cosines(self, z: Tensor) -> Tensor:
        """Cosines with the prototypes `[N, K]`."""
        return z @ F.normalize(self.prototypes).T

    def contrast(self, z: Tensor) -> Tensor:
        """What contrastive losses compare `[N, 64]`."""
        return z @ self.contrasted.T


def train(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    epochs: int,
    rate: float,
    batch_size: int,
    noise: float,
    generator: torch.Generator,
    balanced: bool = True,
) -> None:
    """Adam with a learning rate that falls to zero along a cosine, on two views of each row with noise added to them.

    Args:
        balanced: half of a batch is drawn from the rows with a label, on average, however few these are.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    seen = labels >= 0
    weights = torch.ones(len(x))
    if balanced and 0 < int(seen.sum()) < len(x):
        weights[~seen] = float(seen.sum()) / float((~seen).sum())
    batch_size = min(batch_size, len(x))
    steps = epochs * math.ceil(len(x) / batch_size)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        index = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
        rows = x[index]
        views = [rows + noise * torch.randn(rows.shape, generator=generator) for _ in range(2)]
        optimizer.zero_grad()
        # Whoever calls may have switched gradients off.
        with torch.enable_grad():
            objective(views[0], views[1], labels[index], index, step / steps).backward()
        optimizer.step()


def agreement(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the logits of each view `[2, B, K]` with the targets of the other one."""
    return -(targets.flip(0) * logits.log_softmax(2)).sum(2).mean()


def spread_out(logits: Tensor) -> Tensor:
    """How far the mean prediction is from even, log K less its entropy: 0 where every class is as frequent."""
    # At 0 the slope of the entropy has no bound.
    mean = logits.softmax(-1).flatten(0, -2).mean(0).clamp_min(1e-12)
    return math.log(len(mean)) - torch.special.entr(mean).sum()


class OnPrototypes(Discoverer):
    """A discoverer that trains a `Network`. A subclass has the options of one, and `_objective`."""

    by: By
    components: int
    hidden: int
    epochs: int
    rate: float
    batch_size: int
    noise: float
    temperature: float

    def _rows(self, x: Tensor) -> Tensor:
        """Rows as the network gets them, with a mean variance of 1."""
        return reduced(x, self.components)

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = counted(self.classes, x, labels, self.by, generator)
        rows = self._rows(x)
        rows = rows / rows.norm(dim=1).mean().clamp_min(1e-12)
        centres = pinned_kmeans(F.normalize(rows), classes, labels, starts=10, generator=generator).centres
        network = self._trained(rows, labels, known, centres, generator)
        with torch.no_grad():
            cosines = network.cosines(network(rows))
        answers = self._allowed(cosines, known)
        p = (answers / self.temperature).softmax(1)
        return Found(answers.argmax(1), 1 - cosines.amax(1), classes, interval, p)

    def _allowed(self, cosines: Tensor, known: int) -> Tensor:
        """Cosines `[N, K]`, without those of known classes where no row that has no label can be of one."""
        if getattr(self, "mixed", True) or cosines.shape[1] == known:
            return cosines
        return cosines.index_fill(1, torch.arange(known), -torch.inf)

    def _trained(
        self, rows: Tensor, labels: Tensor, known: int, centres: Tensor, generator: torch.Generator
    ) -> Network:
        network = Network(centres, self.hidden, generator)

        def objective(first: Tensor, second: Tensor, seen: Tensor, index: Tensor, progress: float) -> Tensor:
            return self._objective(network, torch.cat([first, second]), seen, progress)

        self._run(network, rows, labels, objective, generator)
        return network

    def _run(
        self,
        network: nn.Module,
        rows: Tensor,
        labels: Tensor,
        objective: Objective,
        generator: torch.Generator,
        *,
        epochs: int | None = None,
        balanced: bool = True,
    ) -> None:
        width = rows.shape[1]
        train(
            network,
            rows,
            labels,
            objective,
            epochs=epochs or self.epochs,
            rate=self.rate,
            batch_size=self.batch_size,
            noise=self.noise / math.sqrt(width),  # rows have a mean length of 1
            generator=generator,
            balanced=balanced,
        )

    def _objective(self, network: Network, views: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Loss of two views one after the other `[2B, d]` with labels `[B]`."""
        raise NotImplementedError
