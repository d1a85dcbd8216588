"""The claim of *Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import few_labels as bed


@claim(
    "shrinkmatch",
    statement=(
        "With four labels a class, FixMatch is more accurate where it learns from unsure samples too, among the "
        "classes that make them sure."
    ),
    metric="test accuracy",
    method="FixMatch and the shrunk space of classes",
    baseline="FixMatch",
    data=bed.TITLE,
    bed=bed.BED,
    threshold=0.01,
    learned=0.05,
    ceiling=1.0,
)
def shrinkmatch(budget: Budget, seed: int) -> Measured:
    """Yang et al., *Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning* (2023).

    `extra` has the supervised network.
    """
    ours = bed.learned(budget, seed, method=bed.FIXMATCH + ",space=shrunk", lr=bed.RATE)
    theirs = bed.learned(budget, seed, method=bed.FIXMATCH, lr=bed.RATE)
    extra = {"supervised": bed.learned(budget, seed, method="supervised", lr=bed.SUPERVISED_RATE)["accuracy"]}
    return Measured(ours["accuracy"], theirs["accuracy"], extra, trivial=theirs["trivial"])
