"""The claim of *Supervised Prototypical Contrastive Learning for Emotion Recognition in Conversation* (2022)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding
from repertoire.claims.beds.digits import rotated_digits
from repertoire.claims.beds.unseen_classes import thinned_out
from repertoire.data import load
from repertoire.losses import EmbeddingLoss


@claim(
    "spcl",
    statement=(
        "With uneven classes and batches of 16, prototypes of all classes in every batch make an embedding in which "
        "the nearest class mean is right more often than the supervised contrastive loss does."
    ),
    metric="mean of the classes' test accuracies, by the nearest class mean",
    method="SPCL",
    baseline="supervised contrastive loss",
    data="digits, of which the rarest class has a twentieth of the images of the commonest",
    threshold=0.0,
)
def spcl(budget: Budget, seed: int) -> Measured:
    """Song et al., *Supervised Prototypical Contrastive Learning for Emotion Recognition in Conversation* (2022),
    without the curriculum. The temperature of both is 0.16 on cosines. `extra` has the same with batches of 256."""
    splits = load("digits", seed=seed)
    images = thinned_out(splits.train, seed, [round(100 * 20 ** (-c / 9)) for c in range(10)])
    rows, labels, _ = rotated_digits(images)
    rows, labels = rows[: len(images)], labels[: len(images)]
    test_rows, test_labels, _ = rotated_digits(splits.test)
    test_rows, test_labels = test_rows[: len(splits.test)], test_labels[: len(splits.test)]
    epochs = budget.pick(smoke=1, small=40, full=100)

    def score(loss: EmbeddingLoss, batch_size: int) -> float:
        network = fit_embedding(loss, rows, labels, epochs=epochs, seed=seed, batch_size=batch_size)
        with torch.no_grad():
            z, queries = F.normalize(network(rows)), F.normalize(network(test_rows))
        members = F.one_hot(labels, 10).float()
        guess = (queries @ F.normalize(members.T @ z).T).argmax(1)
        return float(torch.stack([(guess[test_labels == c] == c).float().mean() for c in range(10)]).mean())

    extra = {
        "batches of 256: SPCL": score(losses.SPCL(num_classes=10), 256),
        "batches of 256: supcon": score(losses.SupCon(temperature=0.16), 256),
    }
    return Measured(score(losses.SPCL(num_classes=10), 16), score(losses.SupCon(temperature=0.16), 16), extra)
