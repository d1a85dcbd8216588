"""The claim of *Rethinking Supervised Pre-training for Better Downstream Transferring* (2021)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import _named
from repertoire.claims.beds.frozen import characters, embedded


@functools.lru_cache(maxsize=1)
def alphabet_of(budget: Budget) -> Tensor:
    """The alphabet of each character."""
    names = [name.split("/")[0] for name in _named.get("omniglot-all").splits(budget, 0).train.classes]
    if "/" not in _named.get("omniglot-all").splits(budget, 0).train.classes[0]:  # a smoke run has digits
        names = [str(number % 2) for number in range(len(names))]
    return torch.tensor([sorted(set(names)).index(name) for name in names])


@arm
def neighbours(budget: Budget, seed: int, *, loss: str, rate: float) -> dict[str, float]:
    """Characters, and alphabets, by the five nearest drawings in an embedding that was told the alphabets only."""
    rows = characters(budget, seed)
    alphabets = alphabet_of(budget).to(budget.device)
    criterion: losses.EmbeddingLoss = losses.LOOK(queue=2048) if loss == "look" else losses.SupCon()
    epochs = budget.pick(smoke=1, small=40, full=200)
    network = embedded(criterion, rows.x, alphabets[rows.y], seed=seed, epochs=epochs, rate=rate)
    with torch.no_grad():
        return {
            f"{part}: {what}": vote(network(x), labels(y), network(rows.x), labels(rows.y))
            for part, x, y in (("validation", rows.val_x, rows.val_y), ("test", rows.test_x, rows.test_y))
            for what, labels in (("character", lambda y: y), ("alphabet", lambda y: alphabets[y]))
        } | {"untrained": vote(rows.test_x, rows.test_y, rows.x, rows.y)}


def vote(queries: Tensor, truth: Tensor, gallery: Tensor, labels: Tensor) -> float:
    """Accuracy of a vote of the five nearest rows by cosine."""
    similarities = F.normalize(queries) @ F.normalize(gallery).T
    votes = F.one_hot(labels[similarities.topk(5, dim=1).indices], int(labels.max()) + 1).sum(1)
    return float((votes.argmax(1) == truth).float().mean())


def untouched(budget: Budget, seed: int) -> float:
    """The vote of the five nearest drawings by the features that both learn from."""
    rows = characters(budget, seed)
    return vote(rows.test_x, rows.test_y, rows.x, rows.y)


@claim(
    "look",
    statement=(
        "A network trained to have neighbours of the same coarse class keeps the finer classes inside it apart better "
        "than one trained with the supervised contrastive loss."
    ),
    metric="test accuracy of the character, by the five nearest training drawings",
    method="LOOK",
    baseline="supervised contrastive loss",
    data="Omniglot, frozen features: 242 characters, labelled by their eight alphabets only, unseen drawers",
    bed="omniglot-all",
    threshold=0.02,
    learned=0.02,
    learned_by="best",
    floor=untouched,
    guard="the features before training, by the same vote; the rival may lose what they had, which is the claim",
)
def look(budget: Budget, seed: int) -> Measured:
    """Feng et al., *Rethinking Supervised Pre-training for Better Downstream Transferring* (2021).

    `extra` has the accuracy of the alphabet alone, which is what both were trained for, and that of the character by
    the features that both learned from.
    """
    ours, plain = (neighbours(budget, seed, loss=loss, rate=3e-4) for loss in ("look", "supcon"))
    extra = {
        "alphabet alone: LOOK": ours["test: alphabet"],
        "alphabet alone: supcon": plain["test: alphabet"],
        "character, before training": ours["untrained"],
    }
    return Measured(ours["test: character"], plain["test: character"], extra)
