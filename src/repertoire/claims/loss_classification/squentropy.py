"""The claim of *Cut your Losses with Squentropy* (2023)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds import majority
from repertoire.tasks import calibration
from repertoire.train import outputs


@claim(
    "squentropy",
    statement="Squentropy gives a more accurate classifier than cross-entropy with the same learning rate.",
    metric="test accuracy",
    method="squentropy",
    baseline="cross-entropy",
    data="digits, a quarter of the training images",
    threshold=0.0,
    own_data=True,
    learned=0.05,
)
def squentropy(budget: Budget, seed: int) -> Measured:
    """Hui, Belkin and Wright, *Cut your Losses with Squentropy* (2023); it also claims better calibration: `extra`."""
    splits = budget.splits("digits", seed=seed)
    quarter = replace(splits, train=splits.train.subset(np.arange(0, len(splits.train), 4)))
    options = {
        "backbone": "convnet:width=16,depth=3",
        "epochs": budget.pick(smoke=3, small=40, full=100),
        "seed": seed,
        "device": budget.device,
    }
    accuracies, errors = {}, {}
    for loss in ("squentropy", "cross-entropy"):
        method = train(quarter, loss=loss, **options)
        accuracies[loss] = accuracy(method, quarter.test)
        result = outputs(method.model, quarter.test, device=budget.device)
        errors[f"{loss}: calibration error"] = calibration(result.probabilities, result.labels)["ece"]
    return Measured(accuracies["squentropy"], accuracies["cross-entropy"], errors, majority(splits.test))
