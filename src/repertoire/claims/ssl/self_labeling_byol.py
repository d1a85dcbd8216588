"""The claim of *Self-Labeling Refinement for Robust Representation Learning with Bootstrap Your Own Latent* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, untrained


@claim(
    "self-labeling-byol",
    statement=(
        "A linear probe of features learned with BYOL and the cross-cosine similarity loss is more accurate, by more "
        "than one percentage point, than one of features learned with BYOL alone."
    ),
    metric=LINEAR,
    method="BYOL and CCSL",
    baseline="BYOL",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    own_data=True,
    learned=0.03,
)
def self_labeling_byol(budget: Budget, seed: int) -> Measured:
    """Garg and Jain, *Self-Labeling Refinement for Robust Representation Learning with Bootstrap Your Own Latent*
    (2022)."""
    ours, theirs = (learned(budget, seed, method=f"{name}:momentum=0.99") for name in ("byol-self-labels", "byol"))
    extra = {"BYOL and CCSL: nearest neighbours": ours["neighbours"], "BYOL: nearest neighbours": theirs["neighbours"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
