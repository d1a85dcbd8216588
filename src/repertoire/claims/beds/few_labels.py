"""Few labels and many samples without: a small network on drawn digits, with all that it is to be compared with.

The digits are those of MNIST at 14 pixels, of which a convolutional network of three layers, eight channels in the
first, learns within seconds. The test images are the same for every seed, so that an interval speaks of these; a seed
draws which images have labels, the weights, the order and the views. Every arm takes the same number of steps on as
many labelled samples, which are augmented in the same way, with the learning rate that was best for its kind on two
pilot seeds: 0.03, of 0.003, 0.01 and 0.03 for the supervised network and of 0.01, 0.03 and 0.1 for FixMatch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from repertoire.claims import Budget, Measured, arm
from repertoire.claims._training import resolved
from repertoire.claims.beds._named import get
from repertoire.data import ImageSet, Splits
from repertoire.methods import Method
from repertoire.recipe import build
from repertoire.tasks import Outputs
from repertoire.train import in_memory, outputs

__all__ = [
    "BED",
    "FIXMATCH",
    "RATE",
    "SIZE",
    "STRONG",
    "SUPERVISED_RATE",
    "TITLE",
    "WEAK",
    "balanced_accuracy",
    "beside_fixmatch",
    "digits",
    "few",
    "learned",
    "matched",
    "perceptron",
    "scores",
    "tail",
    "trained",
    "trivial",
]

BED = "mnist5k"
TITLE = "handwritten digits of MNIST at 14 pixels"
SIZE = 14

WEAK = "shift:pixels=1"
"""What the labelled images and the weak views are given."""
STRONG = "strong:operations=2,pixels=1,flip=0+erasing:probability=1,share=(0.05,0.2),fill=black"
"""The strong view: two operations and a rectangle cut out, as in FixMatch, and no flip, which digits do not bear."""


FIXMATCH = f"fixmatch:ratio=3,strong=({STRONG})"
RATE = 0.03
SUPERVISED_RATE = 0.03


def digits(budget: Budget, size: int = SIZE) -> Splits:
    """All images, divided in the same way for every seed."""
    return replace(get(BED), size=size).splits(budget, 0)


def tail(most: int, ratio: float, classes: int = 10) -> list[int]:
    """Samples of each class in an exponential tail from `most` down to `most / ratio`."""
    return [max(1, round(most * ratio ** (-c / (classes - 1)))) for c in range(classes)]


def few(
    splits: Splits, seed: int, labels: int | Sequence[int] = 4, unlabelled: int | Sequence[int] | None = None
) -> Splits:
    """The splits with so many labels of each class, and the other images, or so many of them, without.

    Args:
        labels: for all classes, or for each of them; a class with none is one that nobody labelled.
        unlabelled: likewise; all that are left if None. Where there are too few, all of them.
    """
    train = splits.train
    classes = len(train.classes)
    order = np.random.default_rng(seed).permutation(len(train))
    kept, rest = [], []
    for c in range(classes):
        members = order[train.labels[order] == c]
        count = labels if isinstance(labels, int) else labels[c]
        others = len(members) if unlabelled is None else unlabelled if isinstance(unlabelled, int) else unlabelled[c]
        kept.append(members[:count])
        rest.append(members[count : count + others])
    pool = train.subset(np.sort(np.concatenate(rest)))
    return replace(splits, train=train.subset(np.sort(np.concatenate(kept))), extra={"unlabelled": pool})


def trained(budget: Budget, seed: int, splits: Splits, method: str, **fields: Any) -> Method:
    """A method, trained for the steps of the bed; of FixMatch, the moving average of its weights.

    Args:
        method: spec; `FIXMATCH` for FixMatch with the strong view of the bed.
        fields: of the training configuration.
    """
    steps = budget.pick(smoke=2, small=300, full=4000)
    # An epoch is so many batches of equal size, of 20 samples at most.
    batches = math.ceil(len(splits.train) / 20)
    config = resolved(
        splits,
        method=method,
        backbone=budget.pick(smoke="convnet:width=4,depth=2", small="convnet:width=8,depth=3", full="convnet:width=32"),
        augment=fields.pop("augment", WEAK),
        optimizer="adamw",
        lr=fields.pop("lr", RATE),
        weight_decay=1e-4,
        batch_size=math.ceil(len(splits.train) / batches),
        epochs=max(1, round(steps / batches)),
        ema=0.95,
        seed=seed,
        device=budget.device,
        **fields,
    )
    return in_memory(build(config, splits, device=config.device), validate=False).method.eval()


def perceptron(budget: Budget, seed: int, splits: Splits, *, steps: int = 400, batch: int = 32) -> dict[str, Any]:
    """How a perceptron is trained without augmentation: fields of the training configuration, all but the method and
    what a claim sets otherwise.

    Args:
        steps: so many at the small budget, whatever the number of samples.
        batch: labelled samples of a step.
    """
    batch = min(batch, len(splits.train))
    steps = budget.pick(smoke=2, small=steps, full=20_000)
    return {
        "backbone": budget.pick(smoke="mlp:hidden=16", small="mlp:hidden=128", full="mlp:hidden=512"),
        "augment": "none",
        "optimizer": "adamw",
        "lr": 0.003,
        "weight_decay": 1e-4,
        "batch_size": batch,
        "epochs": max(1, round(steps / (len(splits.train) // batch))),
        "seed": seed,
        "device": budget.device,
    }


def scores(method: Method, images: ImageSet) -> Outputs:
    """Logits, features and labels of images."""
    return outputs(method.model, images, device=next(method.parameters()).device)


def balanced_accuracy(found: Outputs) -> float:
    """The mean of the classes' accuracies."""
    right = found.logits.argmax(1) == found.labels
    return float(np.mean([right[found.labels == c].mean() for c in np.unique(found.labels)]))


def matched(found: Outputs, seen: Sequence[int]) -> dict[str, float]:
    """Accuracies where some classes have no label: their outputs are matched to them by their best assignment.

    Outputs of classes with labels stay what they are: to match those too would let a network swap them.

    Args:
        seen: the classes with labels.

    Returns:
        `all`, `seen` and `missing`, each the accuracy on samples of these classes.
    """
    from scipy.optimize import linear_sum_assignment

    answers = found.logits.argmax(1)
    missing = [c for c in range(found.logits.shape[1]) if c not in seen]
    table = np.array([[((answers == o) & (found.labels == c)).sum() for c in missing] for o in missing])
    meaning = np.arange(found.logits.shape[1])
    for output, c in zip(*linear_sum_assignment(-table), strict=True):
        meaning[missing[output]] = missing[c]
    right = meaning[answers] == found.labels
    known = np.isin(found.labels, list(seen))
    return {"all": float(right.mean()), "seen": float(right[known].mean()), "missing": float(right[~known].mean())}


def trivial(splits: Splits) -> float:
    """Accuracy of the nearest labelled image by raw pixels."""
    from repertoire.claims.beds._named import neighbour_accuracy

    return neighbour_accuracy(splits.train, splits.test, count=1)


@arm
def learned(budget: Budget, seed: int, *, method: str, labels: int = 4, lr: float = RATE) -> dict[str, float]:
    """A method with so many labels of each digit: its test `accuracy`, and what the `trivial` answer scores."""
    splits = few(digits(budget), seed, labels)
    found = scores(trained(budget, seed, splits, method, lr=lr), splits.test)
    return {"accuracy": float((found.logits.argmax(1) == found.labels).mean()), "trivial": trivial(splits)}


def beside_fixmatch(budget: Budget, seed: int, change: str, extra: Mapping[str, str]) -> Measured:
    """FixMatch with a change beside FixMatch as it is, with four labels of each digit.

    Args:
        change: further options of its spec.
        extra: specs of other methods by what their accuracy is called.
    """
    ours, theirs = (learned(budget, seed, method=FIXMATCH + more) for more in (change, ""))
    others = {name: learned(budget, seed, method=spec)["accuracy"] for name, spec in extra.items()}
    return Measured(ours["accuracy"], theirs["accuracy"], others, trivial=theirs["trivial"])
