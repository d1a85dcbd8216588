"""The claim of *Harmonic Loss Trains Interpretable AI Models* (2025)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds import majority


@claim(
    "harmonic-loss",
    statement="With few training images the harmonic loss gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="harmonic head",
    baseline="linear head",
    data="digits, a tenth of the training images",
    threshold=0.0,
    own_data=True,
    learned=0.05,
)
def harmonic(budget: Budget, seed: int) -> Measured:
    """Baek et al., *Harmonic Loss Trains Interpretable AI Models* (2025): it claims to need less data."""
    splits = budget.splits("digits", seed=seed)
    tenth = replace(splits, train=splits.train.subset(np.arange(0, len(splits.train), 10)))
    options = {
        "backbone": "convnet:width=16,depth=3",
        "epochs": budget.pick(smoke=1, small=60, full=100),
        "seed": seed,
        "device": budget.device,
    }
    harmonic, linear = (accuracy(train(tenth, head=head, **options), tenth.test) for head in ("harmonic", "linear"))
    return Measured(harmonic, linear, trivial=majority(splits.test))
