"""The claim of *Self-supervised learning of Split Invariant Equivariant representations* (2023)."""

from __future__ import annotations

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.towers import TURNED, pose_and_class, turned_halves


@claim(
    "sie",
    statement=(
        "The equivariant half of the features of SIE tells the angle of an object with an R² at least 0.05 above that "
        "of all features of VICReg, which was trained on the same pairs of views."
    ),
    metric="R² of the angle, from the five nearest known objects",
    method="SIE, the equivariant half of the features",
    baseline="VICReg, all features",
    bed="fashion-mnist",
    data=TURNED,
    threshold=0.05,
)
def sie(budget: Budget, seed: int) -> Measured:
    """Garrido et al., *Self-supervised learning of Split Invariant Equivariant representations* (2023)."""
    split = pose_and_class(budget, seed, turned_halves(budget, seed, losses.SIE(parameters=2), None))
    plain = pose_and_class(budget, seed, turned_halves(budget, seed, losses.VICReg(), None))["all"]
    extra = {"SIE, all features": split["all"][0], "SIE: class accuracy": split["all"][1]}
    return Measured(split["second half"][0], plain[0], {**extra, "VICReg: class accuracy": plain[1]})
