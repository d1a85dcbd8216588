"""The claim of *Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and Clustering* (2019)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import DRAWINGS, retrieved


@claim(
    "ecaml",
    statement="Energy confusion beside multi-similarity makes better embeddings of unseen classes than it does alone.",
    metric="MAP@R among unseen characters",
    method="multi-similarity and a tenth of energy confusion",
    baseline="multi-similarity",
    data=DRAWINGS,
    bed="omniglot-all",
    threshold=0.01,
    learned=0.01,
)
def ecaml(budget: Budget, seed: int) -> Measured:
    """Chen and Deng, *Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and Clustering*
    (2019)."""
    confused = retrieved(budget, seed, loss="energy-confusion", rate=3e-3)
    plain = retrieved(budget, seed, loss="multi-similarity", rate=3e-4)
    return Measured(confused["MAP@R"], plain["MAP@R"], trivial=plain["untrained: MAP@R"])
