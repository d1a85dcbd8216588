"""The claim of *Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and Clustering* (2019)."""

from __future__ import annotations

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.unseen_classes import RECALL, UNSEEN, retrieval_recall


@claim(
    "ecaml",
    statement="Energy confusion beside multi-similarity makes better embeddings of unseen classes than it does alone.",
    metric=RECALL,
    method="multi-similarity and a tenth of energy confusion",
    baseline="multi-similarity",
    data=UNSEEN,
    threshold=0.0,
)
def ecaml(budget: Budget, seed: int) -> Measured:
    """Chen and Deng, *Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and Clustering*
    (2019)."""
    confused, plain = retrieval_recall(seed, budget, losses.EnergyConfusion, losses.MultiSimilarity)
    return Measured(confused, plain)
