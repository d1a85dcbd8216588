"""The claim of *Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering* (2025)."""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_images import DATA, LINEAR, disturbed_images, linear_accuracy, pretrained


@claim(
    "moco-hard-filter",
    statement=(
        "A linear probe of features learned by MoCo in both directions against the harder half of its queue is more "
        "accurate than one of features learned by MoCo in as many steps."
    ),
    metric=LINEAR,
    method="both directions, the harder half of the queue",
    baseline="MoCo",
    data=DATA,
    threshold=0.0,
)
def moco_hard_filter(budget: Budget, seed: int) -> Measured:
    """Hoang et al., *Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering*
    (2025)."""
    data = disturbed_images(budget, seed)
    options: dict[str, Any] = {"epochs": budget.pick(smoke=1, small=20, full=200), "seed": seed}
    ours, theirs, unfiltered = (
        linear_accuracy(pretrained(f"{name}:queue=512,momentum=0.99{more}", data, **options), data)
        for name, more in (("moco-hard", ""), ("moco", ""), ("moco-hard", ",hard=1"))
    )
    return Measured(ours, theirs, {"both directions, the whole queue": unfiltered})
