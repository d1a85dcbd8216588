"""The claims of *Self-supervised Label Augmentation via Input Transformations* (2019).

Photographs of garments at 14 pixels, 500 of them to learn from, and a small network. Label augmentation sees every
image in four turns, so that it is compared with supervised training of four times as many epochs, and with one of as
many. The learning rate, 0.01, was tuned for neither; 15 and 60 epochs of label augmentation were tried on pilot seeds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy, pixels, train
from repertoire.claims.beds._named import get, neighbour_accuracy
from repertoire.data import Splits

SIZE = 14


def garments(budget: Budget, seed: int) -> Splits:
    """500 images that the seed draws, and 2,000 for the test, which are the same for every seed."""
    splits = replace(get("fashion-mnist"), size=SIZE).splits(budget, 0)
    drawn = np.random.default_rng(seed).permutation(len(splits.train))[: budget.pick(smoke=60, small=500, full=10_000)]
    tested = splits.test.subset(np.arange(min(2000, len(splits.test))))
    return replace(splits, train=splits.train.subset(np.sort(drawn)), test=tested)


@arm
def garments_told(budget: Budget, seed: int, *, method: str, epochs: int) -> dict[str, float]:
    """Test accuracy after so many passes; of label augmentation, that of all turns together as well."""
    splits = garments(budget, seed)
    trained = train(
        splits,
        method=method,
        backbone=budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=16,depth=3", full="resnet20"),
        augment="shift:pixels=1",
        optimizer="adamw",
        lr=0.01,
        weight_decay=1e-3,
        batch_size=min(50, len(splits.train) // 2),
        epochs=budget.pick(smoke=1, small=epochs, full=epochs),
        seed=seed,
        device=budget.device,
    )
    found = {"accuracy": accuracy(trained, splits.test), "trivial": neighbour_accuracy(splits.train, splits.test, 1)}
    if method != "supervised":
        x, y = pixels(splits.test)
        with torch.no_grad():
            answers = trained.aggregated(x.view(-1, *splits.test.shape).to(budget.device))  # type: ignore[operator]
        found["together"] = float((answers.argmax(1).cpu() == y).float().mean())
    return found


def _measured(budget: Budget, seed: int, epochs: int) -> Measured:
    ours = garments_told(budget, seed, method="label-augmentation", epochs=30)
    plain = garments_told(budget, seed, method="supervised", epochs=epochs)
    return Measured(
        ours["accuracy"], plain["accuracy"], {"accuracy: all turns": ours["together"]}, trivial=ours["trivial"]
    )


@claim(
    "sla",
    statement=(
        "A head that was taught by label augmentation with turns is more accurate than one of supervised training that "
        "saw as many images."
    ),
    metric="test accuracy",
    method="label augmentation",
    baseline="supervised",
    bed="fashion-mnist",
    data="Fashion-MNIST at 14 pixels, 500 of them to learn from",
    threshold=0.01,
    learned=0.0,
    guard="the nearest neighbours of the pixels",
    ceiling=1.0,
)
def as_many_images(budget: Budget, seed: int) -> Measured:
    """Lee, Hwang and Shin (2019). `extra` has all turns together, which take four passes."""
    return _measured(budget, seed, 120)


@claim(
    "sla",
    part="as-many-epochs",
    statement=(
        "A head that was taught by label augmentation with turns is more accurate than one of supervised training for "
        "as many epochs, as the paper compares them."
    ),
    metric="test accuracy",
    method="label augmentation",
    baseline="supervised",
    bed="fashion-mnist",
    data="Fashion-MNIST at 14 pixels, 500 of them to learn from",
    threshold=0.01,
    learned=0.0,
    guard="the nearest neighbours of the pixels",
    ceiling=1.0,
)
def as_many_epochs(budget: Budget, seed: int) -> Measured:
    """Lee, Hwang and Shin (2019)."""
    return _measured(budget, seed, 30)
