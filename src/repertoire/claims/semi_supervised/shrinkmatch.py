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
    guard="the nearest labelled image by raw pixels",
    ceiling=1.0,
)
def shrinkmatch(budget: Budget, seed: int) -> Measured:
    """Yang et al., *Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning* (2023).

    `extra` has the supervised network.
    """
    return bed.beside_fixmatch(budget, seed, ",space=shrunk", {"supervised": "supervised"})
