"""The claim of *Rethinking Supervised Pre-training for Better Downstream Transferring* (2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding
from repertoire.claims.beds.digits import rotated_digits
from repertoire.data import load


@claim(
    "look",
    statement=(
        "A network trained to have neighbours of the same coarse class keeps the finer classes inside it apart better "
        "than one trained with the supervised contrastive loss."
    ),
    metric="test accuracy of the turn and the digit together, by the five nearest training images",
    method="LOOK",
    baseline="supervised contrastive loss",
    data="digits in four turns, labelled by digit only",
    threshold=0.0,
)
def look(budget: Budget, seed: int) -> Measured:
    """Feng et al., *Rethinking Supervised Pre-training for Better Downstream Transferring* (2021).

    `extra` has the accuracy of the digit alone, which is what both were trained for.
    """
    splits = load("digits", seed=seed)
    inputs, digits, turns = rotated_digits(splits.train)
    test_inputs, test_digits, test_turns = rotated_digits(splits.test)
    fine, test_fine = 4 * digits + turns, 4 * test_digits + test_turns
    epochs = budget.pick(smoke=1, small=20, full=100)
    found, extra = [], {}
    for name, loss in (("LOOK", losses.LOOK(queue=2048)), ("supcon", losses.SupCon())):
        network = fit_embedding(loss, inputs, digits, epochs=epochs, seed=seed)
        found.append(_neighbours(network, inputs, fine, test_inputs, test_fine))
        extra[f"digit alone: {name}"] = _neighbours(network, inputs, digits, test_inputs, test_digits)
    return Measured(found[0], found[1], extra)


@torch.no_grad()
def _neighbours(network: nn.Module, inputs: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy of a vote of the five nearest rows by cosine."""
    similarities = F.normalize(network(queries)) @ F.normalize(network(inputs)).T
    votes = F.one_hot(labels[similarities.topk(5, dim=1).indices], 40).sum(1)
    return float((votes.argmax(1) == truth).float().mean())
