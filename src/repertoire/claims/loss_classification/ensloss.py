"""The claim of *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2024)."""

from __future__ import annotations

from statistics import fmean

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import classified

PAIRS = ((3, 5), (4, 7), (1, 9), (0, 8), (2, 6))
"""Cat and dog, deer and horse, car and truck, aeroplane and ship, bird and frog: every class once."""


@claim(
    "ensloss",
    statement="A network that can overfit is more accurate on test images with EnsLoss than with the logistic loss.",
    metric="test accuracy, mean over five pairs of classes",
    method="EnsLoss",
    baseline="logistic loss",
    data="CIFAR-10, frozen features of a pretrained network, pairs of classes, 100 images a class",
    bed="cifar10-lite0",
    threshold=0.005,
    learned=0.1,
    ceiling=1.0,
)
def ensloss(budget: Budget, seed: int) -> Measured:
    """Dai, *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2025), which
    tells classes of CIFAR-10 apart in pairs."""
    pairs = budget.pick(smoke=PAIRS[:1], small=PAIRS, full=PAIRS)
    found = [
        [classified(budget, seed, loss=loss, each=100, classes=pair) for pair in pairs]
        for loss in ("ensloss", "cross-entropy")
    ]
    ours, plain = (fmean(each["accuracy"] for each in part) for part in found)
    return Measured(ours, plain, trivial=fmean(each["majority"] for each in found[0]))
