"""The claim of *Class-relation Knowledge Distillation for Novel Class Discovery* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import new_classes as bed

BASE = "class-relation:mixed=false,epochs=20,pretraining=20,rate=0.003"
"""Of the rates 0.0003, 0.001 and 0.003, hidden known classes of a pilot seed chose this one."""


def clustered(budget: Budget, seed: int) -> float:
    """What k-means of the features scores."""
    return bed.clustered(bed.drawn(budget, seed, rows=1000, mixed=False), seed)["new"]


@claim(
    "cr-kd-ncd",
    statement=(
        "New classes are grouped more accurately where the network keeps what it thought of their rows when it knew "
        "the known classes alone, than where it does not."
    ),
    metric="accuracy on rows of new classes",
    method="with class-relation distillation",
    baseline="without it",
    data="CIFAR-10, frozen features of a pretrained network: five classes known by all of their rows, five new",
    bed="cifar10-lite0",
    threshold=0.01,
    floor=clustered,
    learned=0.05,
    guard="k-means of the features as they come, told the true number of classes",
    ceiling=1.0,
)
def cr_kd_ncd(budget: Budget, seed: int) -> Measured:
    """Gu et al., *Class-relation Knowledge Distillation for Novel Class Discovery* (2023).

    Both are told that five classes are new, as in the paper. `extra` has distillation with a constant weight, and
    semi-supervised k-means.
    """
    ours, theirs, constant = (
        bed.discovered(budget, seed, method=BASE + more, rows=1000, mixed=False)
        for more in ("", ",distil=0", ",weights=constant")
    )
    kmeans = bed.discovered(budget, seed, method="semi-supervised-k-means", rows=1000, mixed=False)
    extra = {"constant weight": constant["new"], "semi-supervised k-means": kmeans["new"]}
    return Measured(ours["new"], theirs["new"], extra)
