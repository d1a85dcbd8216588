"""What inputs give as they come, without a network or its training: the least that a trained classifier must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from repertoire.claims.beds.frozen import Rows, tensors_of

if TYPE_CHECKING:
    from repertoire.data import Splits

__all__ = ["raw_accuracy", "raw_accuracy_of_rows"]


def raw_accuracy_of_rows(rows: Rows, *, balanced: bool = False) -> float:
    """Test accuracy of the best of three rules that learn no features from the rows to learn from: the most frequent
    class, the nearest class mean, and the five nearest neighbours.

    Args:
        rows: with a class each; those to choose on are not used. Images count as rows of their pixels.
        balanced: the mean of the classes' accuracies, where a claim's metric is that.
    """
    x, y, test_x, test_y = (
        part.cpu().numpy() for part in (rows.x.flatten(1), rows.y, rows.test_x.flatten(1), rows.test_y)
    )
    answers = [model.fit(x, y).predict(test_x) for model in (NearestCentroid(), KNeighborsClassifier(min(5, len(x))))]
    answers.append(np.full(len(test_y), np.bincount(y).argmax()))
    return max(_accuracy(answer == test_y, test_y, balanced) for answer in answers)


def raw_accuracy(splits: Splits, *, balanced: bool = False) -> float:
    """The same of samples: images by their pixels, in [0, 1]."""
    x, y = tensors_of(splits.train)
    test_x, test_y = tensors_of(splits.test)
    return raw_accuracy_of_rows(Rows(x, y, x[:0], y[:0], test_x, test_y), balanced=balanced)


def _accuracy(right: np.ndarray, labels: np.ndarray, balanced: bool) -> float:
    if not balanced:
        return float(right.mean())
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))
