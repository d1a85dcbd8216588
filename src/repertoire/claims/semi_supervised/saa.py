"""The claim of *Enhancing Sample Utilization through Sample Adaptive Augmentation in Semi-Supervised Learning*
(2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import few_labels as bed


@claim(
    "saa",
    statement=(
        "With four labels a class, FixMatch is more accurate where samples that it has learned already get a strong "
        "view cut together from two."
    ),
    metric="test accuracy",
    method="FixMatch, and harder views of what is learned",
    baseline="FixMatch",
    data=bed.TITLE,
    bed=bed.BED,
    threshold=0.01,
    learned=0.05,
    guard="the nearest labelled image by raw pixels",
    ceiling=1.0,
)
def saa(budget: Budget, seed: int) -> Measured:
    """Gui et al., *Enhancing Sample Utilization through Sample Adaptive Augmentation in Semi-Supervised Learning*
    (2023).

    `extra` has FixMatch with the harder view for every sample, where nothing adapts, and which is at
    least as good.
    """
    everyone = {"harder views of all": bed.FIXMATCH + ",diverse=all"}
    return bed.beside_fixmatch(budget, seed, ",diverse=learned", everyone)
