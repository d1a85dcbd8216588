"""The claim of *Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval*
(2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import heads
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.unseen_classes import digits_split, fitted_embedding, unit_rows


def _mean_average_precision(embeddings: Tensor, labels: Tensor) -> float:
    """Of the ranking of all other rows by cosine, for each row."""
    similarities = (embeddings @ embeddings.T).fill_diagonal_(-2.0)
    order = similarities.argsort(1, descending=True)[:, :-1]
    right = (labels[order] == labels[:, None]).double()
    precision = right.cumsum(1) / torch.arange(1, right.shape[1] + 1)
    return float(((precision * right).sum(1) / right.sum(1).clamp_min(1)).mean())


@claim(
    "cfcd",
    statement=(
        "A scale and a margin that follow the batch make a better embedding for the retrieval of unseen classes than "
        "the fixed ones of ArcFace, without tuning."
    ),
    metric="mean average precision among images of three unseen classes",
    method="MadaCos",
    baseline="ArcFace with scale 64 and margin 0.5",
    data="digits, of which seven classes are seen",
    threshold=0.0,
)
def cfcd(budget: Budget, seed: int) -> Measured:
    """Zhu et al., *Coarse-to-Fine: Learning Compact Discriminative Representation* (2023): the loss of its first stage.

    `extra` has CosFace with the constants of its paper, and a plain cosine classifier.
    """
    inputs, labels, test_inputs, test_labels, known = digits_split(seed, 7)
    seen, unseen = torch.isin(labels, known), ~torch.isin(test_labels, known)

    def found(kind: type[heads.Head]) -> float:
        torch.manual_seed(seed)
        epochs = budget.pick(smoke=1, small=40, full=100)
        network = fitted_embedding(kind(64, 10), inputs[seen], labels[seen], epochs)
        return _mean_average_precision(unit_rows(network, test_inputs[unseen]), test_labels[unseen])

    others = {"CosFace": found(heads.CosFace), "cosine classifier": found(heads.Cosine)}
    return Measured(found(heads.MadaCos), found(heads.ArcFace), others)
