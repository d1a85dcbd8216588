"""Rows without a label, for estimators that learn from them too."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

__all__ = ["labelled_rows", "nobody_knows"]


def nobody_knows(y: Any) -> np.ndarray:
    """Mask of the labels that stand for none: -1 among whole numbers, as in scikit-learn, and "" among names.

    Args:
        y: labels `[N]`.

    Returns:
        bool `[N]`.

    Example:
        >>> from repertoire.estimators import nobody_knows
        >>> nobody_knows([0, -1, 2]), nobody_knows(["cat", "", "dog"])
        (array([False,  True, False]), array([False,  True, False]))
    """
    y = np.asarray(y)
    if y.dtype.kind in "OUS":
        return np.array([label in ("", b"") or (isinstance(label, int) and label == -1) for label in y.tolist()], bool)
    return np.asarray(y == -1)


def labelled_rows(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes among the labels, sorted `[K]`, and the class of each row, int64 `[N]`, -1 where nobody knows it.

    Raises:
        ValueError: labels that are no classes, or fewer than two of them.
    """
    check_classification_targets(y)
    known = ~nobody_knows(y)
    classes, found = np.unique(y[known], return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"a classifier needs rows of two classes, and the labelled ones are of {len(classes)} class; rows labelled "
            '-1 or "" count as unlabelled'
        )
    index = np.full(len(y), -1)
    index[known] = found
    return classes, index
