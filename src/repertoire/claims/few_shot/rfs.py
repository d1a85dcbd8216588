"""The claim of *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?* (2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import (
    UNSEEN,
    Rows,
    descend,
    drawings,
    embedder,
    episodic,
    few_shot,
    prototypical,
    shuffled,
)
from repertoire.estimators import FrozenEmbeddingClassifier, NearestCentroid

EPOCHS = 40
EPISODE = 200
"""Images in an episode: 20 classes of ten."""


def classified(rows: Rows, seed: int, epochs: int, rate: float) -> nn.Module:
    """An embedding trained by classification, without its classifier."""
    torch.manual_seed(seed)
    network = embedder(rows.x.shape[1]).to(rows.x.device)
    whole = nn.Sequential(network, nn.Linear(64, int(rows.y.max()) + 1)).to(rows.x.device).train()

    def objective(index: Tensor) -> Tensor:
        return F.cross_entropy(whole(rows.x[index]), rows.y[index])

    descend(whole.parameters(), objective, shuffled(len(rows.x)), epochs=epochs, rate=rate)
    return network.eval()


def untouched(budget: Budget, seed: int) -> float:
    """The accuracy that the features have before a network learns from them."""
    rows = drawings(budget, seed, "characters")
    return few_shot(budget, rows.test_x, rows.test_y, FrozenEmbeddingClassifier(), seed, shots=5)


@claim(
    "rfs",
    statement=(
        "On classes never seen, logistic regression on an embedding trained by ordinary classification and frozen is "
        "more accurate than a prototypical network trained episode by episode."
    ),
    metric="20-way 5-shot accuracy on unseen characters",
    method="frozen embedding, logistic regression",
    baseline="prototypical network",
    data=UNSEEN,
    bed="omniglot-all",
    threshold=0.01,
    learned=0.01,
    floor=untouched,
    guard="logistic regression on the features that both networks learn from, without either",
)
def rfs(budget: Budget, seed: int) -> Measured:
    """Tian et al., *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?* (2020), without
    self-distillation. Both networks see equally many images."""
    rows = drawings(budget, seed, "characters")
    epochs = budget.pick(smoke=1, small=EPOCHS, full=4 * EPOCHS)
    steps = epochs * len(rows.x) // EPISODE
    ordinary = classified(rows, seed, epochs, 3e-3)
    meta_learned = episodic(rows, prototypical, seed=seed, steps=steps, rate=1e-3)
    with torch.no_grad():
        frozen, learned = ordinary(rows.test_x), meta_learned(rows.test_x)

    def accuracy(z: Tensor, estimator: object, shots: int) -> float:
        return few_shot(budget, z, rows.test_y, estimator, seed, shots=shots)

    return Measured(
        method=accuracy(frozen, FrozenEmbeddingClassifier(), 5),
        baseline=accuracy(learned, NearestCentroid(normalize=False), 5),
        extra={
            "1 shot: frozen embedding": accuracy(frozen, FrozenEmbeddingClassifier(), 1),
            "1 shot: prototypical network": accuracy(learned, NearestCentroid(normalize=False), 1),
            "5 shots: nearest centroid in the frozen embedding": accuracy(frozen, NearestCentroid(), 5),
            "5 shots: logistic regression on what both learned from": accuracy(
                rows.test_x, FrozenEmbeddingClassifier(), 5
            ),
        },
    )
