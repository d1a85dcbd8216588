"""The claim of *Occam's Razor for Self Supervised Learning* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_images import DATA, LINEAR, disturbed_images, linear_accuracy, pretrained


@claim(
    "diet",
    statement=(
        "A linear probe of features learned with the number of an image as its class is at most one percentage point "
        "less accurate than one of features learned with SimCLR, BYOL or VICReg from as many views, whichever of them "
        "is best."
    ),
    metric=LINEAR,
    method="the number of an image as its class, one view, twice the epochs",
    baseline="SimCLR, BYOL or VICReg, the best",
    data=DATA,
    threshold=-0.01,
)
def diet(budget: Budget, seed: int) -> Measured:
    """Ibrahim, Klindt and Balestriero, *Occam's Razor for Self Supervised Learning* (2024)."""
    data = disturbed_images(budget, seed)
    epochs = budget.pick(smoke=1, small=15, full=200)
    ours = linear_accuracy(pretrained("datum-index", data, epochs=2 * epochs, seed=seed), data)
    others = {
        name: linear_accuracy(pretrained(spec, data, epochs=epochs, seed=seed), data)
        for name, spec in (("SimCLR", "simclr"), ("BYOL", "byol:momentum=0.99"), ("VICReg", "embedding"))
    }
    return Measured(ours, max(others.values()), others)
