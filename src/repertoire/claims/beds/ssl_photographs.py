"""Photographs without labels: a small network learns from two views of each, and its features are read out.

4,500 images of CIFAR-10 at 32 pixels, on which methods without labels learn something within a minute:
`benchmarks/self_supervised.py` prints what each of them reaches, and what raw pixels and random weights do. Network,
views, optimiser and number of epochs were settled there, on seed 1000, and are the same for every arm but for what a
claim compares.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from repertoire.claims import Budget, arm
from repertoire.claims._training import embeddings, new_method, probe, resolved, train
from repertoire.claims.beds._named import get
from repertoire.data import Splits
from repertoire.methods import Method
from repertoire.tasks import Outputs, rank_me
from repertoire.train import probe_outputs

__all__ = ["BED", "LINEAR", "NEIGHBOURS", "SIMCLR", "VIEWS", "learned", "projected", "untrained"]

BED = "cifar10"
LINEAR = "linear-probe test accuracy"
NEIGHBOURS = "accuracy of 20 nearest neighbours"
SIMCLR = "simclr:temperature=0.2,batch_norm=true"
"""The recipe of SimCLR that was best of three."""
VIEWS = "simclr:scale=(0.2,1),strength=0.5,blur=0"
"""Crop, flip, grey, and a colour jitter half as strong as for large photographs: Chen et al. (2020), appendix B.9."""


@arm
def learned(
    budget: Budget,
    seed: int,
    *,
    method: str,
    loss: str = "auto",
    augment: str = VIEWS,
    share: float = 1.0,
    batch: int = 128,
) -> dict[str, float]:
    """Training images without their labels, and then what their features tell.

    Args:
        method, loss, augment: specs.
        share: of the usual number of epochs, where a method sees more or fewer views of an image in each.
        batch: images in a batch.

    Returns:
        `linear` and `neighbours`, which are accuracies on the test images, and the effective `rank` of their features.
    """
    splits = get(BED).splits(budget, seed)
    epochs = round(share * budget.pick(smoke=1, small=20, full=200))
    options = _options(budget, seed) | {"method": method, "loss": loss, "augment": augment, "batch_size": batch}
    return _told(train(splits, epochs=max(1, epochs), **options), splits)


@arm
def untrained(budget: Budget, seed: int) -> dict[str, float]:
    """The same of the network with random weights, which on this bed tells more than raw pixels do."""
    splits = get(BED).splits(budget, seed)
    return _told(new_method(splits, resolved(splits, method="simclr", **_options(budget, seed))).eval(), splits)


def projected(width: int) -> str:
    """Spec of a method that trains a loss on the views through a projector with batch normalisation."""
    return f"embedding:batch_norm=true,dimensions={width}"


def _options(budget: Budget, seed: int) -> dict[str, Any]:
    return {
        "backbone": budget.pick(smoke="convnet:width=4", small="convnet:width=16", full="resnet20:width=32"),
        "optimizer": "adamw",
        "lr": 5e-3,
        "weight_decay": 1e-4,
        "precision": budget.pick(smoke="32", small="bf16", full="bf16"),
        "seed": seed,
        "device": budget.device,
    }


def _told(method: Method, splits: Splits) -> dict[str, float]:
    parts = [
        Outputs(features, features, np.asarray(part.labels))
        for part in (splits.train, splits.test)
        for features in [embeddings(method, part)]
    ]
    votes, _ = probe_outputs("knn", parts[0], parts[1], len(splits.classes))
    return {
        "linear": probe(parts[0].embeddings, parts[0].labels, parts[1].embeddings, parts[1].labels),
        "neighbours": float((votes.logits.argmax(1) == votes.labels).mean()),
        "rank": rank_me(parts[1].embeddings),
    }
