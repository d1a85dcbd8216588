"""The claim of *Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere*
(2020).
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, projected, untrained


@claim(
    "align-uniform",
    statement=(
        "Minimising alignment plus uniformity directly gives features whose linear probe is at most one percentage "
        "point less accurate than that of features learned with NT-Xent for equally long."
    ),
    metric=LINEAR,
    method="alignment and uniformity",
    baseline="NT-Xent at temperature 0.2",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=-0.01,
    strict=False,
    own_data=True,
    learned=0.03,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def align_uniform(budget: Budget, seed: int) -> Measured:
    """Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020): the two losses summed against the contrastive loss."""
    ours = learned(budget, seed, method=projected(128), loss="align-uniform")
    theirs = learned(budget, seed, method=projected(128), loss="nt-xent:temperature=0.2")
    extra = {"alignment and uniformity: nearest neighbours": ours["neighbours"]}
    extra["NT-Xent: nearest neighbours"] = theirs["neighbours"]
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
