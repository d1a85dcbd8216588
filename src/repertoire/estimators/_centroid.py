"""The nearest class mean."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from repertoire.estimators._saved import FeatureEstimator
from repertoire.registry import register

__all__ = ["NearestCentroid"]


@register("feature-estimators", "nearest-centroid")
class NearestCentroid(ClassifierMixin, FeatureEstimator):
    r"""Nearest class mean: what prototypical networks do with a support set.

    Snell, Swersky and Zemel, *Prototypical Networks for Few-shot Learning* (2017). With :math:`c_k` the mean of the
    features of class k:

    .. math::
        p(y = k \mid z) \propto \exp(-\lVert z - c_k \rVert_2^2)

    Args:
        normalize: scale each feature vector to unit length first; a zero vector stays zero. The paper does not; frozen
            features of a classifier usually gain by it.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        centroids_: the class means, `[K, d]`.
        counts_: how many samples each is the mean of, `[K]`.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import NearestCentroid
        >>> NearestCentroid(normalize=False).fit([[0.0], [2.0], [9.0]], [0, 0, 1]).predict([[4.0], [6.0]])
        array([0, 1])
    """

    classes_: np.ndarray
    centroids_: np.ndarray
    counts_: np.ndarray

    def __init__(self, normalize: bool = True) -> None:
        self.normalize = normalize

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]` of any kind."""
        return self._add(X, y, afresh=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Fits to more features float `[N, d]` with labels `[N]`, of known classes or of new ones.

        The means are those of all samples there have been, so nothing is forgotten, whatever the order: with frozen
        features it is the bound that continual learning is measured against.

        Args:
            X: features `[N, d]`.
            y: labels `[N]`.
            classes: all labels there will ever be, which scikit-learn's estimators ask for in the first call; no other
                label may come. Classes without a sample are not predicted.
        """
        return self._add(X, y, afresh=not hasattr(self, "counts_"), classes=classes)

    def _add(self, X: Any, y: Any, *, afresh: bool, classes: Any = None) -> Self:
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=afresh)
        check_classification_targets(y)
        if classes is not None and len(unknown := np.setdiff1d(y, classes)):
            raise ValueError(f"label {unknown.tolist()[0]!r} is not among the classes that were announced")
        found, index, counts = np.unique(y, return_inverse=True, return_counts=True)
        sums = np.zeros((len(found), X.shape[1]))
        np.add.at(sums, index, self._scaled(X))
        if not afresh:
            every = np.union1d(self.classes_, found)
            old, new = np.searchsorted(every, self.classes_), np.searchsorted(every, found)
            whole, number = np.zeros((len(every), X.shape[1])), np.zeros(len(every), dtype=counts.dtype)
            whole[old], number[old] = self.centroids_ * self.counts_[:, None], self.counts_
            whole[new] += sums
            number[new] += counts
            found, sums, counts = every, whole, number
        self.classes_, self.counts_ = found, counts
        self.centroids_ = sums / counts[:, None]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities `[N, K]`, classes in the order of `classes_`."""
        return softmax(-self._distances(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The label of the nearest class mean of each row, `[N]`."""
        nearest = self._distances(X).argmin(1)
        return self.classes_[nearest]

    def _distances(self, X: Any) -> np.ndarray:
        """Squared distances to the class means, `[N, K]`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return euclidean_distances(self._scaled(X), self.centroids_, squared=True)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return normalize(X) if self.normalize else X
