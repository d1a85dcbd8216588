"""The claim of *Dual-Encoders for Extreme Multi-Label Classification* (2023)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.metrics import label_ranking_average_precision_score
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import epochs_for, genes, ranked_labels
from repertoire.claims.beds.raw import raw_scores


def _shared_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """One softmax over all labels, in which those of a sample compete with each other."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def _ranked(scores: Tensor, targets: Tensor) -> float:
    return float(label_ranking_average_precision_score(targets.cpu().numpy(), scores.cpu().numpy()))


def _floor(budget: Budget, seed: int) -> float:
    rows = genes(budget, seed)
    return _ranked(raw_scores(rows), rows.test_y)


@claim(
    "dexml",
    statement=(
        "A network trained with the decoupled softmax ranks the labels of a sample further above the others than one "
        "trained with a single softmax over all labels."
    ),
    metric="label ranking average precision on test samples",
    method="decoupled softmax",
    baseline="one softmax",
    bed="yeast",
    threshold=0.005,
    learned=0.005,
    floor=_floor,
    guard="the shares of the 20 nearest rows with each label",
)
def dexml(budget: Budget, seed: int) -> Measured:
    """Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024): the loss, on a small classifier.

    `extra` has binary cross-entropy.
    """
    rows = genes(budget, seed)

    def ranked(loss: Callable[[Tensor, Tensor], Tensor], rate: float) -> float:
        network = ranked_labels(rows, loss, seed, epochs_for(budget, len(rows.x)), rate)
        with torch.no_grad():
            return _ranked(network(rows.test_x), rows.test_y)

    decoupled = ranked(losses.DecoupledSoftmax(), 3e-4)
    shared = ranked(_shared_softmax, 3e-4)
    binary = ranked(F.binary_cross_entropy_with_logits, 3e-4)
    return Measured(decoupled, shared, {"binary cross-entropy": binary})
