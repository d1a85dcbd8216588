"""Photographed garments on which a residual network is trained block by block, and with back-propagation.

Back-propagation comes near to its best within the epochs, so that a rule cannot win by learning faster at first.
"""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget
from repertoire.claims.beds.handwriting import split_images
from repertoire.data import Splits

__all__ = ["local_images"]


def local_images(budget: Budget, seed: int) -> tuple[Splits, dict[str, Any]]:
    """The images, and the fields of the training configuration that all rules share."""
    count = budget.pick(smoke=140, small=2000, full=8000)
    splits = split_images(
        budget, seed, count, bed="fashion-mnist", tested=budget.pick(smoke=100, small=2000, full=2000)
    )
    return splits, {
        "backbone": budget.pick(smoke="convnet:width=4", small="resnet20:width=4", full="resnet32"),
        "batch_size": budget.pick(smoke=32, small=64, full=128),
        "augment": "crop-flip",
        "epochs": budget.pick(smoke=1, small=8, full=100),
        "seed": seed,
        "device": budget.device,
    }
