"""The claim of *Supervised Metric Learning to Rank for Retrieval via Contextual Similarity Optimization* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding, recall_at_one
from repertoire.claims.beds.unseen_classes import RECALL, UNSEEN, unseen_recall
from repertoire.losses import EmbeddingLoss


@claim(
    "contextual-metric",
    statement=(
        "With every fifth training label wrong, comparing neighbours beside a contrastive loss makes better embeddings "
        "of unseen classes than the contrastive loss alone."
    ),
    metric=RECALL,
    method="contextual loss",
    baseline="its contrastive part alone",
    data=f"{UNSEEN}; a fifth of the training labels is drawn at random",
    threshold=0.0,
)
def contextual_metric(budget: Budget, seed: int) -> Measured:
    """Liao, Tsiligkaridis and Kulis, *Supervised Metric Learning to Rank for Retrieval via Contextual Similarity
    Optimization* (2022), in batches of four samples a class. `extra` has the same with all labels right."""
    inputs, labels, test_inputs, test_labels = unseen_recall(seed)
    generator = torch.Generator().manual_seed(seed)
    classes = labels.unique()
    wrong = torch.rand(len(labels), generator=generator) < 0.2
    drawn = classes[torch.randint(len(classes), (len(labels),), generator=generator)]
    noisy = torch.where(wrong, drawn, labels)
    epochs = budget.pick(smoke=1, small=20, full=100)

    def recall(loss: EmbeddingLoss, targets: Tensor) -> float:
        network = fit_embedding(loss, inputs, targets, epochs=epochs, seed=seed, per_class=4)
        return recall_at_one(network, test_inputs, test_labels)

    def plain() -> EmbeddingLoss:
        return losses.Contextual(contextual=0.0, regularisation=0.0)

    extra = {
        "no label wrong: contextual": recall(losses.Contextual(), labels),
        "no label wrong: contrastive": recall(plain(), labels),
    }
    return Measured(recall(losses.Contextual(), noisy), recall(plain(), noisy), extra)
