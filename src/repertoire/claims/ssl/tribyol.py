"""The claim of *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.slower_photographs import bootstrapped
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, untrained


@claim(
    "tribyol",
    statement=(
        "With batches of 64, a linear probe of features learned with TriBYOL is more accurate, by more than one "
        "percentage point, than one of features learned with BYOL in as many steps."
    ),
    metric=LINEAR,
    method="TriBYOL",
    baseline="BYOL",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def tribyol(budget: Budget, seed: int) -> Measured:
    """Li et al., *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022). In as many steps it sees
    three views for each two of BYOL."""
    ours, theirs = (bootstrapped(budget, seed, method=f"{name}:momentum=0.9") for name in ("tribyol", "byol"))
    extra = {"TriBYOL: nearest neighbours": ours["neighbours"], "BYOL: nearest neighbours": theirs["neighbours"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
