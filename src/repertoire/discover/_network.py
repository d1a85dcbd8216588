"""A small network on frozen features: rows are moved, compared with prototypes on the sphere, and grouped by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.discover._base import Found, reduced
from repertoire.discover._number import Counting
from repertoire.docstrings import described
from repertoire.ops import pinned_kmeans
from repertoire.ranges import AtLeast, Positive

__all__ = ["Batch", "Network", "OnPrototypes", "agreement", "descend", "spread_out", "supervised", "train"]


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        views: two of each row, one after the other `[2B, d]`.
        labels: int64 `[B]`, -1 for none.
        places: which rows they are `[B]`.
        progress: the share of the training that is over.
        known: the number of known classes.
    """

    views: Tensor
    labels: Tensor
    places: Tensor
    progress: float
    known: int


Objective = Callable[[Batch], Tensor]


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
    """Trains on two views of each row, with noise added to them.

    Args:
        balanced: half of a batch is drawn from the rows with a label, on average, however few these are.
    """
    seen = labels >= 0
    known = int(labels.max()) + 1
    weights = torch.ones(len(x))
    if balanced and 0 < int(seen.sum()) < len(x):
        weights[~seen] = float(seen.sum()) / float((~seen).sum())
    batch_size = min(batch_size, len(x))
    steps = epochs * math.ceil(len(x) / batch_size)

    def loss(step: int) -> Tensor:
        index = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
        rows = x[index]
        views = [rows + noise * torch.randn(rows.shape, generator=generator) for _ in range(2)]
        return objective(Batch(torch.cat(views), labels[index], index, step / steps, known))

    descend(network, rate, steps, loss)


def descend(layers: nn.Module, rate: float, steps: int, loss: Callable[[int], Tensor]) -> None:
    """Steps of Adam down a loss, with a learning rate that falls to zero along a cosine."""
    optimizer = torch.optim.Adam(layers.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        # Whoever calls may have switched gradients off.
        with torch.enable_grad():
            loss(step).backward()
        optimizer.step()


def supervised(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of both views `[2, B, K]` of the rows that have a label; 0 where none has."""
    seen = labels >= 0
    if not bool(seen.any()):
        return logits.new_zeros(())
    return F.cross_entropy(logits[:, seen].flatten(0, 1), labels[seen].repeat(2))


def agreement(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the logits of each view `[2, B, K]` with the targets of the other one."""
    return -(targets.flip(0) * logits.log_softmax(2)).sum(2).mean()


def spread_out(logits: Tensor) -> Tensor:
    """How far the mean prediction is from even, log K less its entropy: 0 where every class is as frequent."""
    # At 0 the slope of the entropy has no bound.
    mean = logits.softmax(-1).flatten(0, -2).mean(0).clamp_min(1e-12)
    return math.log(len(mean)) - torch.special.entr(mean).sum()


class OnPrototypes(Counting):
    """A discoverer that trains a `Network`. A subclass has `_objective`."""

    temperature: Annotated[float, Positive] = 0.1
    components: Annotated[int, AtLeast(1)] = 128
    hidden: Annotated[int, AtLeast(1)] = 256
    epochs: Annotated[int, AtLeast(1)] = 50
    rate: Annotated[float, Positive] = 1e-3
    batch_size: Annotated[int, AtLeast(2)] = 256
    noise: Annotated[float, AtLeast(0)] = 0.5

    _arguments: ClassVar[Mapping[str, str]] = described(
        """
        temperature: of the answers, 0.1.
        hidden: units of the residual layer.
        epochs: passes over as many rows as there are.
        rate: learning rate of Adam, which falls to zero along a cosine.
        batch_size: rows of a step, of which about half have a label.
        noise: length of the noise of a view, in units of the mean length of a row.
        """
    )
    _docstring: ClassVar[Mapping[str, str]] = {
        "Attributes": """
        labels_, n_classes_, n_classes_interval_, probabilities_: see :class:`repertoire.discover.Discoverer`.
        outlier_scores_: 1 less the cosine with the nearest prototype.
        """
    }

    @staticmethod
    def example_options() -> dict[str, Any]:
        """Few epochs for a small example."""
        return {"epochs": 10, "hidden": 32}

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = self._counted(x, labels, generator)
        rows = reduced(x, self.components)
        rows = rows / rows.norm(dim=1).mean().clamp_min(1e-12)
        cosines = self._trained(rows, labels, known, classes, generator)
        answers = self._allowed(cosines, known)
        p = (answers / self.temperature).softmax(1)
        return Found(answers.argmax(1), 1 - cosines.amax(1), classes, interval, p)

    def _allowed(self, cosines: Tensor, known: int) -> Tensor:
        """Cosines `[N, K]`, without those of known classes where no row that has no label can be of one."""
        if getattr(self, "mixed", True) or cosines.shape[1] == known:
            return cosines
        return cosines.index_fill(1, torch.arange(known), -torch.inf)

    def _trained(self, rows: Tensor, labels: Tensor, known: int, classes: int, generator: torch.Generator) -> Tensor:
        """Cosines `[N, K]` of rows, whose mean length is 1, with prototypes that have learned."""
        centres = pinned_kmeans(F.normalize(rows), classes, labels, starts=10, generator=generator).centres
        network = Network(centres, self.hidden, generator)
        self._run(network, rows, labels, lambda batch: self._objective(network, rows, batch), generator)
        with torch.no_grad():
            return network.cosines(network(rows))

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

    def _objective(self, network: Network, rows: Tensor, batch: Batch) -> Tensor:
        """Loss of a batch of the rows `[N, d]`."""
        raise NotImplementedError
