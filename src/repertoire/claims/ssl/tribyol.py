"""The claim of *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2021)."""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_images import DATA, LINEAR, disturbed_images, linear_accuracy, pretrained


@claim(
    "tribyol",
    statement=(
        "With batches of 16, a linear probe of features learned with TriBYOL is more accurate than one of features "
        "learned with BYOL in as many steps."
    ),
    metric=LINEAR,
    method="TriBYOL",
    baseline="BYOL",
    data=DATA,
    threshold=0.0,
)
def tribyol(budget: Budget, seed: int) -> Measured:
    """Li et al., *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022)."""
    data = disturbed_images(budget, seed)
    epochs = budget.pick(smoke=1, small=4, full=100)
    options: dict[str, Any] = {"seed": seed, "batch_size": 16}
    ours = linear_accuracy(pretrained("tribyol:momentum=0.99", data, epochs=epochs, **options), data)
    theirs = linear_accuracy(pretrained("byol:momentum=0.99", data, epochs=epochs, **options), data)
    # Three views for each two of BYOL.
    longer = linear_accuracy(pretrained("byol:momentum=0.99", data, epochs=round(1.5 * epochs), **options), data)
    return Measured(ours, theirs, {"BYOL, as many views": longer})
