"""Label spreading: neighbours in a graph of all rows have similar labels."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix, diags_array, eye_array
from scipy.sparse.linalg import cg
from sklearn.base import ClassifierMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted, validate_data

from repertoire.estimators._saved import FeatureEstimator
from repertoire.estimators._unlabelled import labelled_rows
from repertoire.estimators.boosted._base import require
from repertoire.registry import register

__all__ = ["LabelSpreading"]

TINY = np.finfo(np.float64).tiny


@register("feature-estimators", "label-spreading")
class LabelSpreading(ClassifierMixin, FeatureEstimator):
    r"""Labels that spread along the graph of nearest neighbours, until neighbours agree.

    Zhou, Bousquet, Lal, Weston and Schoelkopf, *Learning with Local and Global Consistency* (2004). With W the graph of
    nearest neighbours, symmetric and of weights 1, D its degrees and Y the labels, a one in the column of its class and
    rows of zeros where there is none:

    .. math:: F = (1 - \alpha)\,(I - \alpha S)^{-1}\,Y, \qquad S = D^{-1/2}\,W\,D^{-1/2}

    Solved by conjugate gradients, so nothing is N x N. A row belongs to the class whose column is largest; new rows
    take the mean of their nearest neighbours, weighted by one over the squared distance.

    Args:
        alpha: how far labels spread, in (0, 1); 0.99 by default, as in the paper.
        neighbours: of each row in the graph, 1 or more.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        scores_: F, its rows of sum one, `[N, K]`; equal shares for rows that no label reaches.
        transduction_: the label that each row has in the end, `[N]`: the given one where there was one.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: labels of fewer than two classes, values that are not finite. ConfigError: an option
            out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import LabelSpreading
        >>> x = np.concatenate([np.linspace(0, 1, 20), np.linspace(2, 9, 20)])[:, None]
        >>> y = np.full(40, -1)
        >>> y[[0, 20]] = 0, 1
        >>> LabelSpreading(neighbours=2).fit(x, y).predict([[1.0], [9.0]])
        array([0, 1])
    """

    learns_unlabelled = True

    classes_: np.ndarray
    scores_: np.ndarray
    transduction_: np.ndarray

    def __init__(self, alpha: float = 0.99, neighbours: int = 10) -> None:
        self.alpha = alpha
        self.neighbours = neighbours

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]`, -1 or "" where there is none."""
        require(self, "alpha", 0 < self.alpha < 1, "above 0 and below 1")
        require(self, "neighbours", self.neighbours >= 1, "1 or more")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        self.classes_, index = labelled_rows(y)
        self._rows = X
        size, count = len(X), min(self.neighbours, len(X) - 1)
        near = NearestNeighbors(n_neighbors=count).fit(X).kneighbors(return_distance=False)
        ones = np.ones(size * count)
        graph = csr_matrix((ones, (np.repeat(np.arange(size), count), near.ravel())), shape=(size, size))
        graph = graph.maximum(graph.T)
        scale = diags_array(1 / np.sqrt(np.asarray(graph.sum(1)).ravel()))
        system = eye_array(size) - self.alpha * (scale @ graph @ scale)
        given = (index[:, None] == np.arange(len(self.classes_))).astype(np.float64)
        found = np.stack([cg(system, column, rtol=1e-8, maxiter=10 * size)[0] for column in given.T], axis=1)
        self.scores_ = _shares((1 - self.alpha) * found)
        self.transduction_ = self.classes_[np.where(index >= 0, index, self.scores_.argmax(1))]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The weighted mean of the nearest rows `[N, K]`, classes in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        count = min(self.neighbours, len(self._rows))
        distances, near = NearestNeighbors(n_neighbors=count).fit(self._rows).kneighbors(X)
        # The nearer, the more it says; a row that is there already speaks for itself.
        nearness = 1 / np.maximum(distances / np.maximum(distances[:, -1:], TINY), 1e-6) ** 2
        return _shares((nearness[:, :, None] * self.scores_[near]).sum(1))

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row, `[N]`."""
        nearest = self.predict_proba(X).argmax(1)
        return self.classes_[nearest]


def _shares(scores: np.ndarray) -> np.ndarray:
    """Rows of sum one; equal shares where all are zero."""
    scores = np.maximum(scores, 0)
    total = scores.sum(1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[1])
