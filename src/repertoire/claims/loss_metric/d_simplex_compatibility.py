"""The claim of *Stationary Representations: Optimally Approximating Compatibility and Implications for Improved Model
Replacements* (2024).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from repertoire import heads
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.unseen_classes import digits_split, fitted_embedding, unit_rows


@claim(
    "d-simplex-compatibility",
    statement=(
        "Features of a network trained anew on more classes find the right images in a gallery of the old network's "
        "features more often if both had the same fixed simplex for a classifier than if each trained its own."
    ),
    metric="test accuracy of the nearest neighbour, new queries in an old gallery",
    method="fixed simplex",
    baseline="trained classifier",
    data="digits: five classes, then ten",
    threshold=0.0,
)
def d_simplex(budget: Budget, seed: int) -> Measured:
    """Biondi et al., *Stationary Representations: Optimally Approximating Compatibility* (2024): its cross-entropy.

    `extra` has the accuracies of the old and the new network alone: an upgrade pays if the cross test exceeds the old.
    """
    inputs, labels, test_inputs, test_labels, known = digits_split(seed, 5)
    old = torch.isin(labels, known)
    epochs = budget.pick(smoke=1, small=40, full=100)

    def right(queries: nn.Module, gallery: nn.Module) -> float:
        nearest = (unit_rows(queries, test_inputs) @ unit_rows(gallery, inputs).T).argmax(1)
        return float((labels[nearest] == test_labels).float().mean())

    def tests(fresh: Callable[[], heads.Head]) -> tuple[float, float, float]:
        torch.manual_seed(seed)
        before = fitted_embedding(fresh(), inputs[old], labels[old], epochs)
        torch.manual_seed(seed + 1000)
        after = fitted_embedding(fresh(), inputs, labels, epochs)
        return right(after, before), right(before, before), right(after, after)

    # As in the paper the softmax runs over all corners, used or not.
    cross, alone, new = tests(lambda: heads.Simplex(64, 65))
    plain_cross, plain_alone, plain_new = tests(lambda: heads.Linear(64, 10))
    extra = {"simplex: old": alone, "simplex: new": new, "trained: old": plain_alone, "trained: new": plain_new}
    return Measured(cross, plain_cross, extra)
