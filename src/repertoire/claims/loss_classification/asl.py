"""The claim of *Asymmetric Loss For Multi-Label Classification* (2020)."""

from __future__ import annotations

import torch

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import epochs_for, genes, mean_precision, ranked_labels


@claim(
    "asl",
    statement="The asymmetric loss ranks the samples of each label better than binary cross-entropy.",
    metric="mean average precision over labels",
    method="asymmetric loss",
    baseline="binary cross-entropy",
    bed="yeast",
    threshold=0.005,
    learned=0.05,
)
def asl(budget: Budget, seed: int) -> Measured:
    """Ridnik et al., *Asymmetric Loss For Multi-Label Classification* (2021), with its default exponents and margin."""
    rows = genes(budget, seed)

    def precision(loss: losses.Asymmetric, rate: float) -> float:
        network = ranked_labels(rows, loss, seed, epochs_for(budget, len(rows.x)), rate)
        with torch.no_grad():
            return mean_precision(network(rows.test_x), rows.test_y)

    plain = losses.Asymmetric(gamma_negative=0.0, margin=0.0)  # binary cross-entropy, with the same sum over labels
    trivial = mean_precision(torch.zeros_like(rows.test_y), rows.test_y)
    return Measured(precision(losses.Asymmetric(), 1e-3), precision(plain, 1e-3), trivial=trivial)
