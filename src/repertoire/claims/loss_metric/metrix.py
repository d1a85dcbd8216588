"""The claim of *It Takes Two to Tango: Mixup for Deep Metric Learning* (2021)."""

from __future__ import annotations

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.unseen_classes import RECALL, UNSEEN, retrieval_recall


@claim(
    "metrix",
    statement="Mixed embeddings beside multi-similarity make better embeddings of unseen classes than it does alone.",
    metric=RECALL,
    method="multi-similarity and Metrix",
    baseline="multi-similarity",
    data=UNSEEN,
    threshold=0.0,
)
def metrix(budget: Budget, seed: int) -> Measured:
    """Venkataramanan et al., *It Takes Two to Tango: Mixup for Deep Metric Learning* (2021): mixed embeddings."""
    mixed, plain = retrieval_recall(seed, budget, losses.Metrix, losses.MultiSimilarity)
    return Measured(mixed, plain)
