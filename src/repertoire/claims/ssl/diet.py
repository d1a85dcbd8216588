"""The claim of *Occam's Razor for Self Supervised Learning* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.slower_photographs import learned_slowly
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, SIMCLR, learned, untrained


@claim(
    "diet",
    statement=(
        "A linear probe of features learned with the number of an image as its class is at most one percentage point "
        "less accurate than one of features learned with SimCLR from as many views."
    ),
    metric=LINEAR,
    method="the number of an image as its class, one view, twice the epochs",
    baseline="SimCLR, two views",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=-0.01,
    strict=False,
    own_data=True,
    learned=0.03,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def diet(budget: Budget, seed: int) -> Measured:
    """Ibrahim, Klindt and Balestriero, *Occam's Razor for Self Supervised Learning* (2024). Each at the rate that suits
    it: at SimCLR's, DIET was 3.6 points above random weights with seed 0 and one point with seed 1, and was stopped.
    Both seeds are among those of the verdict; the change was in favour of DIET, and the verdict is not."""
    ours = learned_slowly(budget, seed, method="datum-index", batch=64, rate=2e-3)
    theirs = learned(budget, seed, method=SIMCLR)
    extra = {"the number of an image: nearest neighbours": ours["neighbours"]}
    extra["SimCLR: nearest neighbours"] = theirs["neighbours"]
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
