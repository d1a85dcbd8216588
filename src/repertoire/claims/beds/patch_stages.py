"""Photographs of clothes in a stage of six classes and two of two, for a small transformer with a memory in bytes.

The order of the classes, the training images that are drawn, the weights, the order of the images and what is hidden of
them are the seed's; the test images are always the same.
"""

from __future__ import annotations

from dataclasses import replace

from repertoire.claims import Budget, arm
from repertoire.claims._stages import staged
from repertoire.claims.beds import _named
from repertoire.claims.beds.image_stages import _some
from repertoire.protocols import Store

__all__ = ["CLOTHES", "clothes"]

CLOTHES = "Fashion-MNIST at 16 pixels, 300 images of each class, a stage of six classes and two of two"

SIZE, EACH = 16, 300
MEMORY = "32KB"
"""Whole images of four in a hundred training images, as in the paper: 20 of 500 in each class of CIFAR-100."""
RATE = 0.003


@arm
def clothes(budget: Budget, seed: int, *, store: Store, draws: bool = True) -> dict[str, float]:
    """A transformer on clothes that are 16 patches each, and a memory of 32 KB.

    Args:
        store: what is kept: "whole" images, or a quarter of the "patches" of each.
        draws: whether the network draws the others; if not, the mean of those that are kept stands for them.

    In a few dozen steps a transformer of this size learns to draw little more than the mean of a place: so that it has
    learned something when it is asked for the first time, most classes come first.
    """
    splits = replace(_named.get("fashion-mnist"), size=SIZE).splits(budget, 0)
    splits = replace(
        splits,
        train=_some(splits.train, budget.pick(smoke=20, small=EACH, full=10 * EACH), seed),
        test=_some(splits.test, budget.pick(smoke=8, small=100, full=1000), 0),
    )
    return staged(
        budget,
        seed,
        splits=splits,
        method="mae-cil",
        protocol=f"classes:first=6,step=2,memory={MEMORY},store={store}",
        draws=draws,
        backbone=budget.pick(
            smoke="vit:patch=4,dim=16,depth=2,heads=2",
            small="vit:patch=4,dim=32,depth=3,heads=2",
            full="vit:patch=4,dim=96,depth=6,heads=6",
        ),
        augment="none",
        optimizer="adamw",
        lr=RATE,
        weight_decay=1e-4,
        batch_size=64,
        epochs=budget.pick(smoke=1, small=8, full=80),
    )
