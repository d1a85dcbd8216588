"""The claim of *Self-Supervised Relational Reasoning for Representation Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, SIMCLR, learned, untrained


@claim(
    "relational-reasoning",
    statement=(
        "A linear probe of features learned by telling views of the same image from others is at least three "
        "percentage points more accurate than one of features learned with SimCLR from as many views."
    ),
    metric=LINEAR,
    method="relational reasoning, four views, half the epochs",
    baseline="SimCLR, two views",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.03,
    strict=False,
    own_data=True,
    learned=0.03,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def relational_reasoning(budget: Budget, seed: int) -> Measured:
    """Patacchiola and Storkey, *Self-Supervised Relational Reasoning for Representation Learning* (2020)."""
    ours = learned(budget, seed, method="relational:views=4", share=0.5)
    theirs = learned(budget, seed, method=SIMCLR)
    extra = {"relational reasoning: nearest neighbours": ours["neighbours"]}
    extra["SimCLR: nearest neighbours"] = theirs["neighbours"]
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
