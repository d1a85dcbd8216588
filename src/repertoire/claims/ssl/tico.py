"""The claim of *TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
Learning* (2022).
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, projected, untrained


@claim(
    "tico",
    statement=(
        "With batches of 32, a linear probe of features learned with TiCo is more accurate, by one percentage point, "
        "than one of features learned with Barlow Twins in as many steps."
    ),
    metric=LINEAR,
    method="TiCo",
    baseline="Barlow Twins",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def tico(budget: Budget, seed: int) -> Measured:
    """Zhu et al., *TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning* (2022), without the slowly moving teacher, which Barlow Twins has not either."""
    ours, theirs = (
        learned(budget, seed, method=projected(128), loss=loss, batch=32, share=1.0)
        for loss in ("tico", "barlow-twins")
    )
    extra = {"TiCo: nearest neighbours": ours["neighbours"], "Barlow Twins: nearest neighbours": theirs["neighbours"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
