"""A bilinear map between features and descriptions, in closed form."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.linalg import solve

from repertoire.ranges import Positive, checked
from repertoire.registry import register
from repertoire.zeroshot._base import ZeroShotClassifier, unit_length

__all__ = ["ESZSL"]


@register("zero-shot-classifiers", "eszsl", paper="zsl-survey")
class ESZSL(ZeroShotClassifier):
    r"""Bilinear compatibility of features and descriptions, in closed form: the first zero-shot classifier to try.

    Romera-Paredes and Torr, *An Embarrassingly Simple Approach to Zero-Shot Learning* (2015). With N rows X, targets
    :math:`Y_{ic}` of 1 for the class of a row and -1 for every other of the C seen classes, and their descriptions S,

    .. math::
        V = \left(\tfrac{1}{N} X^\top X + \gamma I\right)^{-1} \frac{X^\top Y S}{N C}
        \left(\tfrac{1}{C} S^\top S + \lambda I\right)^{-1}

    and the score of a class with the description s is :math:`x^\top V s`. It minimises the mean squared error of the
    scores, with penalties on what V makes of the descriptions (:math:`\gamma`), on what it makes of the features
    (:math:`\lambda`), and on V (their product). Features have a mean squared length of 1 (see `ZeroShotClassifier`),
    and each description is brought to unit length, so that both strengths are without a unit: the method depends on
    how rows are scaled. The paper does not scale them, and chooses both strengths by classes held out.

    Args:
        ridge: :math:`\gamma`, positive; 0.001 by default.
        description_ridge: :math:`\lambda`, positive; 0.01 by default.
        normalize: bring each description to unit length.

    Attributes:
        coef_: V, `[d, a]`.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import ESZSL
        >>> wings_legs = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # fish with wings, horse, bird
        >>> x = np.array([[2.0, 0.1], [1.9, 0.0], [0.1, 2.0], [0.0, 2.1]])
        >>> ESZSL().fit(x, [0, 0, 1, 1], wings_legs).predict([[2.0, 0.0], [0.0, 2.0]])
        array([0, 1])
    """

    coef_: np.ndarray

    @checked
    def __init__(
        self,
        ridge: Annotated[float, Positive] = 1e-3,
        description_ridge: Annotated[float, Positive] = 1e-2,
        normalize: bool = True,
    ) -> None:
        self.ridge = ridge
        self.description_ridge = description_ridge
        self.normalize = normalize

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        S = self._scaled(self._seen_descriptions)
        count, classes = len(Z), len(S)
        # Y S, without the N x C matrix: twice the description of the row's class, less those of all classes.
        answers = 2 * S[y] - S.sum(0)
        left = Z.T @ Z / count + self.ridge * np.eye(Z.shape[1])
        right = S.T @ S / classes + self.description_ridge * np.eye(S.shape[1])
        half = solve(left, Z.T @ answers / (count * classes), assume_a="pos")
        self.coef_ = solve(right, half.T, assume_a="pos").T

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        scores: np.ndarray = Z @ self.coef_ @ self._scaled(descriptions).T
        return scores

    def _scaled(self, descriptions: np.ndarray) -> np.ndarray:
        return unit_length(descriptions) if self.normalize else descriptions
