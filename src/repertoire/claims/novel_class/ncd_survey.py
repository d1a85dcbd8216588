"""The claim of *Novel Class Discovery: an Introduction and Key Concepts* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import new_classes as bed

ARMS = {
    "k-means on pixels": "k-means",
    "two stages: features of known classes, then k-means": "tabular-ncd:known_weight=1,epochs=30",
    "one stage: known classes and pairs of new rows together": "rank-statistics:mixed=false,epochs=30",
}


@claim(
    "ncd-survey",
    statement=(
        "Handwritten digits of unknown classes are grouped more accurately by k-means on features that known digits "
        "taught than by k-means on pixels, and more accurately still where known classes and pairs of new rows are "
        "learned together."
    ),
    metric="accuracy on rows of new classes",
    arms=tuple(ARMS),
    kind="ordering",
    data="handwritten digits of MNIST: five classes known by all of their rows, five new",
    bed="mnist5k",
    threshold=0.0,
    learned=0.1,
    guard="all new rows in one group (k-means of the pixels is the first arm)",
)
def ncd_survey(budget: Budget, seed: int) -> Measured:
    """Troisemaine et al., *Novel Class Discovery: an Introduction and Key Concepts* (2023), who report no experiment:
    the order is what their account of two-stage and one-stage ways leads one to expect."""
    found = [bed.discovered(budget, seed, method=method, bed="mnist5k", mixed=False) for method in ARMS.values()]
    return Measured.of([each["new"] for each in found], trivial=found[0]["one group: new"])
