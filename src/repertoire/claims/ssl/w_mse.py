"""The claim of *Whitening for Self-Supervised Representation Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, projected, untrained


@claim(
    "w-mse",
    statement=(
        "A linear probe of features learned with W-MSE, without negatives, is at most two percentage points less "
        "accurate than one of features learned with the contrastive NT-Xent for equally long."
    ),
    metric=LINEAR,
    method="W-MSE, two views",
    baseline="NT-Xent at temperature 0.2",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=-0.02,
    strict=False,
    own_data=True,
    learned=0.03,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def w_mse(budget: Budget, seed: int) -> Measured:
    """Ermolov et al., *Whitening for Self-Supervised Representation Learning* (2020).

    A close call: W-MSE is behind, by about half of the margin. While three looks had an error of 5.6 % in the place of
    5 %, the lower end of the interval cleared the margin by a hair (-0.0196). A first design with twice the epochs had
    been undecided after five of these seeds, which was all that it could afford: -0.005, between -0.022 and 0.012.
    """
    ours = learned(budget, seed, method=projected(64), loss="w-mse:size=128")
    theirs = learned(budget, seed, method=projected(128), loss="nt-xent:temperature=0.2")
    return Measured(ours["linear"], theirs["linear"], trivial=untrained(budget, seed)["linear"])
