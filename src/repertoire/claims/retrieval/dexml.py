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


def _shared_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """One softmax over all labels, in which those of a sample compete with each other."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def _ranked(scores: Tensor, targets: Tensor) -> float:
    return float(label_ranking_average_precision_score(targets.cpu().numpy(), scores.cpu().numpy()))


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
    learned=0.02,
)
def dexml(budget: Budget, seed: int) -> Measured:
    """Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024): the loss, on a small classifier.

    The trivial answer is the order of the labels by how common they are. `extra` has binary cross-entropy.
    """
    rows = genes(budget, seed)

    def ranked(loss: Callable[[Tensor, Tensor], Tensor], rate: float) -> float:
        network = ranked_labels(rows, loss, seed, epochs_for(budget, len(rows.x)), rate)
        with torch.no_grad():
            return _ranked(network(rows.test_x), rows.test_y)

    decoupled = ranked(losses.DecoupledSoftmax(), 3e-4)
    shared = ranked(_shared_softmax, 3e-4)
    binary = ranked(F.binary_cross_entropy_with_logits, 3e-4)
    common = _ranked(rows.y.mean(0).expand_as(rows.test_y), rows.test_y)
    return Measured(decoupled, shared, {"binary cross-entropy": binary}, trivial=common)
