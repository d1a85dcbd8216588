"""The claims of *Unilaterally Aggregated Contrastive Learning with Hierarchical Augmentation for Anomaly Detection*
(2023).
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.anomalies import ANOMALIES, alike, alike_by_pixels, drawn, from_scratch, of_class

PIECES = {
    "all apart": "unicon-ha:stages=1,soft=false,normal=apart",
    "gathered": "unicon-ha:stages=1,soft=false",
    "gathered softly": "unicon-ha:stages=1",
    "gathered softly at every depth": "unicon-ha",
}
"""The pieces of the method, one more in each: the first is SimCLR with turned photographs among the others."""


@arm
def detected(budget: Budget, seed: int, piece: str) -> dict[str, float]:
    """AUROC of the nearest photograph of the normal class, which the seed draws."""
    splits, order = drawn(budget, seed)
    label = int(order[0])
    method = from_scratch(budget, seed, splits, label, method=PIECES[piece])
    return {"auroc": alike(method, of_class(splits, label).train, splits.test, label, 1)}


def _measured(budget: Budget, seed: int, method: str, baseline: str, *others: str) -> Measured:
    found = {name: detected(budget, seed, name)["auroc"] for name in (method, baseline, *others)}
    return Measured(found.pop(method), found.pop(baseline), found)


def by_pixels(budget: Budget, seed: int) -> float:
    """AUROC of raw pixels for the class of the seed."""
    splits, order = drawn(budget, seed)
    return alike_by_pixels(splits, int(order[0]))


@claim(
    "unicon-ha",
    statement=(
        "Where the views of normal photographs are drawn together and only turned ones are kept apart, normal "
        "photographs are told from others better than where all are kept apart, by more than one point of AUROC."
    ),
    metric="AUROC, one class against nine",
    method="unilateral aggregation",
    baseline="SimCLR with turned photographs",
    data=ANOMALIES,
    bed="cifar10",
    threshold=0.01,
    floor=by_pixels,
    learned=0.0,
    guard="the distance between pixels, to the nearest normal photograph or to their mean",
)
def unilateral(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Unilaterally Aggregated Contrastive Learning with Hierarchical Augmentation for Anomaly Detection*
    (2023), at the last stage alone and with the weights of its views. `extra` has it without these weights."""
    return _measured(budget, seed, "gathered softly", "all apart", "gathered")


@claim(
    "unicon-ha",
    part="depth",
    statement=(
        "Asked at every depth of the network, and of views that are the stronger the deeper, unilateral aggregation "
        "tells normal photographs from others better than at the last stage alone, by more than half a point of AUROC."
    ),
    metric="AUROC, one class against nine",
    method="unilateral aggregation at every depth",
    baseline="unilateral aggregation at the last stage",
    data=ANOMALIES,
    bed="cifar10",
    threshold=0.005,
    floor=by_pixels,
    learned=0.0,
    guard="the distance between pixels, to the nearest normal photograph or to their mean",
)
def depth(budget: Budget, seed: int) -> Measured:
    """Wang et al. (2023): hierarchical augmentation, with as many epochs, of which each costs more."""
    return _measured(budget, seed, "gathered softly at every depth", "gathered softly")
