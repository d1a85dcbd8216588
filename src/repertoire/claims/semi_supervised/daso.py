"""The claim of *DASO: Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced Semi-Supervised Learning*
(2021)."""

from __future__ import annotations

import numpy as np

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import few_labels as bed

DASO = ",blend=prototypes,warm_up=100,momentum=0.95,tempering=0.3"


@arm
def in_tails(budget: Budget, seed: int, *, method: str, loss: str = "cross-entropy", lr: float) -> dict[str, float]:
    """Labels in a long tail and unlabelled samples in the reversed one: the mean of the classes' `accuracy`, and that
    of the four classes with the fewest labels."""
    rank = np.random.default_rng(seed).permutation(10)
    labels, pool = np.array(bed.tail(40, 20)), np.array(bed.tail(300, 20))[::-1]
    splits = bed.few(bed.digits(budget), seed, labels[rank].tolist(), pool[rank].tolist())
    found = bed.scores(bed.trained(budget, seed, splits, method, loss=loss, lr=lr), splits.test)
    rare = np.isin(found.labels, np.flatnonzero(rank >= 6))
    right = found.logits.argmax(1) == found.labels
    return {"accuracy": bed.balanced_accuracy(found), "rare": float(right[rare].mean()), "trivial": bed.trivial(splits)}


@claim(
    "daso",
    statement=(
        "With labels in a long tail and unlabelled samples in the reversed one, FixMatch is more accurate over all "
        "classes where its answers are blended with those of class means."
    ),
    metric="mean of the classes' test accuracies",
    method="FixMatch and DASO",
    baseline="FixMatch",
    data=bed.TITLE + ", 40 to 2 labels of a class and 15 to 300 samples without",
    bed=bed.BED,
    threshold=0.01,
    learned=0.05,
    guard="the nearest labelled image by raw pixels",
    ceiling=1.0,
)
def daso(budget: Budget, seed: int) -> Measured:
    """Oh et al., *DASO: Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced Semi-Supervised Learning*
    (2022).

    `extra` has the four rarest classes, and supervised training with logit adjustment, which uses no unlabelled sample
    and is better than both.
    """
    ours, theirs = (in_tails(budget, seed, method=bed.FIXMATCH + more, lr=bed.RATE) for more in (DASO, ""))
    adjusted = in_tails(budget, seed, method="supervised", loss="logit-adjusted", lr=bed.SUPERVISED_RATE)
    extra = {"rare classes: DASO": ours["rare"], "rare classes: FixMatch": theirs["rare"]}
    extra["supervised, logit-adjusted"] = adjusted["accuracy"]
    return Measured(ours["accuracy"], theirs["accuracy"], extra, trivial=theirs["trivial"])
