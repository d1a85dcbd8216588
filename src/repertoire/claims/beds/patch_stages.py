"""Photographs of clothes in a stage of six classes and two of two, for a small transformer with a memory in bytes.

The order of the classes, the training images that are drawn, the weights, the order of the images and what is hidden of
them are the seed's; the test images are always the same.
"""

from __future__ import annotations

from repertoire.claims import Budget, arm
from repertoire.claims._stages import before_forgetting, class_means, staged
from repertoire.claims.beds.image_stages import images
from repertoire.data import Splits
from repertoire.protocols import Store

__all__ = ["CLOTHES", "chance", "clothes"]

CLOTHES = "Fashion-MNIST at 16 pixels, 300 images of each class, a stage of six classes and two of two"

EACH = 300
MEMORY = "32KB"
"""Whole images of four in a hundred training images, as in the paper: 20 of 500 in each class of CIFAR-100."""
RATE = 0.003


def photographs(budget: Budget, seed: int) -> Splits:
    """The images of a seed."""
    return images(budget, seed, "fashion-mnist", EACH)


@arm
def clothes(
    budget: Budget, seed: int, *, store: Store, draws: bool = True, until: int | None = None
) -> dict[str, float]:
    """A transformer on clothes that are 16 patches each, and a memory of 32 KB.

    Args:
        store: what is kept: "whole" images, or a quarter of the "patches" of each.
        draws: whether the network draws the others; if not, the mean of those that are kept stands for them.
        until: how many stages; all if None.

    In a few dozen steps a transformer of this size learns to draw little more than the mean of a place: so that it has
    learned something when it is asked for the first time, most classes come first.
    """
    return staged(
        budget,
        seed,
        splits=photographs(budget, seed),
        method="mae-cil",
        protocol=f"classes:first=6,step=2,memory={MEMORY},store={store}",
        until=until,
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


def chance(budget: Budget, seed: int) -> float:
    """Chance, if the network, which is the same in all arms until it is shown what a memory holds, knows the classes of
    the first stage better than class means of the images do: what it has not learned it cannot forget."""
    first = clothes(budget, seed, store="whole", until=1)
    means = class_means(photographs(budget, seed), seed, "classes:first=6,step=2", 1)
    return before_forgetting([first], means, 0.1)
