"""The claim of *Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
Individualization* (2023).
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, projected, untrained

TAIL = 1.6
"""How many times as frequent each class is as the next: 70 times from the first to the last."""


@claim(
    "isogclr",
    statement=(
        "On a long tail of classes, a linear probe of features learned with a temperature for every sample is more "
        "accurate, by half a percentage point, than one of features learned with NT-Xent at a temperature of 0.2."
    ),
    metric=LINEAR,
    method="individual temperatures, from 0.2",
    baseline="NT-Xent at temperature 0.2",
    bed=BED,
    data=PHOTOGRAPHS + " in a long tail; probe and test of all",
    threshold=0.005,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def isogclr(budget: Budget, seed: int) -> Measured:
    """Qiu et al., *Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
    Individualization* (2023). Both see as many images, in three times the usual epochs of fewer. `extra` has another
    temperature."""
    ours, theirs, other = (
        learned(budget, seed, method=projected(128), loss=loss, share=3.0, batch=64, tail=TAIL)
        for loss in ("individual-temperatures:temperature=0.2", "nt-xent:temperature=0.2", "nt-xent:temperature=0.5")
    )
    extra = {"NT-Xent at 0.5": other["linear"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])
