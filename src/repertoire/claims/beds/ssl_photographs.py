"""Photographs without labels: a small network learns from two views of each, and its features are read out.

4,500 images of CIFAR-10 at 16 pixels (of 5,000, the others being for validation), a quarter of the cost of 32, on which
methods without labels learn within seconds: a convolutional network of four layers, 16 channels in the first, trained
for 10 epochs by AdamW with a rate of 0.005 in batches of 128, and read out by a logistic regression or by the 20
nearest neighbours. Network, views, optimiser and number of epochs were settled at 32 pixels, on seed 1000, by
`benchmarks/self_supervised.py`, which prints what each method reaches there, and are the same for every arm but for
what a claim compares. The test images are the same for every seed. On seed 1000, a linear probe of SimCLR's features
has 0.4545, 0.4555 and 0.467 after 5, 10 and 20 epochs, and one of random weights 0.3945: 10 are taken, at half of the
cost of 20. That was settled when three claims had five seeds of 20 epochs: `simclr` and `simclr:augmentation` held, as
they do with 10, and `w-mse` was undecided, too dear for more seeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from repertoire.claims import Budget, arm
from repertoire.claims._training import embeddings, new_method, optimise, probe, resolved, train
from repertoire.claims.beds._named import get, neighbour_accuracy
from repertoire.claims.beds.unseen_classes import thinned_out
from repertoire.data import Splits
from repertoire.methods import Method
from repertoire.tasks import Outputs, rank_me
from repertoire.train import probe_outputs

__all__ = [
    "BED",
    "LINEAR",
    "NEIGHBOURS",
    "PHOTOGRAPHS",
    "SIMCLR",
    "VIEWS",
    "further",
    "learned",
    "options_of",
    "photographs",
    "projected",
    "raw",
    "raw_linear",
    "raw_neighbours",
    "told",
    "untrained",
    "without_training",
]

BED = "cifar10"
SIZE = 16
PHOTOGRAPHS = "CIFAR-10, 5,000 photographs at 16 pixels"
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
    tail: float = 1.0,
) -> dict[str, float]:
    """Training images without their labels, and then what their features tell.

    Args:
        method, loss, augment: specs.
        share: of the usual number of epochs, where a method sees more or fewer views of an image in each.
        batch: images in a batch.
        tail: how many times as frequent each class is as the next, in an order of the seed, among the images that are
            trained on; the probe is of all.

    Returns:
        `linear` and `neighbours`, which are accuracies on the test images, and the effective `rank` of their features.
    """
    splits = seen = photographs(budget, seed)
    if tail > 1:
        most = int(splits.train.counts().max())
        counts = [max(3, round(most * tail**-rank)) for rank in range(len(splits.classes))]
        seen = replace(splits, train=thinned_out(splits.train, seed, counts))
    options = options_of(budget, seed, share) | {"method": method, "loss": loss, "augment": augment}
    return told(train(seen, **options | {"batch_size": batch}), splits)


@arm
def further(budget: Budget, seed: int, *, first: str, then: str, share: float = 0.25) -> dict[str, float]:
    """Training with one loss on the views, and then with another for a share of the usual epochs, with the same weights
    of backbone and projector. Of the same loss twice, training that went on."""
    splits = photographs(budget, seed)
    method = train(splits, method=projected(128), loss=first, **options_of(budget, seed))
    config = resolved(splits, method=projected(128), loss=then, **options_of(budget, seed + 1, share))
    fresh = new_method(splits, config)
    fresh.load_state_dict(method.state_dict(), strict=False)
    return told(optimise(fresh, splits, config), splits)


@arm
def untrained(budget: Budget, seed: int) -> dict[str, float]:
    """The same of the network with random weights, which on this bed tells more than raw pixels do."""
    splits = photographs(budget, seed)
    return told(new_method(splits, resolved(splits, method="simclr", **options_of(budget, seed))).eval(), splits)


@arm
def raw(budget: Budget, seed: int) -> dict[str, float]:
    """Accuracy of the `neighbours` of raw pixels, the twenty nearest of the training images."""
    splits = photographs(budget, seed)
    return {"neighbours": neighbour_accuracy(splits.train, splits.test, count=20)}


def raw_neighbours(budget: Budget, seed: int) -> float:
    """The same as a number: a floor for claims on neighbours."""
    return raw(budget, seed)["neighbours"]


def raw_linear(budget: Budget, seed: int) -> float:
    """Test accuracy of a linear probe of raw pixels: a floor for claims on probes."""
    parts = photographs(budget, seed)
    (x, y), (test_x, test_y) = (
        (part.inputs(np.arange(len(part))).reshape(len(part), -1).astype(np.float64), np.asarray(part.labels))
        for part in (parts.train, parts.test)
    )
    return probe(x, y, test_x, test_y)


def without_training(budget: Budget, seed: int) -> float:
    """Test accuracy of a linear probe of raw pixels or of random weights, whichever is better."""
    return max(raw_linear(budget, seed), untrained(budget, seed)["linear"])


def photographs(budget: Budget, seed: int) -> Splits:
    """Training images that the seed draws, and test images that are the same for every seed."""
    bed = replace(get(BED), size=SIZE)
    splits = bed.splits(budget, seed)
    if budget.name == "smoke" or budget.data:  # divided by the seed, so that another seed's test is trained on
        return splits
    return replace(splits, test=bed.splits(budget, 0).test)


def projected(width: int) -> str:
    """Spec of a method that trains a loss on the views through a projector with batch normalisation."""
    return f"embedding:batch_norm=true,dimensions={width}"


def options_of(budget: Budget, seed: int, share: float = 1.0) -> dict[str, Any]:
    """The fields of the training configuration that all arms have in common, with a share of the usual epochs."""
    return {
        "augment": VIEWS,
        "epochs": max(1, round(share * budget.pick(smoke=1, small=10, full=100))),
        "backbone": budget.pick(smoke="convnet:width=4", small="convnet:width=16", full="resnet20:width=32"),
        "optimizer": "adamw",
        "lr": 5e-3,
        "weight_decay": 1e-4,
        "precision": budget.pick(smoke="32", small="32", full="bf16"),  # bfloat16 is emulated by many a processor
        "seed": seed,
        "device": budget.device,
    }


def told(method: Method, splits: Splits) -> dict[str, float]:
    """What the features of a network tell: see `learned`."""
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
