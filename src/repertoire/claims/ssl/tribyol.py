"""The claim of *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, untrained


@claim(
    "tribyol",
    statement=(
        "With batches of 32, a linear probe of features learned with TriBYOL is more accurate, by more than one "
        "percentage point, than one of features learned with BYOL in as many steps."
    ),
    metric=LINEAR,
    method="TriBYOL",
    baseline="BYOL",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    own_data=True,
    learned=0.03,
)
def tribyol(budget: Budget, seed: int) -> Measured:
    """Li et al., *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022)."""
    ours, theirs = (
        learned(budget, seed, method=f"{name}:momentum=0.99", batch=32, share=1.0) for name in ("tribyol", "byol")
    )
    # Three views for each two of BYOL.
    longer = learned(budget, seed, method="byol:momentum=0.99", batch=32, share=1.5)
    extra = {"BYOL, as many views": longer["linear"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
