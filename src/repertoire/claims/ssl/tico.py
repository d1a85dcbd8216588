"""The claim of *TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
Learning* (2022).
"""

from __future__ import annotations

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import (
    DISTURBED,
    PROBE,
    disturbed_digits,
    epochs_of,
    pretrained,
    probed_accuracy,
)


@claim(
    "tico",
    statement=(
        "With batches of 16, a linear probe of features learned with TiCo is more accurate than one of features "
        "learned with Barlow Twins for equally long."
    ),
    metric=PROBE,
    method="TiCo with its slowly moving teacher",
    baseline="Barlow Twins",
    data=DISTURBED,
    threshold=0.0,
)
def tico(budget: Budget, seed: int) -> Measured:
    """Zhu et al., *TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning* (2022)."""
    data = disturbed_digits(budget, seed)
    options = {"epochs": epochs_of(budget, small=10), "seed": seed, "batch_size": 16}
    ours = probed_accuracy(pretrained(losses.TiCo(), data.images, teacher=0.99, **options), data)  # type: ignore[arg-type]
    theirs = probed_accuracy(pretrained(losses.BarlowTwins(), data.images, **options), data)  # type: ignore[arg-type]
    return Measured(ours, theirs)
