"""Whether features that are learned without labels get better, while they are learned."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from repertoire.data import Samples
from repertoire.methods import Method
from repertoire.tasks import Best, Outputs, Task, spread_out
from repertoire.train._probe import probe_outputs

__all__ = ["Features", "collapsed", "monitor"]


class Features:
    """What is said after each epoch of a method that learns without the labels that there are, and which epoch is best.

    That is the accuracy of nearest neighbours: each validation image is named by the 20 training images whose features
    are nearest. The read-out that learns beside the encoder follows features that move, on augmented views, with the
    learning rate of the encoder, and is best when the features stand still; neighbours have nothing to learn, so they
    say of every epoch what its features are worth. Neighbours are searched among at most 5,000 training images, evenly
    spaced, which pass through the network once, without augmentation: a tenth of the time of an epoch of two views.

    Args:
        train: the training images.
        classes: how many classes there are.
    """

    best: ClassVar[Best] = Best("knn_accuracy", True, "", "accuracy of nearest neighbours")
    headline: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"knn_accuracy": "neighbours {:.1%}", "accuracy": "read-out {:.1%}", "rank": "rank {:.1f}"}
    )
    MOST = 5_000

    def __init__(self, train: Samples, classes: int) -> None:
        known = np.flatnonzero(train.known)
        self.bank = train.subset(
            known[np.unique(np.linspace(0, len(known) - 1, min(self.MOST, len(known))).astype(int))]
        )
        self.classes = classes

    def score(self, bank: Outputs, outputs: Outputs) -> dict[str, float]:
        """Keys: `knn_accuracy` of the samples with a label, where there are any; `rank` and `spread` of all.

        Args:
            bank: what the network says of the samples of `self.bank`.
            outputs: what it says of those that are judged.
        """
        found = spread_out(outputs.embeddings) if len(outputs.embeddings) else {}
        known = outputs.labels >= 0
        if known.any():
            answers, _ = probe_outputs("knn", bank, outputs, self.classes)
            found["knn_accuracy"] = float((answers.logits.argmax(1) == outputs.labels)[known].mean())
        return found


def monitor(task: Task, method: Method, train: Samples) -> Features | None:
    """What watches features; None where the task itself says all, because labels teach or because there are none."""
    if method.needs.labels != "unused" or task.kind != "classes" or len(np.unique(train.labels[train.known])) < 2:
        return None
    return Features(train, len(task.names))


def collapsed(measured: Mapping[str, float]) -> str:
    """Says so where all samples have all but the same features; "" where they have not, or nobody looked."""
    rank, spread = measured.get("rank"), measured.get("spread")
    if rank is None or spread is None or (rank >= 2 and spread >= 0.02):
        return ""
    return (
        f"warning: the features have collapsed to {rank:.1f} directions, with a spread of {spread:.3f} of 1, and are "
        "worth nothing; try a lower --lr, another augmentation, or a loss that punishes it: --method embedding --loss "
        "vicreg"
    )
