"""The claim of *Self-Supervised Generalisation with Meta Auxiliary Learning* (2019).

Digits of which a network is told whether they are even or odd, and not that there are five kinds of each. Of the rates
0.01 and 0.3 of the step ahead the second was best on two pilot seeds; the learning rate is that of the bed for
supervised networks, tuned for neither.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import few_labels as bed
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import ImageSet, Splits

MAXL = "meta-auxiliary:rate=0.3"
UNTRAINED = "meta-auxiliary:rate=1e-9,entropy=0"
"""Finer labels of a generator that learns nothing: as good as drawn."""


def _parity(images: ImageSet) -> ImageSet:
    return replace(images, labels=images.labels % 2, classes=("even", "odd"))


def _told(splits: Splits) -> Splits:
    train, val, test = (_parity(part) for part in (splits.train, splits.val, splits.test))
    return replace(splits, train=train, val=val, test=test)


def raw(budget: Budget, seed: int) -> float:
    """What the pixels give: the nearest image with a label, or one of the rules for raw inputs."""
    splits = _told(replace(bed.few(bed.digits(budget), seed, 20, 0), extra={}))
    return max(bed.trivial(splits), raw_accuracy(splits))


@arm
def parity_told(budget: Budget, seed: int, *, method: str, digits: bool = False, labels: int = 20) -> dict[str, float]:
    """The share of the test digits of which a network says rightly whether they are even.

    Args:
        digits: learn which digit it is, and answer by that: finer labels that people gave.
        labels: of each digit.
    """
    splits = replace(bed.few(bed.digits(budget), seed, labels, 0), extra={})
    if not digits:
        splits = _told(splits)
    found = bed.scores(bed.trained(budget, seed, splits, method, loss="focal", lr=bed.SUPERVISED_RATE), splits.test)
    right = found.logits.argmax(1) % 2 == found.labels % 2
    return {"accuracy": float(np.mean(right))}


@claim(
    "maxl",
    statement=(
        "A network that also learns finer labels, which another network makes up so that they help, says whether "
        "digits are even more accurately than one that learns nothing else."
    ),
    metric="test accuracy, of even and odd",
    method="meta auxiliary learning",
    baseline="a single task",
    data=bed.TITLE + ", 20 labels of each, told as even or odd",
    bed=bed.BED,
    threshold=0.005,
    learned=0.0,
    floor=raw,
    ceiling=1.0,
)
def finer_labels(budget: Budget, seed: int) -> Measured:
    """Liu, Davison and Johns (2019), with their weights and five finer labels of each class. Both arms have the focal
    loss, as many steps, and the moving average of the weights that the bed has.

    `extra` has finer labels of a generator that learns nothing, and the digits for finer labels.
    """
    ours, plain, drawn = (parity_told(budget, seed, method=name) for name in (MAXL, "supervised", UNTRAINED))
    people = parity_told(budget, seed, method="supervised", digits=True)
    extra = {"finer labels of an untrained generator": drawn["accuracy"], "the digits themselves": people["accuracy"]}
    return Measured(ours["accuracy"], plain["accuracy"], extra)
