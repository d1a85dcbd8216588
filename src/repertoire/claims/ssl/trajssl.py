"""The claim of *Pose-Aware Self-Supervised Learning with Viewpoint Trajectory Regularization* (2024)."""

from __future__ import annotations

import math

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.towers import TURNED, pose_and_class, pose_by_pixels, turned_halves


@claim(
    "trajssl",
    statement=(
        "Features trained with VICReg on three adjacent views of an object tell its angle better, by 0.01 in R², "
        "if a straight trajectory is asked for as well."
    ),
    metric="R² of the angle, from the five nearest known objects",
    method="VICReg and trajectory regularisation",
    baseline="VICReg",
    bed="fashion-mnist",
    data=TURNED,
    threshold=0.01,
    learned=0.0,
    floor=pose_by_pixels,
    guard="the five nearest by raw pixels, which tell the angle better than either after so short a training",
)
def trajssl(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Pose-Aware Self-Supervised Learning with Viewpoint Trajectory Regularization* (2024)."""
    step = math.radians(15)
    straight = pose_and_class(budget, seed, turned_halves(budget, seed, losses.Trajectory(weight=5.0), step))["all"]
    plain = pose_and_class(budget, seed, turned_halves(budget, seed, losses.VICReg(), step))["all"]
    extra = {"trajectory: class accuracy": straight[1], "VICReg: class accuracy": plain[1]}
    return Measured(straight[0], plain[0], extra)
