"""The claim of *Improving Pre-Trained Self-Supervised Embeddings Through Effective Entropy Maximization* (2024)."""

from __future__ import annotations

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import (
    DISTURBED,
    PROBE,
    disturbed_digits,
    epochs_of,
    pretrained,
    probed_accuracy,
)


@claim(
    "e2mc",
    statement=(
        "A few more epochs with entropy maximisation added to the loss give features with a more accurate linear probe "
        "than as many more epochs with the loss alone."
    ),
    metric=PROBE,
    method="VICReg, then VICReg plus entropy maximisation",
    baseline="VICReg, then VICReg",
    data=DISTURBED,
    threshold=0.0,
)
def e2mc(budget: Budget, seed: int) -> Measured:
    """Chakraborty et al., *Improving Pre-Trained Self-Supervised Embeddings Through Effective Entropy Maximization*
    (2024)."""
    data = disturbed_digits(budget, seed)
    start = pretrained(losses.VICReg(), data.images, epochs=epochs_of(budget), seed=seed)
    scores = [
        probed_accuracy(
            pretrained(loss, data.images, epochs=epochs_of(budget, small=10), seed=seed + 1, start=start), data
        )
        for loss in (losses.EntropyMaximization(), losses.VICReg())
    ]
    return Measured(scores[0], scores[1], {"before": probed_accuracy(start, data)})
