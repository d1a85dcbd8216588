"""The claim of *Self-Labeling Refinement for Robust Representation Learning with Bootstrap Your Own Latent* (2022).

No option was tuned for a claim: momenta are 0.99 and queues a fraction of the data, as the methods' documentation says
for short runs, and everything else is the default.
"""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_images import DATA as DISTURBED
from repertoire.claims.beds.disturbed_images import disturbed_images as _images
from repertoire.claims.beds.disturbed_images import linear_accuracy as _linear
from repertoire.claims.beds.disturbed_images import pretrained as _pretrained


@claim(
    "self-labeling-byol",
    statement=(
        "A linear probe of features learned with BYOL and the cross-cosine similarity loss is more accurate than one "
        "of features learned with BYOL alone."
    ),
    metric="linear-probe test accuracy",
    method="BYOL and CCSL",
    baseline="BYOL",
    data=DISTURBED,
    threshold=0.0,
)
def self_labeling_byol(budget: Budget, seed: int) -> Measured:
    """Garg and Jain, *Self-Labeling Refinement for Robust Representation Learning with Bootstrap Your Own Latent*
    (2022)."""
    data = _images(budget, seed)
    options: dict[str, Any] = {"epochs": budget.pick(smoke=1, small=20, full=200), "seed": seed}
    ours, by_sigmoid, theirs = (
        _linear(_pretrained(f"{name}momentum=0.99", data, **options), data)
        for name in ("byol-self-labels:", "byol-self-labels:by=sigmoid,", "byol:")
    )
    return Measured(ours, theirs, {"BYOL and CSSL": by_sigmoid})
