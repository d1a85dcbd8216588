"""Photographs as features of a frozen network, whose classes come in stages; estimators that are shown each by itself.

The order of the classes, and which rows are learned from, are the seed's; the rows of the test are always the same.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget, arm
from repertoire.claims._stages import class_means, staged
from repertoire.claims.beds import _named
from repertoire.data import Samples, Splits
from repertoire.protocols import ClassIncremental, StageData, observe

PHOTOGRAPHS = "CIFAR-10, frozen features of a pretrained network, whose classes come in stages"

EACH = 200
"""Rows of each class that are learned from."""


@functools.lru_cache(maxsize=2)
def _whole(budget: Budget) -> Splits:
    splits = _named.get("cifar10-lite0").splits(budget, 0)
    if splits.train.noun != "vector":  # images of the user's own
        splits = _named.features("cifar10-lite0", budget, 0)
    return splits


def photographs(budget: Budget, seed: int) -> Splits:
    """The rows of a seed: 200 of each class to learn from."""
    splits = _whole(budget)
    each = budget.pick(smoke=20, small=EACH, full=2 * EACH)
    return replace(
        splits,
        train=_some(splits.train, each, seed),
        test=_some(splits.test, budget.pick(smoke=10, small=10_000, full=10_000), 0),
    )


def _some(samples: Samples, each: int, seed: int) -> Samples:
    """So many rows of each class at most, drawn by the seed, in their order."""
    labels = samples.labels
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    ordered = labels[order]
    return samples.subset(np.sort(order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < each]))


class _First(ClassIncremental):
    """The first stages of others."""

    def __init__(self, step: int, until: int | None) -> None:
        super().__init__(step=step)
        self.until = until

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        yield from itertools.islice(super().stages(splits, seed), self.until)


def estimated(splits: Splits, seed: int, estimator: Any, step: int = 2, until: int | None = None) -> dict[str, float]:
    """What :func:`repertoire.protocols.measure` says of an estimator that goes through the stages, or the first of
    them; and "within", its accuracy at the end where the stage of each row is known."""
    outcome = observe(_First(step, until), estimator, splits, seed)
    found = dict(outcome.metrics)
    if outcome.within is not None:
        found["within"] = float(outcome.within[-1].mean())
    return found


@arm
def network(
    budget: Budget,
    seed: int,
    *,
    method: str,
    step: int = 2,
    until: int | None = None,
    rate: float = 0.001,
    epochs: int = 20,
) -> dict[str, float]:
    """A linear layer on the features, trained by a method of continual learning through the stages."""
    return staged(
        budget,
        seed,
        splits=photographs(budget, seed),
        method=method,
        protocol=f"classes:step={step},memory=0",
        until=until,
        backbone="identity",
        head="linear:zero=true",
        optimizer="adamw",
        lr=rate,
        epochs=budget.pick(smoke=1, small=epochs, full=epochs),
    )


def class_means_in_the_end(budget: Budget, seed: int) -> float:
    """What class means of the features, for which nothing is trained, keep of the photographs."""
    return class_means(photographs(budget, seed), seed, "classes:step=2")["accuracy"]


class Descent:
    """A linear layer, or a network with a hidden layer, that learns each stage by gradient descent and nothing else;
    it has `partial_fit` and `predict`. All logits compete from the start, and rows are scaled to unit length."""

    def __init__(self, hidden: int, rate: float, epochs: int, batch: int, seed: int, outputs: int) -> None:
        self.rate, self.epochs, self.batch, self.seed, self.outputs = rate, epochs, batch, seed, outputs
        self.hidden, self.stages = hidden, 0
        self.names: list[str] = []
        self.layers: nn.Module | None = None

    def partial_fit(self, x: np.ndarray, y: np.ndarray, classes: Any = None) -> Descent:
        torch.manual_seed(self.seed + self.stages)
        self.stages += 1
        if self.layers is None:
            inner = [nn.Linear(x.shape[1], self.hidden), nn.ReLU()] if self.hidden else []
            last = nn.Linear(self.hidden or x.shape[1], self.outputs)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.layers = nn.Sequential(*inner, last)
        self.names += [name for name in dict.fromkeys(y.tolist()) if name not in self.names]
        targets, rows = torch.tensor([self.names.index(name) for name in y.tolist()]), self._unit(x)
        optimizer = torch.optim.SGD(self.layers.parameters(), lr=self.rate)
        for _ in range(self.epochs):
            for index in torch.randperm(len(rows)).split(self.batch):
                optimizer.zero_grad()
                F.cross_entropy(self.layers(rows[index]), targets[index]).backward()
                optimizer.step()
        return self

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        assert self.layers is not None
        return np.array(self.names)[self.layers(self._unit(x))[:, : len(self.names)].argmax(1).numpy()]

    def _unit(self, x: np.ndarray) -> torch.Tensor:
        return F.normalize(torch.from_numpy(np.asarray(x, dtype=np.float32)))
