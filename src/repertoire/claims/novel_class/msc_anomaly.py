"""The claims of *Mean-Shifted Contrastive Loss for Anomaly Detection* (2021)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.anomalies import (
    ANOMALIES,
    KNOWN,
    alike,
    alike_by_pixels,
    drawn,
    fine_tuned,
    of_class,
    pretrained,
)

NEIGHBOURS = 2
RATES = {"mean-shifted": 5e-4, "NT-Xent": 1e-4}
"""The best of 0.0001, 0.0005 and 0.002 for either, on a pilot seed."""


@arm
def detected(budget: Budget, seed: int) -> dict[str, float]:
    """AUROC of the network as it was, and after it was trained further with either loss; the seed draws the class."""
    start, splits, others = pretrained(budget, seed)
    label, ours, theirs = others[0], RATES["mean-shifted"], RATES["NT-Xent"]
    arms = {
        "frozen": start,
        "mean-shifted": fine_tuned(start, splits, label, budget, seed, rate=ours),
        "mean-shifted, not held near the centre": fine_tuned(start, splits, label, budget, seed, rate=ours, angular=0),
        "NT-Xent": fine_tuned(start, splits, label, budget, seed, rate=theirs, angular=0, centred="false"),
    }
    normal = of_class(splits, label).train
    return {name: alike(method, normal, splits.test, label, NEIGHBOURS) for name, method in arms.items()}


def by_pixels(budget: Budget, seed: int) -> float:
    """AUROC of raw pixels for the class of the seed."""
    splits, order = drawn(budget, seed)
    return alike_by_pixels(splits, int(order[KNOWN]))


@claim(
    "msc-anomaly",
    statement=(
        "Of a pretrained network that is trained further on photographs of one class, the mean-shifted loss leaves "
        "features that tell the class from others better than those that NT-Xent leaves, by more than one point of "
        "AUROC."
    ),
    metric="AUROC, one class against nine",
    method="mean-shifted contrastive loss",
    baseline="NT-Xent",
    data=ANOMALIES,
    bed="cifar10",
    threshold=0.01,
    floor=by_pixels,
    learned=0.05,
    learned_by="best",
    guard="the distance between pixels, to the nearest normal photograph or to their mean; the rival loses features",
)
def shifted(budget: Budget, seed: int) -> Measured:
    """Reiss and Hoshen, *Mean-Shifted Contrastive Loss for Anomaly Detection* (2021). `extra` has the network before
    it was trained further, and the loss without its angular term."""
    found = detected(budget, seed)
    return Measured(found.pop("mean-shifted"), found.pop("NT-Xent"), found)


@claim(
    "msc-anomaly",
    part="frozen",
    statement=(
        "Trained further with the mean-shifted loss on photographs of one class, a pretrained network tells the class "
        "from others better than before, by more than half a point of AUROC."
    ),
    metric="AUROC, one class against nine",
    method="mean-shifted contrastive loss",
    baseline="the pretrained network as it is",
    data=ANOMALIES,
    bed="cifar10",
    threshold=0.005,
    floor=by_pixels,
    learned=0.05,
    guard="the distance between pixels, to the nearest normal photograph or to their mean",
)
def improved(budget: Budget, seed: int) -> Measured:
    """Reiss and Hoshen (2021), whose network was pretrained on ImageNet; here, on seven other classes of the set."""
    found = detected(budget, seed)
    return Measured(found.pop("mean-shifted"), found.pop("frozen"), found)
