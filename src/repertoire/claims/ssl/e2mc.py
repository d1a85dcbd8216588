"""The claim of *Improving Pre-Trained Self-Supervised Embeddings Through Effective Entropy Maximization* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, further, untrained


@claim(
    "e2mc",
    statement=(
        "A few more epochs with entropy maximisation added to the loss give features with a more accurate linear "
        "probe, by half a percentage point, than as many more epochs with the loss alone."
    ),
    metric=LINEAR,
    method="VICReg, then VICReg plus entropy maximisation",
    baseline="VICReg, then VICReg",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.005,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def e2mc(budget: Budget, seed: int) -> Measured:
    """Chakraborty et al., *Improving Pre-Trained Self-Supervised Embeddings Through Effective Entropy Maximization*
    (2024). Ten epochs of VICReg come first, and two more with either loss. `extra` has the effective rank of the
    features. That other criteria do not help was not tested."""
    ours, plain = (further(budget, seed, first="vicreg", then=loss) for loss in ("entropy-maximization", "vicreg"))
    extra = {"VICReg plus entropy: effective rank": ours["rank"], "VICReg: effective rank": plain["rank"]}
    return Measured(ours["linear"], plain["linear"], extra, trivial=untrained(budget, seed)["linear"])
