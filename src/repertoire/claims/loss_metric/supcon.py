"""The claim of *Supervised Contrastive Learning* (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, probe_accuracy, train
from repertoire.claims.beds import get, majority


@claim(
    "supcon",
    statement=(
        "A linear read-out of features trained with the supervised contrastive loss is more accurate than the same "
        "network trained with cross-entropy on equally many augmented images."
    ),
    metric="test accuracy",
    method="supervised contrastive loss, linear read-out",
    baseline="cross-entropy",
    data="Fashion-MNIST, 2,000 photographs",
    bed="fashion-mnist",
    threshold=0.005,
    own_data=True,
    learned=0.5,
)
def supcon(budget: Budget, seed: int) -> Measured:
    """Khosla et al., *Supervised Contrastive Learning* (2020): cross-entropy against L_out.

    The contrastive loss sees two views of each image, so cross-entropy trains for twice the epochs. `extra` has a
    linear read-out of that network too.
    """
    splits = get("fashion-mnist").splits(budget, seed)
    if budget.name == "small" and not budget.data:
        splits = dataclasses.replace(splits, train=splits.train.subset(np.arange(2000)))
    epochs = budget.pick(smoke=1, small=20, full=100)
    options: dict[str, Any] = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=8", full="resnet32"),
        "augment": "crop-flip",
        "optimizer": "adamw",
        "lr": 5e-3,
        "batch_size": 128,
        "seed": seed,
        "device": budget.device,
    }
    contrastive = train(splits, loss="supcon", method="embedding:batch_norm=true", epochs=epochs, **options)
    plain = train(splits, loss="cross-entropy", epochs=2 * epochs, **options)
    return Measured(
        method=probe_accuracy(contrastive, splits),
        baseline=accuracy(plain, splits.test),
        extra={"cross-entropy, linear read-out": probe_accuracy(plain, splits)},
        trivial=majority(splits.test),
    )
