"""Features of unseen classes, generated from their descriptions."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky

from repertoire.ranges import AtLeast, Positive, Share, checked
from repertoire.registry import register
from repertoire.zeroshot._base import ZeroShotClassifier, _matrix, unit_length

__all__ = ["FeatureGenerator"]


@register("zero-shot-classifiers", "feature-generator", paper="kg-zsl-survey")
class FeatureGenerator(ZeroShotClassifier):
    r"""A Gaussian for each class, whose mean follows from its description; features can be drawn from it.

    The generation-based way of Chen et al., *Zero-shot and Few-shot Learning with Knowledge Graphs: A Comprehensive
    Survey* (2021), with the simplest generator there is, as in Verma and Rai, *A Simple Exponential Family Framework
    for Zero-Shot Learning* (2017), here with ridge regression and one covariance. Seen classes keep the mean of their
    rows; that of an unseen class is predicted from its description by ridge regression over the means of seen classes.

    .. math:: x \mid c \sim \mathcal N(m_c, \Sigma) \text{ (seen)}, \qquad
        x \mid c \sim \mathcal N(B s_c + b, \Sigma + R) \text{ (unseen)}

    :math:`\Sigma` is the covariance within seen classes, and R that of what the regression misses of the mean of a
    class that it was not told of (leaving one class out). The score is the logarithm of the density: the classifier
    that endless generated features would train.

    Args:
        ridge: penalty of the regression on the descriptions, which have unit length; positive, 0.01 by default.
        shrink: share of the mean variance in both covariances, from 0 to 1; 0.1 by default.

    Attributes:
        means_: of the seen classes, scaled as `ZeroShotClassifier` says, `[K, d]`.
        coef_, intercept_: B `[d, a]` and b `[d]`.
        within_, missed_: the covariance within classes, and R, `[d, d]`.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import FeatureGenerator
        >>> x, y = np.array([[2.0, 0.0], [2.2, 0.1], [0.0, 2.0], [0.1, 2.2]]), np.array([0, 0, 1, 1])
        >>> model = FeatureGenerator().fit(x, y, [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        >>> model.generate([[0.5, 0.5]], 3).shape
        (1, 3, 2)
    """

    means_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    within_: np.ndarray
    missed_: np.ndarray

    @checked
    def __init__(self, ridge: Annotated[float, Positive] = 1e-2, shrink: Annotated[float, Share] = 0.1) -> None:
        self.ridge = ridge
        self.shrink = shrink

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        counts = np.bincount(y)
        self.means_ = np.zeros((len(counts), Z.shape[1]))
        np.add.at(self.means_, y, Z)
        self.means_ /= counts[:, None]
        spread = Z - self.means_[y]
        self.within_ = self._shrunk(spread.T @ spread / len(Z))
        described = unit_length(self._seen_descriptions)
        centre, mean = described.mean(0), self.means_.mean(0)
        away = described - centre
        inverse = np.linalg.inv(away.T @ away / len(away) + self.ridge * np.eye(away.shape[1])) / len(away)
        self.coef_ = (inverse @ away.T @ (self.means_ - mean)).T
        self.intercept_ = mean - self.coef_ @ centre
        # What is left of a class when the others predict it, by the leverage of its description.
        leverage = 1 / len(away) + np.einsum("ca,ab,cb->c", away, inverse, away)
        missed = (self.means_ - self._predicted(described)) / np.maximum(1 - leverage, 1e-2)[:, None]
        self.missed_ = self._shrunk(missed.T @ missed / len(missed))

    def generate(self, descriptions: Any, count: Annotated[int, AtLeast(1)], random_state: int = 0) -> np.ndarray:
        """Draws features of classes that are described, in the unit of those of `fit`.

        Args:
            descriptions: float `[C, a]`.
            count: how many of each.
            random_state: seed of what is drawn.

        Returns:
            float64 `[C, count, d]`.
        """
        described = _matrix("descriptions", descriptions, self.descriptions_.shape[1])
        known = self._recognised(described)
        means = self._means(described, known)
        noise = np.random.default_rng(random_state).normal(size=(len(means), count, means.shape[1]))
        factors = [cholesky(self.within_ + missed, lower=True) for missed in (0.0, self.missed_)]
        drawn = np.stack([noise[c] @ factors[int(known[c] < 0)].T + means[c] for c in range(len(means))])
        return drawn * self._length + self._centre

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        means = self._means(descriptions, known)
        scores = np.empty((len(Z), len(means)))
        for group, covariance in ((known >= 0, self.within_), (known < 0, self.within_ + self.missed_)):
            factor = cho_factor(covariance, lower=True)
            volume = 2 * np.log(np.diag(factor[0])).sum()
            turned, towards = cho_solve(factor, means[group].T), cho_solve(factor, Z.T)
            square = (Z.T * towards).sum(0)[:, None] + (means[group] * turned.T).sum(1) - 2 * Z @ turned
            scores[:, group] = -0.5 * (square + volume)
        return scores

    def _means(self, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        means = self._predicted(unit_length(descriptions))
        means[known >= 0] = self.means_[known[known >= 0]]
        return means

    def _predicted(self, described: np.ndarray) -> np.ndarray:
        means: np.ndarray = described @ self.coef_.T + self.intercept_
        return means

    def _shrunk(self, covariance: np.ndarray) -> np.ndarray:
        mean = np.trace(covariance) / len(covariance)
        # Never singular, also where every class has one row.
        return (1 - self.shrink) * covariance + (self.shrink * mean + 1e-6) * np.eye(len(covariance))
