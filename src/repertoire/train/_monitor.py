"""Whether features that are learned without labels get better, while they are learned."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from repertoire.data import Samples
from repertoire.errors import option
from repertoire.methods import Method
from repertoire.tasks import Outputs, Task, spread_out
from repertoire.train._probe import probe_outputs

__all__ = ["Features", "collapsed", "monitor"]


class Features:
    """Watches features while a method learns without the labels that there are.

    Each validation image is named by the 20 training images whose features are nearest. Neighbours have nothing to
    learn, so they say of every epoch what its features are worth, while the read-out follows features that move. Yet it
    is the read-out that decides which epoch is kept: what is kept is a whole classifier, and `predict`, `evaluate` and
    the report answer with it. On digits the neighbours were best after the first epoch, when the read-out had learned
    nothing.

    Neighbours are searched among at most 5,000 training images, evenly spaced, which pass through the network once,
    without augmentation: a tenth of the time of an epoch of two views.

    Args:
        train: the training images.
        classes: how many classes there are.
    """

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
    """Monitor of features; None where the task itself says all, because labels teach or because there are none."""
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
        f"worth nothing; try a lower {option('lr')}, another augmentation, or a loss that punishes it: "
        f"{option('method', 'embedding')} with {option('loss', 'vicreg')}"
    )
