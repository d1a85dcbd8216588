"""The claim of *Whitening for Self-Supervised Representation Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import DISTURBED, PROBE, probe_each


@claim(
    "w-mse",
    statement=(
        "Whitening keeps the squared distance between views from collapsing: a linear probe of features learned with "
        "W-MSE is at least five percentage points more accurate than one learned with the same distance alone."
    ),
    metric=PROBE,
    method="W-MSE, two views",
    baseline="squared distance of unit vectors, no whitening",
    data=DISTURBED,
    threshold=0.05,
)
def w_mse(budget: Budget, seed: int) -> Measured:
    """Ermolov et al., *Whitening for Self-Supervised Representation Learning* (2020)."""
    specs = ["w-mse:size=64", "align-uniform:uniform_weight=0", "w-mse:size=64,views=4"]
    whitened, alone, four = probe_each(budget, seed, specs)
    return Measured(whitened, alone, {"W-MSE, four views": four})
