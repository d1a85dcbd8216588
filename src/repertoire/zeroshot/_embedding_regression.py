"""Descriptions regressed on features, and the nearest description."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from scipy.linalg import solve

from repertoire.ranges import Positive, checked
from repertoire.registry import register
from repertoire.zeroshot._base import ZeroShotClassifier, unit_length

__all__ = ["EmbeddingRegression"]


@register("zero-shot-classifiers", "embedding-regression", paper="zsl-survey")
class EmbeddingRegression(ZeroShotClassifier):
    r"""Predicts the description of a row by ridge regression, and takes the class whose description is nearest.

    The direct map into the semantic space of Palatucci et al., *Zero-shot Learning with Semantic Output Codes* (2009).
    With each description brought to unit length,

    .. math:: \min_W \; \tfrac{1}{N} \sum_i \lVert W x_i + b - s_{y_i} \rVert^2 + \gamma \lVert W \rVert_F^2

    Args:
        ridge: :math:`\gamma`, positive; 0.001 by default. Features have a mean squared length of 1.
        nearness: by the cosine to the predicted description (default), or by its Euclidean distance as in the paper.

    Attributes:
        coef_: W, `[a, d]`.
        intercept_: b, `[a]`.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import EmbeddingRegression
        >>> x, y = np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 1])
        >>> described = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> EmbeddingRegression().fit(x, y, described).predict([[1.5, 1.5]])  # a row of the class never seen
        array([2])
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    @checked
    def __init__(
        self, ridge: Annotated[float, Positive] = 1e-3, nearness: Literal["cosine", "euclidean"] = "cosine"
    ) -> None:
        self.ridge = ridge
        self.nearness = nearness

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        self.coef_, self.intercept_ = ridge_map(Z, unit_length(self._seen_descriptions)[y], self.ridge)

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        found, described = Z @ self.coef_.T + self.intercept_, unit_length(descriptions)
        if self.nearness == "cosine":
            return unit_length(found) @ described.T
        # Squared distances up to what is the same for all classes of a row, and lengths are 1.
        return 2 * found @ described.T - np.square(found).sum(1, keepdims=True) - np.square(described).sum(1)


def ridge_map(Z: np.ndarray, targets: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[a, d]` and intercepts `[a]` of the ridge regression of targets `[N, a]` on rows `[N, d]`."""
    centre, mean = Z.mean(0), targets.mean(0)
    away = Z - centre
    left = away.T @ away / len(Z) + ridge * np.eye(Z.shape[1])
    weights: np.ndarray = solve(left, away.T @ (targets - mean) / len(Z), assume_a="pos").T
    return weights, mean - weights @ centre
