"""The claims of *A Simple Framework for Contrastive Learning of Visual Representations* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import (
    BED,
    LINEAR,
    PHOTOGRAPHS,
    SIMCLR,
    VIEWS,
    learned,
    raw_linear,
    untrained,
    without_training,
)


@claim(
    "simclr",
    statement=(
        "A linear probe of features learned without labels from two augmented views is at least five percentage points "
        "more accurate than one of the same network with random weights."
    ),
    metric=LINEAR,
    method="SimCLR, no labels",
    baseline="random weights",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.05,
    strict=False,
    own_data=True,
    learned=0.02,
    learned_by="best",
    floor=raw_linear,
    guard="a linear probe of raw pixels, which SimCLR must beat; the rival is the network before training",
)
def simclr(budget: Budget, seed: int) -> Measured:
    """Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations* (2020)."""
    ours, random = learned(budget, seed, method=SIMCLR), untrained(budget, seed)
    extra = {f"{name}: nearest neighbours": arm["neighbours"] for name, arm in (("SimCLR", ours), ("random", random))}
    return Measured(ours["linear"], random["linear"], extra)


@claim(
    "simclr",
    part="augmentation",
    statement=(
        "Views that differ in crop and in colour teach more than views that differ in crop alone: a linear probe is at "
        "least two percentage points more accurate."
    ),
    metric=LINEAR,
    method="crop, flip, colour jitter and grey",
    baseline="crop and flip",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.02,
    strict=False,
    own_data=True,
    learned=0.0,
    floor=without_training,
    guard="a linear probe of raw pixels or of random weights, whichever is better",
)
def simclr_augmentation(budget: Budget, seed: int) -> Measured:
    """Chen et al. (2020), figure 5 and section 3.1: no single transformation suffices, and colour with crop is best."""
    cropped = learned(budget, seed, method=SIMCLR, augment="resized-crop:scale=(0.2,1)")
    both, random = learned(budget, seed, method=SIMCLR, augment=VIEWS), untrained(budget, seed)
    extra = {"random weights": random["linear"], "crop and flip: nearest neighbours": cropped["neighbours"]}
    return Measured(both["linear"], cropped["linear"], extra)
