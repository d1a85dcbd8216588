"""The claim of *Scaling Up Semi-supervised Learning with Unconstrained Unlabelled Data* (2023).

Of the learning rates 0.01 and 0.03 the second was best for both on two pilot seeds. Rotations count 1, and not 10 as in
the released code for larger images; other weights were not tried.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import few_labels as bed
from repertoire.claims.beds._named import get
from repertoire.data import ImageSet

UNMIXMATCH = f"unmixmatch:ratio=3,weak=({bed.WEAK}),strong=({bed.STRONG}),contrast=0.1,rotation=1"
LABELS = 10


def letters(budget: Budget, classes: tuple[str, ...]) -> ImageSet:
    """Images of other symbols, without labels: none of their classes is one of the labelled images'."""
    images: ImageSet = replace(get("omniglot"), size=bed.SIZE).splits(budget, 0).train
    if budget.name == "smoke":
        images = images.subset(np.arange(30))
    return ImageSet(images.images, np.full(len(images), -1), images.names, classes, images.keys, rows=images.rows)


@arm
def beside_letters(budget: Budget, seed: int, *, method: str, lr: float) -> dict[str, float]:
    """Ten labels of each digit, all augmented hard, and letters of other alphabets without labels: test `accuracy`."""
    splits = bed.few(bed.digits(budget), seed, LABELS)
    splits = replace(splits, extra={"unlabelled": letters(budget, splits.classes)})
    found = bed.scores(bed.trained(budget, seed, splits, method, augment=bed.STRONG, lr=lr), splits.test)
    return {"accuracy": float((found.logits.argmax(1) == found.labels).mean()), "trivial": bed.trivial(splits)}


@claim(
    "unmixmatch",
    statement=(
        "With ten labels of each digit and letters of other alphabets without labels, contrast and rotations of the "
        "letters give a more accurate classifier than hard augmentation and mixup of the labelled images alone."
    ),
    metric="test accuracy",
    method="UnMixMatch",
    baseline="supervised, with the same augmentation and mixup",
    data=bed.TITLE + ", and letters of Omniglot without labels",
    bed=bed.BED,
    threshold=0.005,
    learned=0.02,
    ceiling=1.0,
)
def unmixmatch(budget: Budget, seed: int) -> Measured:
    """Roy and Etemad, *Scaling Up Semi-supervised Learning with Unconstrained Unlabelled Data* (2023).

    `extra` has FixMatch on the same data, of which the paper says that it falls below the supervised network.
    """
    ours = beside_letters(budget, seed, method=UNMIXMATCH, lr=bed.SUPERVISED_RATE)
    plain = beside_letters(budget, seed, method="supervised:mix=mixup,alpha=0.1", lr=bed.SUPERVISED_RATE)
    guessed = beside_letters(budget, seed, method=bed.FIXMATCH, lr=bed.SUPERVISED_RATE)
    return Measured(ours["accuracy"], plain["accuracy"], {"FixMatch": guessed["accuracy"]}, trivial=plain["trivial"])
