"""The claim of *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023)."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding
from repertoire.claims.beds.digits import rotated_digits
from repertoire.data import ImageSet, load
from repertoire.losses import EmbeddingLoss


@claim(
    "sbcl",
    statement=(
        "Where frequent classes are mixtures and others are rare, contrast between clusters of the frequent classes "
        "beside that between classes makes a linear read-out more accurate than the supervised contrastive loss does."
    ),
    metric="mean of the classes' test accuracies, by a linear probe",
    method="subclass-balancing contrastive loss",
    baseline="supervised contrastive loss",
    data="digits: five of them in four turns, 60 images each, and five upright, 15 images each",
    threshold=0.0,
)
def sbcl(budget: Budget, seed: int) -> Measured:
    """Hou et al., *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023), on single views.
    Clusters are made from a quarter of the epochs on, and made anew each eighth.

    `extra` has the mean accuracy of the rare classes alone.
    """
    splits = load("digits", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    frequent = torch.randperm(10, generator=generator)[:5]

    def mixture(images: ImageSet, each: int, rare: int) -> tuple[Tensor, Tensor]:
        rows, digits, turns = rotated_digits(images)
        kept = []
        for digit in range(10):
            for turn in range(4 if digit in frequent else 1):
                members = ((digits == digit) & (turns == turn)).nonzero().flatten()
                count = each if digit in frequent else rare
                kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
        index = torch.cat(kept)
        return rows[index], digits[index]

    rows, labels = mixture(splits.train, 60, 15)
    test_rows, test_labels = mixture(splits.test, 10_000, 10_000)
    epochs = budget.pick(smoke=1, small=40, full=200)

    def scores(loss: EmbeddingLoss) -> tuple[float, float]:
        network = fit_embedding(loss, rows, labels, epochs=epochs, seed=seed)
        with torch.no_grad():
            features, queries = network(rows).numpy(), network(test_rows).numpy()
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        right = torch.from_numpy(classifier.fit(features, labels.numpy()).predict(queries)) == test_labels
        each = [float(right[test_labels == c].float().mean()) for c in range(10)]
        rare = [score for c, score in enumerate(each) if c not in frequent]
        return sum(each) / 10, sum(rare) / len(rare)

    clustered = losses.SubclassContrastive(
        samples=len(rows), warmup=max(1, epochs // 4), every=max(1, epochs // 8), smallest=15
    )
    (found, rare), (plain, plain_rare) = scores(clustered), scores(losses.SupCon())
    return Measured(found, plain, {"rare classes: SBCL": rare, "rare classes: supcon": plain_rare})
