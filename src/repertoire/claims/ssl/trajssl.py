"""The claim of *Pose-Aware Self-Supervised Learning with Viewpoint Trajectory Regularization* (2024)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.towers import TURNED, class_told, turn_told, turn_without_training, turned_halves


@claim(
    "trajssl",
    statement=(
        "Features trained with VICReg on three adjacent views of an object tell better, by 0.01 in R², by how much an "
        "object is turned between two views, if a straight trajectory is asked for as well."
    ),
    metric="R² of the turn between two views of a new object, by a small network on the features of both",
    method="VICReg and trajectory regularisation",
    baseline="VICReg",
    bed="fashion-mnist",
    data=TURNED,
    threshold=0.01,
    learned=0.02,
    floor=turn_without_training,
    guard="the same read-out of pixels or of random weights",
)
def trajssl(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Pose-Aware Self-Supervised Learning with Viewpoint Trajectory Regularization* (2024), whose
    benchmark has the relative pose of two views. Until that was the read-out, the five nearest known objects told the
    angle of one view, which they do better by raw pixels than by either network's features. Views are 15 degrees apart;
    `extra` has 45 degrees, where VICReg alone loses more of the turn."""
    found, extra = {}, {}
    kinds: dict[str, Callable[[], losses.ViewsLoss]] = {
        "trajectory": functools.partial(losses.Trajectory, weight=5.0),
        "VICReg": losses.VICReg,
    }
    for name, kind in kinds.items():
        near, apart = (turned_halves(budget, seed, kind(), math.radians(step)) for step in (15, 45))
        found[name] = turn_told(near, budget, seed)
        extra[f"{name}: class accuracy"] = class_told(near, budget, seed)
        extra[f"{name}, 45 degrees"] = turn_told(apart, budget, seed)
    return Measured(found["trajectory"], found["VICReg"], extra)
