"""Logistic regression on a frozen embedding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, validate_data

from repertoire.estimators._saved import FeatureEstimator
from repertoire.registry import register

__all__ = ["FrozenEmbeddingClassifier"]


@register("feature-estimators", "frozen-embedding", paper="rfs")
class FrozenEmbeddingClassifier(ClassifierMixin, FeatureEstimator):
    r"""Logistic regression on the L2-normalised features of a frozen network.

    Tian et al., *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?* (2020). With
    :math:`\bar z = z / \lVert z \rVert_2`, and W, b chosen to minimise over the n labelled samples

    .. math::
        \tfrac{1}{2} \lVert W \rVert_F^2 + C \sum_{i=1}^{n} -\log \mathrm{softmax}(W \bar z_i + b)_{y_i}

    A scikit-learn estimator, so that it goes into its pipelines and searches.

    Args:
        C: weight of the labelled samples against the penalty, positive; smaller means a simpler classifier. 1 by
            default.
        normalize: scale each feature vector to unit length first, as the paper does; a zero vector stays zero.
        max_iter: iterations of L-BFGS at most; 1000 by default.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        coef_: W, `[K, d]`, or `[1, d]` for two classes.
        intercept_: b, `[K]`, or `[1]` for two classes.
        n_features_in_: d.
        n_iter_: iterations it took, `[1]`.

    Raises:
        ValueError: when fitted: fewer than two classes, values that are not finite, options out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import FrozenEmbeddingClassifier
        >>> features = np.array([[1.0, 0.1], [9.0, 1.0], [0.1, 1.0], [0.3, 2.0]])
        >>> FrozenEmbeddingClassifier().fit(features, ["cat", "cat", "dog", "dog"]).predict([[5.0, 1.0]])
        array(['cat'], dtype='<U3')
    """

    def __init__(self, C: float = 1.0, normalize: bool = True, max_iter: int = 1000) -> None:
        self.C = C
        self.normalize = normalize
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]` of any kind."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        regression = LogisticRegression(C=self.C, max_iter=self.max_iter).fit(self._scaled(X), y)
        for name in ("classes_", "coef_", "intercept_", "n_iter_"):
            setattr(self, name, getattr(regression, name))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits `[N, K]`, or `[N]` for two classes."""
        logits = self._checked(X) @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities `[N, K]`, classes in the order of `classes_`."""
        logits = self.decision_function(X)
        return expit(np.stack([-logits, logits], axis=1)) if logits.ndim == 1 else softmax(logits, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row, `[N]`."""
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(1)]

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._scaled(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return normalize(X) if self.normalize else X
