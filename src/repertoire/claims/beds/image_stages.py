"""Small images whose classes come in five stages of two, for networks from random weights.

The network is a convolutional one of three layers, eight channels in the first. The order of the classes, the training
images that are drawn, the weights and the order of the images are the seed's; the test images are always the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, arm
from repertoire.claims._stages import class_means, staged
from repertoire.claims.beds import _named
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Samples, Splits

__all__ = ["PHOTOGRAPHS", "STREAM", "images", "means_within", "photographs", "raw_of_labelled", "streamed"]

PHOTOGRAPHS = "CIFAR-10 at 16 pixels, 350 photographs of each class, five stages of two classes"
STREAM = "CIFAR-10 at 16 pixels, 350 photographs of each class, five stages of two classes, each photograph seen once"

SIZE = 16
EACH = 350
LABELLED = 140
"""Photographs of each class, on average, that have had a label in the stream: 35 that were asked for, and those that
were in the memory after the stage of the class, which is shared by two classes at first and by eight later."""


def images(budget: Budget, seed: int, bed: str = "cifar10", each: int = EACH) -> Splits:
    """Training images of a bed that the seed draws, so many of each class, and 100 of each class to test, the same for
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


def means_within(budget: Budget, seed: int) -> float:
    """What class means of the photographs' pixels, which nothing can forget, tell within the stages."""
    return class_means(images(budget, seed), seed, "classes:step=2")["within"]


@arm
def photographs(
    budget: Budget, seed: int, *, method: str, rate: float, epochs: int = 10, until: int = 5
) -> dict[str, float]:
    """A network on photographs, in five stages or the first of them, without memory; so many epochs of batches of
    128."""
    return staged(
        budget,
        seed,
        splits=images(budget, seed),
        method=method,
        until=until,
        backbone=budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8,depth=3", full="resnet20"),
        augment="crop-flip",
        optimizer="adamw",
        lr=rate,
        weight_decay=1e-4,
        batch_size=128,
        epochs=budget.pick(smoke=1, small=epochs, full=5 * epochs),
    )


def raw_of_labelled(budget: Budget, seed: int) -> float:
    """What as many photographs as have had a label in the stream tell by their pixels."""
    splits = images(budget, seed)
    each = budget.pick(smoke=2, small=LABELLED, full=450)
    return raw_accuracy(replace(splits, train=_some(splits.train, each, seed)))


@arm
def streamed(
    budget: Budget, seed: int, *, method: str, memory: int = 500, rate: float = 0.003, until: int = 5
) -> dict[str, float]:
    """A network that sees each photograph once, in batches of 10 beside those of the memory."""
    return staged(
        budget,
        seed,
        splits=images(budget, seed),
        method=method,
        protocol=f"classes:step=2,memory={memory}",
        until=until,
        backbone=budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8,depth=3", full="resnet20"),
        augment="crop-flip",
        optimizer="adamw",
        lr=rate,
        weight_decay=1e-4,
        batch_size=10,
        epochs=1,
    )
