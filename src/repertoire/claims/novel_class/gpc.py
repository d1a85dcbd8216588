"""The claims of *Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import new_classes as bed

DATA = "CIFAR-10, frozen features of a pretrained network: five classes known by half of their rows, five new"


@claim(
    "gpc",
    statement=(
        "Where nobody says how many classes there are, a semi-supervised Gaussian mixture that splits and merges its "
        "components groups rows of known and new classes more accurately than semi-supervised k-means with the number "
        "of the best silhouette."
    ),
    metric="accuracy on rows without a label",
    method="mixture that splits and merges",
    baseline="semi-supervised k-means, number by silhouette",
    data=DATA,
    bed="cifar10-lite0",
    threshold=0.01,
    learned=0.1,
    guard="one group; k-means of the features is as accurate (0.49), and must be told the number of classes",
    ceiling=1.0,
)
def gpc(budget: Budget, seed: int) -> Measured:
    """Zhao, Wen and Han, *Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery* (2023).

    `extra` has the number of classes that each says, where ten are true, and the old and the new classes apart.
    """
    ours = bed.discovered(budget, seed, method="semi-supervised-gmm", counted=False)
    theirs = bed.discovered(budget, seed, method="semi-supervised-k-means:by=silhouette", counted=False)
    extra = {
        **bed.scores(ours, ("classes", "old", "new"), "mixture: "),
        **bed.scores(theirs, ("classes", "old", "new"), "k-means: "),
    }
    return Measured(ours["all"], theirs["all"], extra, trivial=ours["one group"])


@claim(
    "gpc",
    part="number",
    statement=(
        "Started with half as many components as there are classes, or with twice as many, splits and merges end "
        "nearer to the true number than the number of the best silhouette is."
    ),
    metric="error of the number of classes, relative to the true one",
    method="mixture that splits and merges, mean of both starts",
    baseline="semi-supervised k-means, number by silhouette",
    data=DATA,
    bed="cifar10-lite0",
    threshold=0.05,
    higher_is_better=False,
    learned=0.1,
    trivial=0.5,
    guard="the known classes and no new ones; twice as many is the truth by design, and no answer to measure against",
)
def number(budget: Budget, seed: int) -> Measured:
    """Zhao, Wen and Han, *Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery* (2023).

    Five of ten classes are known: the chains start at five components and at twenty. `extra` has the numbers.
    """

    def says(method: str) -> dict[str, float]:
        return bed.discovered(budget, seed, method=method, counted=False)

    few, many = (says(f"semi-supervised-gmm:starting=({factor})") for factor in (1, 4))
    theirs = says("semi-supervised-k-means:by=silhouette")
    true = few["true classes"]
    ours = (abs(few["classes"] - true) + abs(many["classes"] - true)) / 2
    extra = {"from too few": few["classes"], "from too many": many["classes"], "silhouette": theirs["classes"]}
    return Measured(ours / true, abs(theirs["classes"] - true) / true, extra)
