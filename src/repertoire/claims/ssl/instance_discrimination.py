"""The claim of *Unsupervised Feature Learning via Non-Parametric Instance-level Discrimination* (2018)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, NEIGHBOURS, PHOTOGRAPHS, learned, raw, untrained


@claim(
    "instance-discrimination",
    statement=(
        "The weighted vote of nearest neighbours is more accurate, by two percentage points, by features learned with "
        "a memory bank, without labels, than by raw pixels."
    ),
    metric=NEIGHBOURS,
    method="instance discrimination, noise-contrastive estimation",
    baseline="raw pixels",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.02,
    own_data=True,
)
def instance_discrimination(budget: Budget, seed: int) -> Measured:
    """Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination* (2018).

    An image of the batch is one of its own 128 negatives less than once in 35 batches. `extra` has the sum over the
    whole bank in the place of the estimate, and random weights.
    """
    ours = learned(budget, seed, method="instance-discrimination:negatives=128,momentum=0.5")
    exact = learned(budget, seed, method="instance-discrimination:negatives=none,momentum=0.5")
    extra = {"whole softmax": exact["neighbours"], "random weights": untrained(budget, seed)["neighbours"]}
    return Measured(ours["neighbours"], raw(budget, seed)["neighbours"], {**extra, "linear probe": ours["linear"]})
