"""Small images whose classes come in five stages of two, for networks from random weights.

The order of the classes, the training images that are drawn, the weights and the order of the images are the seed's;
the test images are always the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, arm
from repertoire.claims._stages import staged
from repertoire.claims.beds import _named
from repertoire.data import Samples, Splits

__all__ = ["CLOTHES", "DIGITS", "clothes", "digits", "images"]

CLOTHES = "Fashion-MNIST at 14 pixels, 200 images of each class, five stages of two classes"
DIGITS = "handwritten digits of MNIST at 14 pixels, five stages of two classes, each image seen once"

SIZE = 14
EACH = 300


def images(budget: Budget, seed: int, bed: str, each: int = EACH) -> Splits:
    """Training images of a bed that the seed draws, so many of each class, and a tenth as many to test, the same for
    all seeds."""
    splits = replace(_named.get(bed), size=SIZE).splits(budget, 0)
    return replace(
        splits,
        train=_some(splits.train, budget.pick(smoke=20, small=each, full=10 * each), seed),
        test=_some(splits.test, budget.pick(smoke=8, small=100, full=1000), 0),
    )


def _some(samples: Samples, each: int, seed: int) -> Samples:
    """So many of each class at most, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(samples))
    kept = [order[samples.labels[order] == c][:each] for c in range(len(samples.classes))]
    return samples.subset(np.sort(np.concatenate(kept)))


@arm
def clothes(
    budget: Budget, seed: int, *, method: str, rate: float, epochs: int = 10, until: int = 5
) -> dict[str, float]:
    """A network on clothes, in five stages or the first of them, without memory; so many epochs of batches of 128."""
    return staged(
        budget,
        seed,
        splits=images(budget, seed, "fashion-mnist", 200),
        method=method,
        until=until,
        backbone=budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8,depth=3", full="resnet20"),
        augment="shift:pixels=1",
        optimizer="adamw",
        lr=rate,
        weight_decay=1e-4,
        batch_size=128,
        epochs=budget.pick(smoke=1, small=epochs, full=5 * epochs),
    )


@arm
def digits(
    budget: Budget, seed: int, *, method: str, memory: int = 50, rate: float = 0.003, until: int = 5
) -> dict[str, float]:
    """A network on digits that sees each image once, in batches of 10 beside those of the memory."""
    return staged(
        budget,
        seed,
        splits=images(budget, seed, "mnist5k"),
        method=method,
        protocol=f"classes:step=2,memory={memory}",
        until=until,
        backbone=budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8,depth=3", full="resnet20"),
        augment="shift:pixels=1",
        optimizer="adamw",
        lr=rate,
        weight_decay=1e-4,
        batch_size=10,
        epochs=1,
    )
