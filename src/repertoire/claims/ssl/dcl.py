"""The claim of *Debiased Contrastive Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, projected, untrained


@claim(
    "dcl",
    statement=(
        "With ten classes, and a prior that says so, a linear probe of features learned with the debiased contrastive "
        "loss is more accurate, by half a percentage point, than one of features learned with the same loss without "
        "the correction."
    ),
    metric=LINEAR,
    method="debiased contrastive loss, prior 0.1",
    baseline="prior 0, which is NT-Xent",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.005,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def dcl(budget: Budget, seed: int) -> Measured:
    """Chuang et al., *Debiased Contrastive Learning* (2020)."""
    ours, plain = (
        learned(budget, seed, method=projected(128), loss=f"debiased-contrastive:class_prior={prior}")
        for prior in (0.1, 0.0)
    )
    extra = {"debiased: nearest neighbours": ours["neighbours"], "NT-Xent: nearest neighbours": plain["neighbours"]}
    return Measured(ours["linear"], plain["linear"], extra, trivial=untrained(budget, seed)["linear"])
