"""The claims of *Modulate Your Spectrum in Self-Supervised Learning* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.ssl_photographs import (
    BED,
    LINEAR,
    PHOTOGRAPHS,
    learned,
    projected,
    untrained,
    without_training,
)


@claim(
    "intl",
    statement=(
        "A linear probe of features learned with iterative normalisation and the loss on the trace is at most one "
        "percentage point less accurate than one of features learned with the contrastive NT-Xent for equally long."
    ),
    metric=LINEAR,
    method="INTL",
    baseline="NT-Xent at temperature 0.2",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=-0.01,
    strict=False,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def intl(budget: Budget, seed: int) -> Measured:
    """Weng et al., *Modulate Your Spectrum in Self-Supervised Learning* (2023)."""
    ours = learned(budget, seed, method=projected(128), loss="intl")
    theirs = learned(budget, seed, method=projected(128), loss="nt-xent:temperature=0.2")
    extra = {"INTL: effective rank": ours["rank"], "NT-Xent: effective rank": theirs["rank"]}
    return Measured(ours["linear"], theirs["linear"], extra, trivial=untrained(budget, seed)["linear"])


@claim(
    "intl",
    part="spectrum",
    statement=(
        "The loss on the trace makes the spectrum of the features flatter than iterative normalisation does alone: "
        "their effective rank is larger by 2."
    ),
    metric="effective rank of the features of test images",
    method="INTL",
    baseline="iterative normalisation without the loss on the trace",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=2.0,
    own_data=True,
    guard="a probe of INTL must beat those of raw pixels and of random weights; that the rival collapses is the claim",
)
def spectrum(budget: Budget, seed: int) -> Measured:
    """Weng et al. (2023). In `extra` is what either is worth to a linear probe: without the loss on the trace the
    features collapse to a few directions, and the probe falls below that of random weights."""
    ours, alone = (learned(budget, seed, method=projected(128), loss=loss) for loss in ("intl", "intl:trace_weight=0"))
    must_have_learned(budget, ours["linear"], without_training(budget, seed), "a linear probe of INTL")
    extra = {"INTL: linear probe": ours["linear"], "no loss on the trace: linear probe": alone["linear"]}
    return Measured(ours["rank"], alone["rank"], extra)
