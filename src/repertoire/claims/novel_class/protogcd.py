"""The claims of *ProtoGCD: Unified and Unbiased Prototype Learning for Generalized Category Discovery* (2025)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import new_classes as bed

OURS = "protogcd:epochs=30"
THEIRS = "simgcd:epochs=30"
"""Both with the learning rate and the noise of the defaults: hidden known classes of a pilot seed did not tell rates of
0.0003, 0.001 and 0.003 and noise of 0.5 and 1 apart, for either (0.64 to 0.66)."""


def clustered(budget: Budget, seed: int) -> float:
    """What k-means of the features scores."""
    return bed.clustered(bed.drawn(budget, seed), seed)["all"]


@claim(
    "protogcd",
    statement=(
        "Rows of known and of new classes are grouped more accurately by prototypes that are kept apart, and learn "
        "from soft answers at first and from sure ones later, than by prototypes that learn from soft answers alone."
    ),
    metric="accuracy on rows without a label",
    method="ProtoGCD's objective",
    baseline="SimGCD's objective",
    data="CIFAR-10, frozen features of a pretrained network: five classes known by half of their rows, five new",
    bed="cifar10-lite0",
    threshold=0.01,
    floor=clustered,
    learned=0.02,
    guard="k-means of the features as they come, told the true number of classes",
    ceiling=1.0,
)
def protogcd(budget: Budget, seed: int) -> Measured:
    """Ma et al., *ProtoGCD: Unified and Unbiased Prototype Learning for Generalized Category Discovery* (2025).

    Both are told that there are ten classes, as in the paper, and start at the same centres. `extra` has the old and
    the new classes apart, and semi-supervised k-means.
    """
    ours, theirs = (bed.discovered(budget, seed, method=method) for method in (OURS, THEIRS))
    kmeans = bed.discovered(budget, seed, method="semi-supervised-k-means")
    extra = {
        **bed.scores(ours, ("old", "new"), "ProtoGCD: "),
        **bed.scores(theirs, ("old", "new"), "SimGCD: "),
        **bed.scores(kmeans, ("all", "old", "new"), "semi-supervised k-means: "),
    }
    return Measured(ours["all"], theirs["all"], extra)
