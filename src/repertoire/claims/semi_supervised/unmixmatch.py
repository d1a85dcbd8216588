"""The claims of *Scaling Up Semi-supervised Learning with Unconstrained Unlabelled Data* (2023).

Labelled photographs of four kinds of vehicles, ten of each, and 2,700 of six kinds of animals without labels: nothing
that is to be told is among the unlabelled images. All arms augment the labelled images in the same hard way, mix them,
and take as many steps on them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import few_labels as bed
from repertoire.claims.beds._named import get
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.claims.beds.ssl_photographs import SIZE
from repertoire.data import ImageSet, Splits

WEAK, STRONG = "crop-flip", "strong"
UNMIXMATCH = f"unmixmatch:ratio=7,weak=({WEAK}),strong=({STRONG}),contrast=0.1,rotation=1"
FIXMATCH = f"fixmatch:ratio=7,strong=({STRONG}),mix=mixup,alpha=0.1"
VEHICLES = (0, 1, 8, 9)
LABELS, RATE = 10, 0.01
DATA = "CIFAR-10 at 16 pixels: ten labels of each of four vehicles, animals without labels"


def only(images: ImageSet, classes: tuple[int, ...]) -> ImageSet:
    """The images of some classes, which are numbered in this order."""
    numbers = np.full(len(images.classes), -1)
    numbers[list(classes)] = np.arange(len(classes))
    found = images.subset(np.flatnonzero(numbers[images.labels] >= 0))
    return replace(found, labels=numbers[found.labels], classes=tuple(images.classes[c] for c in classes))


def vehicles(budget: Budget, seed: int) -> Splits:
    """Vehicles with and animals without labels; the test images are the same for every seed."""
    splits = replace(get("cifar10"), size=SIZE).splits(budget, 0)
    parts = [only(part, VEHICLES) for part in (splits.train, splits.val, splits.test)]
    animals = splits.train.subset(np.flatnonzero(~np.isin(splits.train.labels, VEHICLES)))
    if budget.name == "smoke":
        animals = animals.subset(np.arange(30))
    animals = replace(animals, labels=np.full(len(animals), -1), classes=parts[0].classes)
    few = bed.few(replace(splits, train=parts[0], val=parts[1], test=parts[2]), seed, LABELS)
    return replace(few, extra={"unlabelled": animals})


@arm
def beside_animals(budget: Budget, seed: int, *, method: str, lr: float = RATE) -> dict[str, float]:
    """Test `accuracy` for vehicles."""
    splits = vehicles(budget, seed)
    found = bed.scores(bed.trained(budget, seed, splits, method, augment=STRONG, lr=lr), splits.test)
    return {"accuracy": float((found.logits.argmax(1) == found.labels).mean())}


def raw(budget: Budget, seed: int) -> float:
    """What the labelled vehicles tell by their pixels."""
    return raw_accuracy(vehicles(budget, seed))


@claim(
    "unmixmatch",
    statement=(
        "With ten labels of each of four vehicles, and animals without labels, contrast and rotations of the animals "
        "give a more accurate classifier, by two percentage points, than guessing their labels, as FixMatch does."
    ),
    metric="test accuracy",
    method="UnMixMatch",
    baseline="FixMatch, with the same augmentation and mixup",
    data=DATA,
    bed="cifar10",
    threshold=0.02,
    floor=raw,
    learned=0.02,
    ceiling=1.0,
)
def unmixmatch(budget: Budget, seed: int) -> Measured:
    """Roy and Etemad, *Scaling Up Semi-supervised Learning with Unconstrained Unlabelled Data* (2023)."""
    ours = beside_animals(budget, seed, method=UNMIXMATCH)
    guessed = beside_animals(budget, seed, method=FIXMATCH)
    return Measured(ours["accuracy"], guessed["accuracy"])


@claim(
    "unmixmatch",
    part="labels-alone",
    statement=(
        "With ten labels of each of four vehicles, and animals without labels, contrast and rotations of the animals "
        "give a more accurate classifier, by one percentage point, than hard augmentation and mixup of the labelled "
        "images alone."
    ),
    metric="test accuracy",
    method="UnMixMatch",
    baseline="supervised, with the same augmentation and mixup",
    data=DATA,
    bed="cifar10",
    threshold=0.01,
    floor=raw,
    learned=0.02,
    ceiling=1.0,
)
def labels_alone(budget: Budget, seed: int) -> Measured:
    """Roy and Etemad (2023): what the unlabelled images are worth, beside what the augmentation is."""
    ours = beside_animals(budget, seed, method=UNMIXMATCH)
    plain = beside_animals(budget, seed, method="supervised:mix=mixup,alpha=0.1")
    return Measured(ours["accuracy"], plain["accuracy"])
