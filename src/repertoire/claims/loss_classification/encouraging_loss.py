"""The claim of *Well-classified Examples are Underestimated in Classification with Deep Neural Networks* (2021)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import classified, photographs
from repertoire.claims.beds.raw import raw_accuracy_of_rows


def raw(budget: Budget, seed: int) -> float:
    """What the features give as they come."""
    return raw_accuracy_of_rows(photographs(budget, seed, 400))


@claim(
    "encouraging-loss",
    statement="The encouraging loss gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="encouraging loss",
    baseline="cross-entropy",
    bed="cifar10-lite0",
    threshold=0.005,
    own_data=True,
    learned=0.02,
    floor=raw,
    ceiling=1.0,
)
def encouraging(budget: Budget, seed: int) -> Measured:
    """Zhao et al., *Well-classified Examples are Underestimated in Classification with Deep Neural Networks* (2022)."""
    ours, plain = (classified(budget, seed, loss=loss, rate=3e-4) for loss in ("encouraging", "cross-entropy"))
    return Measured(ours["accuracy"], plain["accuracy"])
