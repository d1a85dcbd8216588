"""The claim of *Hyperspherical embedding for novel class classification* (2021)."""

from __future__ import annotations

import torch
from torch import nn

from repertoire import heads
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.unseen_classes import digits_split, fitted_embedding, unit_rows


@claim(
    "hyperspherical-novel",
    statement=(
        "Features trained with the normalised softmax tell classes apart that they never saw better than those trained "
        "with an ordinary one."
    ),
    metric="accuracy among three unseen classes, by the nearest mean of five references each",
    method="normalised softmax",
    baseline="softmax",
    data="digits, of which seven classes are seen",
    threshold=0.0,
)
def hyperspherical_novel(budget: Budget, seed: int) -> Measured:
    """Pereira et al., *Hyperspherical Embedding for Novel Class Classification* (2021)."""
    inputs, labels, test_inputs, test_labels, known = digits_split(seed, 7)
    seen, unseen = torch.isin(labels, known), ~torch.isin(test_labels, known)
    novel = test_labels[unseen].unique()
    references = torch.cat([(labels == label).nonzero().flatten()[:5] for label in novel.tolist()])

    def found(kind: type[heads.Head]) -> float:
        torch.manual_seed(seed)
        epochs = budget.pick(smoke=1, small=40, full=100)
        network = fitted_embedding(kind(64, 10), inputs[seen], labels[seen], epochs)
        means = unit_rows(network, inputs[references]).view(len(novel), 5, -1).mean(1)
        guess = (unit_rows(network, test_inputs[unseen]) @ nn.functional.normalize(means).T).argmax(1)
        return float((novel[guess] == test_labels[unseen]).float().mean())

    return Measured(found(heads.NormalizedSoftmax), found(heads.Linear))
