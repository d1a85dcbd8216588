"""The claim of *Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering* (2025)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, untrained


@claim(
    "moco-hard-filter",
    statement=(
        "A linear probe of features learned by MoCo in both directions against the harder half of its queue is more "
        "accurate, by more than one percentage point, than one of features learned by MoCo in as many steps."
    ),
    metric=LINEAR,
    method="both directions, the harder half of the queue",
    baseline="MoCo",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    own_data=True,
    learned=0.03,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def moco_hard_filter(budget: Budget, seed: int) -> Measured:
    """Hoang et al., *Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering*
    (2025)."""
    ours, theirs, unfiltered = (
        learned(budget, seed, method=f"{name}:queue=1024,momentum=0.99{more}")
        for name, more in (("moco-hard", ""), ("moco", ""), ("moco-hard", ",hard=1"))
    )
    extra = {"both directions, the whole queue": unfiltered["linear"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
