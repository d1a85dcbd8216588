"""The claim of *Asymmetric Loss For Multi-Label Classification* (2020)."""

from __future__ import annotations

import torch

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import epochs_for, genes, mean_precision, ranked_labels
from repertoire.claims.beds.raw import raw_scores


def _floor(budget: Budget, seed: int) -> float:
    rows = genes(budget, seed)
    return mean_precision(raw_scores(rows), rows.test_y)


@claim(
    "asl",
    statement="The asymmetric loss ranks the samples of each label better than binary cross-entropy.",
    metric="mean average precision over labels",
    method="asymmetric loss",
    baseline="binary cross-entropy",
    bed="yeast",
    threshold=0.005,
    learned=0.01,
    floor=_floor,
    guard="the shares of the 20 nearest rows with each label",
)
def asl(budget: Budget, seed: int) -> Measured:
    """Ridnik et al., *Asymmetric Loss For Multi-Label Classification* (2021), with its default exponents and margin."""
    rows = genes(budget, seed)

    def precision(loss: losses.Asymmetric, rate: float) -> float:
        network = ranked_labels(rows, loss, seed, epochs_for(budget, len(rows.x)), rate)
        with torch.no_grad():
            return mean_precision(network(rows.test_x), rows.test_y)

    plain = losses.Asymmetric(gamma_negative=0.0, margin=0.0)  # binary cross-entropy, with the same sum over labels
    return Measured(precision(losses.Asymmetric(), 1e-3), precision(plain, 1e-3))
