"""The claim of *Learning by Sorting: Self-supervised Learning with Group Ordering Constraints* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, NEIGHBOURS, PHOTOGRAPHS, learned, projected, untrained


@claim(
    "groco",
    statement=(
        "The nearest neighbours of a test image name its class more often by features learned with group ordering "
        "constraints than by features learned with NT-Xent, by more than one percentage point."
    ),
    metric=NEIGHBOURS,
    method="GroCo, two views",
    baseline="NT-Xent at temperature 0.2",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    own_data=True,
    learned=0.03,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def groco(budget: Budget, seed: int) -> Measured:
    """Shvetsova et al., *Learning by Sorting: Self-supervised Learning with Group Ordering Constraints* (2023). By a
    linear probe, in `extra`, GroCo is behind, where the paper has it competitive."""
    ours = learned(budget, seed, method=projected(128), loss="groco")
    theirs = learned(budget, seed, method=projected(128), loss="nt-xent:temperature=0.2")
    extra = {"GroCo: linear probe": ours["linear"], "NT-Xent: linear probe": theirs["linear"]}
    return Measured(ours["neighbours"], theirs["neighbours"], extra, trivial=untrained(budget, seed)["neighbours"])
