"""The claim of *Supervised Prototypical Contrastive Learning for Emotion Recognition in Conversation* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import descend, embedder, questions, shares, shuffled
from repertoire.claims.beds.raw import raw_accuracy_of_rows


@arm
def sentences(budget: Budget, seed: int, *, prototypes: bool, rate: float) -> dict[str, float]:
    """Sentences by the nearest class mean in an embedding that was trained in batches of 16."""
    rows = questions(budget, seed)[0].to(budget.device)
    classes = int(rows.y.max()) + 1
    torch.manual_seed(seed)
    network = embedder(rows.x.shape[1]).to(budget.device).train()
    loss: losses.EmbeddingLoss = losses.SPCL(num_classes=classes) if prototypes else losses.SupCon(temperature=0.16)
    loss.prepare(64)
    loss.to(budget.device)

    def objective(index: Tensor) -> Tensor:
        return loss(network(rows.x[index]), rows.y[index])

    epochs = budget.pick(smoke=1, small=10, full=40)
    descend(
        network.parameters(),
        objective,
        shuffled(len(rows.x), 16),
        epochs=epochs,
        rate=rate,
        after=loss.after_update,
    )
    network.eval()
    with torch.no_grad():
        members = F.one_hot(rows.y, classes).float()
        means = F.normalize(members.T @ F.normalize(network(rows.x)))
        chosen, found = (
            shares(F.normalize(network(x)) @ means.T, y)
            for x, y in ((rows.val_x, rows.val_y), (rows.test_x, rows.test_y))
        )
    return {"test": found["balanced accuracy"], "validation": chosen["balanced accuracy"]}


def raw(budget: Budget, seed: int) -> float:
    """What the networks' inputs give as they come."""
    return raw_accuracy_of_rows(questions(budget, seed)[0], balanced=True)


@claim(
    "spcl",
    statement=(
        "With uneven classes and batches of 16, prototypes of all classes in every batch make an embedding in which "
        "the nearest class mean is right more often than the supervised contrastive loss does."
    ),
    metric="mean of the intents' test accuracies, by the nearest class mean",
    method="SPCL",
    baseline="supervised contrastive loss",
    bed="intents",
    threshold=0.01,
    learned=0.02,
    floor=raw,
)
def spcl(budget: Budget, seed: int) -> Measured:
    """Song et al., *Supervised Prototypical Contrastive Learning for Emotion Recognition in Conversation* (2022),
    without the curriculum. The temperature of both is 0.16 on cosines. The commonest intent has five times the
    sentences of the rarest."""
    ours = sentences(budget, seed, prototypes=True, rate=1e-3)
    plain = sentences(budget, seed, prototypes=False, rate=3e-4)
    return Measured(ours["test"], plain["test"])
