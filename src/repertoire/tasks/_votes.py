"""The answers of several annotators."""

from __future__ import annotations

from typing import Any

import numpy as np

from repertoire.tasks._base import Outputs
from repertoire.tasks._classes import Classes

__all__ = ["Votes", "majority"]


def majority(votes: np.ndarray, classes: int) -> np.ndarray:
    """The class that most annotators gave, int64 `[N]`: the smallest of equals, -1 where nobody answered.

    Args:
        votes: int64 `[N, A]`, -1 for no answer.
        classes: C.

    Example:
        >>> import numpy as np
        >>> majority(np.array([[1, 1, 0], [-1, 2, -1], [-1, -1, -1]]), 3)
        array([ 1,  2, -1])
    """
    counts = tally(votes, classes)
    return np.where(counts.any(1), counts.argmax(1), -1).astype(np.int64)


def tally(votes: np.ndarray, classes: int) -> np.ndarray:
    """Number of annotators that gave each class, int64 `[N, C]`."""
    counts = np.zeros((len(votes), classes), dtype=np.int64)
    row, column = np.nonzero(votes >= 0)
    np.add.at(counts, (row, votes[row, column]), 1)
    return counts


class Votes(Classes):
    """One class a sample, known only from the answers of several annotators.

    A network is scored against the majority, and against how far the annotators agree among themselves.
    """

    kind = "votes"

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """The majority, which a loss on classes learns from."""
        return majority(labels, self.outputs)

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """Metrics of `Classes.score` against the majority, and how far annotators agree.

        `agreement` is the mean share of the annotators of a sample who gave the class that the network says;
        `annotators_agreement`, the same of the majority, is its bound.
        """
        agreed = majority(outputs.labels, self.outputs)
        metrics = super().score(Outputs(outputs.logits, outputs.embeddings, agreed))
        counts = tally(outputs.labels, self.outputs)
        some = counts.any(1)
        if some.any():
            shares = counts[some] / counts[some].sum(1, keepdims=True)
            metrics["agreement"] = float(shares[np.arange(len(shares)), outputs.logits[some].argmax(1)].mean())
            metrics["annotators_agreement"] = float(shares.max(1).mean())
        return metrics
