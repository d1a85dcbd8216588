"""The claim of *Dialog2Flow: Pre-training Soft-Contrastive Action-Driven Sentence Embeddings for Automatic Dialog Flow
Extraction* (2024).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import descend, embedder, found_again, groups, questions, renumbered


def words_of(names: list[str]) -> Tensor:
    """What the names of classes say: the words in them, weighted by how rare they are."""
    parts = [name.lower().replace("?", "").replace(" ", "_").split("_") for name in names]
    every = sorted({word for part in parts for word in part})
    counts = torch.tensor([[float(word in part) for word in every] for part in parts])
    return F.normalize(counts * (len(parts) / counts.sum(0)).log())


@arm
def sentences(budget: Budget, seed: int, *, soft: bool, rate: float) -> dict[str, float]:
    """Retrieval among sentences of intents that an embedding was not trained on: a quarter, drawn by the seed."""
    rows, names = questions(budget, seed)
    rows = rows.to(budget.device)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    known, unseen = order[len(order) // 4 :], order[: len(order) // 4]
    x, y = renumbered(rows.x, rows.y, known)
    embeddings = words_of([names[c] for c in known])
    loss: losses.EmbeddingLoss = losses.SupCon(temperature=0.05)
    if soft:
        loss = losses.SoftContrastive(label_embeddings=embeddings)
    torch.manual_seed(seed)
    network = embedder(rows.x.shape[1]).to(budget.device).train()
    loss.prepare(64)
    loss.to(budget.device)

    def objective(index: Tensor) -> Tensor:
        return loss(network(x[index]), y[index])

    epochs = budget.pick(smoke=1, small=20, full=100)
    descend(network.parameters(), objective, groups(y), epochs=epochs, rate=rate, after=loss.after_update)
    network.eval()
    with torch.no_grad():
        u, v = renumbered(rows.test_x, rows.test_y, unseen)
        found = found_again(network(u), v, "cosine")
        plain = found_again(u, v, "cosine")
        w, labels = renumbered(rows.val_x, rows.val_y, known)
        chosen = found_again(network(w), labels, "cosine")["recall at 1"]
    return {**found, "validation": chosen, **{f"untrained: {name}": value for name, value in plain.items()}}


@claim(
    "dialog2flow",
    statement=(
        "An embedding trained with the soft contrastive loss, which is told what the names of intents say, tells "
        "sentences of intents that it never saw apart better than one trained with the supervised contrastive loss."
    ),
    metric="MAP@R among sentences of unseen intents",
    method="soft contrastive loss, intents alike as their names are",
    baseline="supervised contrastive loss",
    bed="intents",
    threshold=0.01,
    learned=0.01,
    guard="the hashed words themselves",
)
def dialog2flow(budget: Budget, seed: int) -> Measured:
    """Burdisso et al., *Dialog2Flow* (2024): the loss, with the temperatures of the released code, on hashed words in
    place of a pretrained encoder; how alike labels are is told by the words that they share. The trivial answer is that
    of the hashed words themselves. `extra` has the recall at 1."""
    ours, plain = (sentences(budget, seed, soft=soft, rate=1e-3) for soft in (True, False))
    extra = {"soft: recall at 1": ours["recall at 1"], "hard: recall at 1": plain["recall at 1"]}
    return Measured(ours["MAP@R"], plain["MAP@R"], extra, trivial=plain["untrained: MAP@R"])
