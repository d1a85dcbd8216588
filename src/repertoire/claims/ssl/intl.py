"""The claim of *Modulate Your Spectrum in Self-Supervised Learning* (2023)."""

from __future__ import annotations

import torch

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import (
    DIMENSIONS,
    DISTURBED,
    PROBE,
    disturbed_digits,
    epochs_of,
    pretrained,
    probed_accuracy,
)
from repertoire.diagnostics import effective_rank


@claim(
    "intl",
    statement=(
        "The loss on the trace makes the spectrum of the embeddings flatter than iterative normalisation does alone: "
        "they use more dimensions."
    ),
    metric="effective rank of test embeddings, as a share of their width",
    method="INTL",
    baseline="iterative normalisation without the loss on the trace",
    data=DISTURBED,
    threshold=0.0,
)
def intl(budget: Budget, seed: int) -> Measured:
    """Weng et al., *Modulate Your Spectrum in Self-Supervised Learning* (2023)."""
    data = disturbed_digits(budget, seed)
    ranks, extra = [], {}
    for name, weight in (("INTL", None), ("no loss on the trace", 0.0)):
        network = pretrained(losses.INTL(trace_weight=weight), data.images, epochs=epochs_of(budget), seed=seed)
        with torch.no_grad():
            ranks.append(effective_rank(network(data.test_images)) / DIMENSIONS)
        extra[f"{name}: {PROBE}"] = probed_accuracy(network, data)
    return Measured(ranks[0], ranks[1], extra)
