"""The claim of *PLeaS -- Merging Models with Permutations and Least Squares* (2024)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.claims import Budget, ClaimError, Measured, claim
from repertoire.claims._training import train
from repertoire.claims.beds.handwriting import GARMENTS, split_images
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Batch, Loader, Samples, Splits
from repertoire.methods import Classifier
from repertoire.train import outputs
from repertoire.weights import State, Stored, permute_least_squares, refresh_batchnorm

TASKS = (range(5), range(5, 10))
"""The classes that each of two networks knows."""
APART = 1e12
"""A ridge from which nothing is fitted: what is left is the mean of matched units, and the others side by side."""


@dataclass
class Pair:
    """Two networks from different starts, each trained on its own half of the classes."""

    budget: Budget
    seed: int

    def __post_init__(self) -> None:
        budget = self.budget
        count = budget.pick(smoke=200, small=3000, full=9000)
        self.splits = split_images(budget, self.seed, count, bed="fashion-mnist")
        self.models: list[Classifier] = []
        for number in range(2):
            self.models.append(
                train(
                    self.known(self.splits, number),
                    backbone=budget.pick(
                        smoke="convnet:width=4,depth=2", small="resnet20:width=8,shortcut=B", full="resnet20:shortcut=B"
                    ),
                    epochs=budget.pick(smoke=1, small=6, full=60),
                    optimizer="adamw",
                    lr=1e-2,
                    batch_size=64,
                    augment="none",
                    seed=2 * self.seed + number,
                    device=budget.device,
                ).model
            )

    @staticmethod
    def known(splits: Splits, number: int) -> Splits:
        def own(samples: Samples) -> Samples:
            return samples.subset(np.flatnonzero(np.isin(samples.labels, TASKS[number])))

        return replace(splits, train=own(splits.train), val=own(splits.val), test=own(splits.test))

    def network(self, state: State, of: int = 0) -> nn.Module:
        net = copy.deepcopy(self.models[of])
        net.load_state_dict({**net.state_dict(), **state})
        return net.eval()

    def batches(self, of: int | None = None) -> Iterator[Batch]:
        return iter(Loader(self.splits.train, 100, shuffle=False, device=self.budget.device).epoch(0))

    def merged(self, width: float, *, fit: bool = True, by: Literal["weights", "activations"] = "activations") -> float:
        """Accuracy of one network in place of the two, each half of the classes with the head that knows it."""
        states = [{n: v for n, v in m.state_dict().items() if not n.startswith("head.")} for m in self.models]
        found = permute_least_squares(
            states, self.network, self.batches, width=width, by=by, samples=300, ridge=1e-4 if fit else APART
        )
        assert found.features is not None
        right = []
        for number, places in enumerate(found.features):
            net = self._with_head(found, number, torch.tensor(places, device=self.budget.device))
            refresh_batchnorm(net, self.batches())
            right.append(self.accuracy(net, number))
        return sum(right) / 2

    def _with_head(self, found: State | Stored, number: int, places: Tensor) -> Classifier:
        head = dict(self.models[number].head.state_dict(prefix="head."))
        name = "head.linear.weight"
        head[name] = head[name][:, places.clamp_min(0)] * (places >= 0)
        net = copy.deepcopy(self.models[number])
        if isinstance(found, Stored):
            return replace(found, tensors={**found.tensors, **head}).build(net).eval()  # type: ignore[return-value]
        net.load_state_dict({**found, **head})
        return net

    def accuracy(self, net: Classifier, number: int) -> float:
        """Of the images of a network's classes, the share that it tells right among these."""
        test = self.known(self.splits, number).test
        logits = outputs(net, test, device=torch.device(self.budget.device)).logits[:, list(TASKS[number])]
        return float((logits.argmax(1) + TASKS[number].start == np.asarray(test.labels)).mean())

    def majority(self) -> float:
        shares = []
        for number in range(2):
            counts = np.unique(self.known(self.splits, number).test.labels, return_counts=True)[1]
            shares.append(counts.max() / counts.sum())
        return float(np.mean(shares))


@claim(
    "pleas",
    statement=(
        "Two networks from different starts, trained on different classes, that are merged by permutation and least "
        "squares into one of the same size classify more accurately, by 5 percentage points, than their mean after the "
        "permutation alone."
    ),
    metric="test accuracy, each half of the classes by itself",
    method="permutation and least squares",
    baseline="permutation alone",
    bed="fashion-mnist",
    data=GARMENTS + ", five classes for each network",
    threshold=0.05,
    learned=0.1,
    guard="the most frequent of each five classes, as merging may lose all; the two networks must exceed raw pixels",
    ceiling=1.0,
)
def pleas(budget: Budget, seed: int) -> Measured:
    """Nasery, Hayase, Koh and Oh, *PLeaS -- Merging Models with Permutations and Least Squares* (2024), different label
    spaces. Both arms have the same matching, by activations, and statistics of batch normalisation that were measured
    anew. `extra` has both with the matching of Git Re-Basin, by weights, and at 1.5 times the width, beside the two
    networks themselves. Merged networks have less (0.57 and 0.41) than raw neighbours among the five classes do
    (0.87), at this width and at 1.5 times it: what merging loses is the question. The two that are merged must have
    more, as they do with 0.90, or nothing is measured."""
    pair = Pair(budget, seed)
    ours, plain = (pair.merged(1.0, fit=fit) for fit in (True, False))
    extra: dict[str, float] = {}
    if budget.name != "smoke":
        extra["two networks"] = (pair.accuracy(pair.models[0], 0) + pair.accuracy(pair.models[1], 1)) / 2
        floor = sum(raw_accuracy(pair.known(pair.splits, number)) for number in range(2)) / 2
        if extra["two networks"] <= floor:
            raise ClaimError(f"the two networks have {extra['two networks']:.3g}, no more than raw pixels: {floor:.3g}")
        for words, fit in (("least squares", True), ("permutation alone", False)):
            extra[f"{words}, matched by weights"] = pair.merged(1.0, fit=fit, by="weights")
            extra[f"{words}, at a width of 1.5"] = pair.merged(1.5, fit=fit)
    return Measured(ours, plain, extra, trivial=pair.majority())
