"""The claims of *COSTARR: Consolidated Open Set Technique with Attenuation for Robust Recognition* (2025)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.unknowns import PHOTOGRAPHS, open_set
from repertoire.metrics import auroc, oscr
from repertoire.openset import NoveltyScore

SCORES = (
    "costarr",
    "max-logit",
    "max-softmax",
    "energy",
    "costarr:parts=features",
    "costarr:parts=products",
    "costarr:alike=true",
    "costarr:combine=sum",
)

Distance = Literal["near", "far"]


@arm
def told(budget: Budget, seed: int) -> dict[str, float]:
    """OSCR and AUROC of every score, for near and for far unknowns, and the accuracy on known rows."""
    bed = open_set(budget, seed)
    found = {"accuracy": float(bed.test.right.mean())}
    for spec in SCORES:
        score: NoveltyScore = bed.fitted(spec)
        known = score(*bed.test[:2])
        for distance, other in (("near", bed.near), ("far", bed.far)):
            unknown = score(*other[:2])
            truth = [True] * len(known) + [False] * len(unknown)
            found[f"{distance}: {spec}"] = oscr(known, bed.test.right, unknown)
            found[f"{distance}: AUROC of {spec}"] = auroc([*known, *unknown], truth)
    return found


def _measured(budget: Budget, seed: int, distance: Distance) -> Measured:
    found = told(budget, seed)
    own = {name.split(": ", 1)[1]: value for name, value in found.items() if name.startswith(distance)}
    method, baseline = own.pop("costarr"), own.pop("max-logit")
    return Measured(method, baseline, {"accuracy": found["accuracy"], **own})


def _by_means(budget: Budget, seed: int, distance: Distance) -> float:
    """OSCR of the nearest class mean of the features, and the distance to it; or of the layer with a score that says
    nothing, which is half of its accuracy."""
    bed = open_set(budget, seed)
    means = np.stack([bed.train.x[bed.train.y == c].mean(0) for c in range(len(bed.weight))])
    known, unknown = (cdist(part.x, means) for part in (bed.test, bed.near if distance == "near" else bed.far))
    right = known.argmin(1) == bed.test.y
    return max(oscr(-known.min(1), right, -unknown.min(1)), float(bed.test.right.mean()) / 2)


def near_means(budget: Budget, seed: int) -> float:
    """What class means of the features make of near unknowns."""
    return _by_means(budget, seed, "near")


def far_means(budget: Budget, seed: int) -> float:
    """What class means of the features make of far unknowns."""
    return _by_means(budget, seed, "far")


@claim(
    "costarr",
    statement=(
        "COSTARR recognises photographs of unknown classes better than the largest logit, by more than half a point of "
        "OSCR, where the unknown ones are of the same kind."
    ),
    metric="OSCR, known classes against near unknowns",
    method="COSTARR",
    baseline="largest logit",
    data=PHOTOGRAPHS,
    bed="cifar10-lite0",
    threshold=0.005,
    floor=near_means,
    learned=0.05,
    guard="the nearest class mean of the features and the distance to it, or a score that says nothing",
)
def near(budget: Budget, seed: int) -> Measured:
    """Rabinowitz et al., *COSTARR: Consolidated Open Set Technique with Attenuation for Robust Recognition* (2025).
    `extra` has the largest probability, the energy, either half of the score alone, both with equal lengths, and the
    sum in the place of the product."""
    return _measured(budget, seed, "near")


@claim(
    "costarr",
    part="far",
    statement=(
        "COSTARR tells drawings from photographs of known classes better than the largest logit, by more than half a "
        "point of OSCR."
    ),
    metric="OSCR, known classes against far unknowns",
    method="COSTARR",
    baseline="largest logit",
    data=PHOTOGRAPHS,
    bed="cifar10-lite0",
    threshold=0.005,
    floor=far_means,
    learned=0.05,
    guard="the nearest class mean of the features and the distance to it, or a score that says nothing",
)
def far(budget: Budget, seed: int) -> Measured:
    """Rabinowitz et al. (2025), whose unknowns are of other sets of photographs."""
    return _measured(budget, seed, "far")
