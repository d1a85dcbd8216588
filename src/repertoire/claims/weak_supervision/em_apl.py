"""The claim of *Acknowledging the Unknown for Multi-label Learning with Single Positive Labels* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import descend, genes, mean_precision, ranked_labels, ranker, shuffled
from repertoire.claims.beds.raw import raw_scores


def _one_of(targets: Tensor, seed: int) -> Tensor:
    """Multi-hot targets of which one label a sample is kept, drawn at random."""
    draw = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed)).to(targets.device)
    return torch.zeros_like(targets).scatter(1, (draw * targets).argmax(1, keepdim=True), 1.0)


def _floor(budget: Budget, seed: int) -> float:
    rows = genes(budget, seed)
    return mean_precision(raw_scores(rows._replace(y=_one_of(rows.y, seed))), rows.test_y)


@claim(
    "em-apl",
    statement=(
        "Where one label of each sample is known, entropy maximisation with asymmetric pseudo-labels ranks samples "
        "better than taking all other labels to be absent."
    ),
    metric="mean average precision over labels",
    method="entropy maximisation and pseudo-labels",
    baseline="binary cross-entropy, unknown as absent",
    data="Yeast, 2,417 genes with several functions, one of them labelled",
    bed="yeast",
    threshold=0.005,
    learned=0.01,
    floor=_floor,
    guard="the shares of the 20 nearest rows with each label, of which one a row is known",
)
def em_apl(budget: Budget, seed: int) -> Measured:
    """Zhou et al., *Acknowledging the Unknown for Multi-label Learning with Single Positive Labels* (2022).

    `extra` has what all labels would give.
    """
    rows = genes(budget, seed)
    known = rows._replace(y=_one_of(rows.y, seed))
    warm_up, rounds = budget.pick(smoke=(1, 1), small=(12, 12), full=(30, 30))

    torch.manual_seed(seed)
    network, loss = ranker(rows).to(rows.x.device), losses.SinglePositive()
    targets, batches = known.y, shuffled(len(rows.x))

    def objective(index: Tensor) -> Tensor:
        return loss(network(rows.x[index]), targets[index])

    descend(network.parameters(), objective, batches, epochs=warm_up, rate=1e-3)
    for _ in range(rounds):
        with torch.no_grad():
            targets = losses.asymmetric_pseudo_labels(network(rows.x), targets, share=0.9 / rounds)
        descend(network.parameters(), objective, batches, epochs=1, rate=1e-3)
    binary = F.binary_cross_entropy_with_logits
    absent = ranked_labels(known, binary, seed, warm_up + rounds, 1e-3)
    full = ranked_labels(rows, binary, seed, warm_up + rounds, 1e-3)
    with torch.no_grad():
        found = [mean_precision(network(rows.test_x), rows.test_y) for network in (network, absent, full)]
    return Measured(found[0], found[1], {"all labels known": found[2]})
